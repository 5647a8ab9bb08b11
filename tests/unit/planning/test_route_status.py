"""What a Route's status says: whom it waits for, who refuses it, who is missing."""

import datetime
from typing import Any

from podium.planning.route_status import GatewayWord, decide
from podium.resources.kinds import KINDS, Route

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def route(**status: Any) -> Route:
    document = {
        "kind": "Route",
        "metadata": {"name": "front", "uid": "u", "generation": 2, "updatedAt": NOW.isoformat()},
        "spec": {"rules": [{"to": "a", "fallback": {"deployments": ["b"]}}]},
        "status": {"observedGeneration": 2, "version": 10, "phase": "Pending", **status},
    }
    return KINDS["Route"].parse(document)


def deployment(phase: str) -> Any:
    document = {
        "metadata": {"name": "a", "uid": "u"},
        "spec": {"model": {"name": "m", "version": "1"}},
        "status": {"phase": phase},
    }
    return KINDS["Deployment"].parse(document)


BOTH = {"a": deployment("Ready"), "b": deployment("Degraded")}


def test_it_is_ready_when_every_gateway_has_it() -> None:
    outcome = decide(route(), BOTH, [GatewayWord("g1", 10, ""), GatewayWord("g2", 11, "")], now=NOW)
    assert (outcome.status.phase, outcome.status.loaded, outcome.new_wish) == ("Ready", True, False)
    assert outcome.events == (("Normal", "Ready", "every gateway has it loaded"),)
    again = decide(route(phase="Ready", loaded=True), BOTH, [GatewayWord("g1", 12, "")], now=NOW)
    assert again.events == ()


def test_it_waits_for_the_gateways_that_are_behind_and_says_for_which() -> None:
    behind = [GatewayWord("g2", 9, ""), GatewayWord("g1", 9, ""), GatewayWord("g3", 10, "")]
    outcome = decide(route(), BOTH, behind, now=NOW)
    assert (outcome.status.phase, outcome.status.message) == (
        "Pending",
        "waits for gateway g1, g2 to load it",
    )
    nobody = decide(route(), BOTH, [], now=NOW)
    assert (nobody.status.loaded, nobody.status.message) == (False, "waits for a gateway to load it")


def test_a_new_generation_is_not_loaded_by_what_was() -> None:
    outcome = decide(route(observedGeneration=1, loaded=True), BOTH, [GatewayWord("g1", 99, "")], now=NOW)
    assert (outcome.new_wish, outcome.status.loaded, outcome.status.observed_generation) == (True, False, 2)


def test_a_refusal_is_in_envoys_words() -> None:
    outcome = decide(route(), BOTH, [GatewayWord("g1", 10, "no such thing")], now=NOW)
    assert outcome.status.phase == "Rejected"
    assert "gateway g1 refuses it" in outcome.status.message
    assert "no such thing" in outcome.status.message


def test_who_is_missing_is_named() -> None:
    named = {"a": deployment("Pending"), "b": None}
    outcome = decide(route(), named, [GatewayWord("g1", 10, "")], now=NOW)
    assert (outcome.status.phase, outcome.status.loaded) == ("Degraded", True)
    assert outcome.status.message == "a is Pending; b does not exist"


def test_it_looks_often_only_while_a_change_is_young() -> None:
    late = NOW + datetime.timedelta(minutes=5)
    soon, slow = (decide(route(), BOTH, [], now=now).next_at - now for now in (NOW, late))
    assert soon < datetime.timedelta(seconds=1) < slow
    ready = decide(route(), BOTH, [GatewayWord("g1", 10, "")], now=NOW)
    assert ready.next_at - NOW > datetime.timedelta(minutes=1)


def test_limits_that_several_gateways_count_are_said_to_be_so() -> None:
    limited = KINDS["Route"].parse(
        {**route().document(), "spec": {"rules": [{"to": "a"}], "limits": {"perCaller": {"requests": 5}}}}
    )
    words = [GatewayWord(f"g{number}", 10, "") for number in range(3)]
    alone, three = (decide(limited, BOTH, words[:count], now=NOW).status for count in (1, 3))
    assert (alone.phase, alone.message) == ("Ready", "")
    assert three.phase == "Ready"
    assert three.message == "limits count per gateway: 3 gateways let 3 times as much through"
    assert decide(route(), BOTH, words, now=NOW).status.message == ""
