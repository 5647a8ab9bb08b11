"""A Route whose cascade can hand nothing on says so, and stops saying so when it can: reconcilers on a real store."""

from typing import Any

from podium.control.routes import RouteReconciler
from podium.resources.kinds import parse_applied
from podium.resources.manifest import Manifest
from podium.resources.shape import Metadata
from tests.integration.control.conftest import USER

OUTPUTS = [
    {"name": "predict", "datatype": "INT64", "shape": [-1]},
    {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 3]},
]


def published(plant: Any, **cascade: Any) -> Any:
    """The Route's status when everything has settled."""
    rule = {"to": "churn", "cascade": {"deployment": "large", **cascade}}
    wish = parse_applied(
        {"apiVersion": "podium/v1", "kind": "Route", "metadata": {"name": "front"}, "spec": {"rules": [rule]}}
    )
    with plant.store.write(USER) as tx:
        current = tx.find("Route", "default", "front")
        if current is None:
            tx.create(wish)
        else:
            tx.replace(current.uid, spec=wish.spec, expected_version=None)
    plant.settle()
    return plant.get("Route", "front").status


def test_the_served_versions_signature_is_what_a_cascade_is_held_against(plant: Any) -> None:
    plant.reconcilers["Route"] = RouteReconciler(plant.store)
    plant.push(1)
    with plant.store.write(USER) as tx:
        one = tx.get("ModelVersion", "default", "churn.1")
        document = one.spec.manifest.model_dump(mode="json", by_alias=True)
        manifest = Manifest.model_validate({**document, "signature": {"inputs": [], "outputs": OUTPUTS}})
        spec = one.spec.model_copy(
            update={"version": "2", "manifest": manifest, "digest": manifest.digest(), "push_digest": manifest.digest()}
        )  # fmt: skip
        tx.create(one.model_copy(update={"metadata": Metadata(name="churn.2"), "spec": spec}))
        large = {"apiVersion": "podium/v1", "kind": "Deployment", "metadata": {"name": "large"},
                 "spec": {"model": {"name": "churn", "version": "1"}}}  # fmt: skip
        tx.create(parse_applied(large))
    plant.apply(model={"name": "churn", "version": "2"})
    plant.settle()
    status = published(plant, output="predict_prob")
    assert (status.phase, status.loaded) == ("Degraded", True)
    words = "rules[0].cascade.output: churn-00001 serves churn version 2, which has no output predict_prob"
    assert status.message.startswith(words)
    assert status.message.endswith("it has predict, predict_proba")
    with plant.store.read() as tx:
        told = [event for event in tx.events(limit=100) if event.name == "front"]
    assert [(event.type, event.reason) for event in told] == [("Warning", "Degraded")]
    assert "never below 0.333" in published(plant, threshold=0.3).message
    assert published(plant, threshold=0.5).phase == "Ready"
