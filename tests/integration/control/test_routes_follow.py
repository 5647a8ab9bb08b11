"""A Route's status follows its Deployments at once, not when it looks by itself two minutes later."""

from typing import Any

from podium.control.routes import RouteReconciler
from podium.resources.kinds import parse_applied
from tests.integration.control.conftest import USER


def published(plant: Any, name: str, *deployments: str) -> None:
    rule = {"to": deployments[0], "fallback": {"deployments": [*deployments[1:]], "answer": {"body": {}}}}
    wish = {"apiVersion": "podium/v1", "kind": "Route", "metadata": {"name": name}, "spec": {"rules": [rule]}}
    with plant.store.write(USER) as tx:
        tx.create(parse_applied(wish))
    plant.settle()


def told(plant: Any, name: str) -> tuple[str, str]:
    status = plant.get("Route", name).status
    return status.phase, status.message


def test_a_route_is_degraded_as_soon_as_its_deployment_fails_and_ready_as_soon_as_it_serves(
    plant: Any,
) -> None:
    plant.reconcilers["Route"] = RouteReconciler(plant.store)
    plant.push(1)
    published(plant, "front", "churn")
    published(plant, "behind", "churn-not", "churn")
    assert told(plant, "front") == ("Degraded", "churn does not exist")
    plant.preparation.answer.error = "no such package"
    plant.apply(model={"name": "churn", "version": "1"})
    plant.settle()
    assert plant.get("Deployment", "churn").status.phase == "Failed"
    assert told(plant, "front") == ("Degraded", "churn is Failed")
    assert told(plant, "behind") == ("Degraded", "churn-not does not exist; churn is Failed")
    with plant.store.write(USER) as tx:
        tx.request_deletion(tx.get("Deployment", "default", "churn").uid)
    plant.settle()
    assert told(plant, "front") == ("Degraded", "churn does not exist")
    plant.preparation.answer.error = ""
    plant.apply(model={"name": "churn", "version": "1"})
    plant.settle()
    assert plant.get("Deployment", "churn").status.phase == "Ready"
    assert told(plant, "front") == ("Ready", "")


def test_only_routes_that_name_it_are_woken(plant: Any) -> None:
    plant.push(1)
    plant.apply(model={"name": "churn", "version": "1"})
    for name, deployment in (("front", "churn"), ("other", "churn-next")):
        published(plant, name, deployment)
    with plant.store.read() as tx:
        routes = {route.uid: route.metadata.name for route in tx.list("Route").items}
        assert [routes[uid] for uid in tx.naming("Route", "default", "churn")] == ["front"]
        assert tx.naming("Route", "elsewhere", "churn") == []
