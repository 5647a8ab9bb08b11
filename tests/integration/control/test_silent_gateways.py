"""Two gateways of which one falls silent: who is waited for, for how long, and who is told."""

import datetime
from typing import Any

from podium.cli.explain import explanation
from podium.control import loop
from podium.control.gateways import KNOWN_FOR, known_gateways, lowest_observed
from podium.store import GatewayRow
from tests.integration.control.conftest import USER
from tests.integration.control.test_passages import first, live, second


def second_gateway(plant: Any, *, ago: float, version: int) -> None:
    """Its last report, so many seconds ago."""
    seen = loop.now() - datetime.timedelta(seconds=ago)
    plant.store.report_gateway(GatewayRow("gw-2", seen, version, [], {}))


def waiting(plant: Any) -> Any:
    """A rollout whose first step one silent gateway keeps from counting as loaded."""
    first(plant)
    second_gateway(plant, ago=42, version=plant.store.current_version())
    second(plant)
    rollout = plant.get("Rollout", "churn-2")
    assert (rollout.status.phase, rollout.status.loaded) == ("Progressing", False)
    return rollout


def test_the_rollout_its_deployment_its_story_and_an_event_name_it(plant: Any) -> None:
    rollout = waiting(plant)
    assert rollout.status.silent_gateways == ["gw-2"]
    assert "waits for gateway gw-2 (silent since " in rollout.status.message
    assert "podium gateway forget gw-2" in rollout.status.message
    deployment = plant.get("Deployment", "churn")
    assert deployment.status.message == f"churn-2 {rollout.status.message}"
    assert rollout.status.message in explanation(rollout).ending
    with plant.store.read() as tx:
        told = [event for event in tx.events(limit=100) if event.reason == "GatewaySilent"]
    assert [(event.type, event.name) for event in told] == [("Warning", "churn-2")]


def test_it_goes_on_when_the_gateway_is_forgotten(plant: Any) -> None:
    waiting(plant)
    plant.store.forget_gateway("gw-2", USER)
    plant.settle()
    rollout = plant.get("Rollout", "churn-2")
    assert (rollout.status.loaded, rollout.status.silent_gateways) == (True, [])
    assert plant.get("Deployment", "churn").status.message == ""
    assert live(plant) == [("churn-00001", 5000), ("churn-00002", 5000)]


def test_it_goes_on_when_the_gateway_reports_again(plant: Any) -> None:
    waiting(plant)
    second_gateway(plant, ago=0, version=plant.store.current_version())
    plant.settle()
    assert plant.get("Rollout", "churn-2").status.loaded


def test_it_goes_on_by_itself_when_the_gateway_has_been_silent_for_long_enough(plant: Any) -> None:
    rollout = waiting(plant)
    version = rollout.status.weight_version - 1
    second_gateway(plant, ago=KNOWN_FOR.total_seconds() - 60, version=version)
    plant.settle()
    assert not plant.get("Rollout", "churn-2").status.loaded
    second_gateway(plant, ago=KNOWN_FOR.total_seconds() + 1, version=version)
    plant.settle()
    assert plant.get("Rollout", "churn-2").status.loaded


def test_a_silent_gateway_keeps_old_replicas_until_it_is_given_up(plant: Any) -> None:
    first(plant)
    place = {"workspace": "default", "deployment": "churn"}
    second_gateway(plant, ago=42, version=3)
    assert lowest_observed(plant.store, loop.now(), **place) == 3
    assert [view.name for view in known_gateways(plant.store, loop.now(), **place)] == ["gw", "gw-2"]
    later = loop.now() + KNOWN_FOR - datetime.timedelta(seconds=30)
    plant.report()
    assert [view.name for view in known_gateways(plant.store, later, **place)] == ["gw"]
    assert (lowest_observed(plant.store, later, **place) or 0) > 3
