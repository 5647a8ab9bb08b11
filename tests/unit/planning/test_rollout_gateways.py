"""What a rollout waits for at the gateways, and what it does when Envoy refuses."""

from typing import Any

import pytest

from podium.planning.rollouts import decide
from tests.unit.planning.worlds import (
    BAD,
    BEFORE_LAST,
    BLUE_GREEN,
    GOOD,
    LAST,
    LOADED_AT,
    NOW,
    committed,
    gateway,
    rollout,
    world,
)

# --- loaded weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ((), "no gateway reports"),
        ((gateway(LOADED_AT - 1),), "waiting for gateway gw to load"),
        ((gateway(), gateway(LOADED_AT - 1, name="two")), "waiting for gateway two to load"),
        (
            (gateway(), gateway(LOADED_AT - 1, silent=6, name="two")),
            "waits for gateway two (silent since 11:59:54 UTC, given up at 12:09:54); to give it up now: "
            "podium gateway forget two",
        ),
        (
            (gateway(silent=6),),
            "no gateway reports; is `podium gateway` running? Last heard of: gw at 11:59:54 UTC.",
        ),
        (
            (gateway(), gateway(silent=9, name="two"), gateway(LOADED_AT - 1, silent=6, name="three")),
            "waits for gateway three (silent since 11:59:54 UTC",
        ),
    ],
    ids=[
        "none",
        "behind",
        "one behind",
        "a silent one behind",
        "only silent ones",
        "the silent one that is behind",
    ],
)
@pytest.mark.parametrize("phase", ["Progressing", "Promoting"])
def test_a_step_waits_for_every_gateway_and_names_the_one_that_is_behind(
    phase: str, views: tuple[Any, ...], words: str
) -> None:
    before = rollout(phase, **BEFORE_LAST, loaded=False)
    outcome = decide(before, world(*GOOD, gateways=views))
    assert (outcome.status.phase, outcome.status.weight) == (phase, 10)
    assert not outcome.status.loaded
    assert words in outcome.status.message


def test_the_silent_gateways_that_are_waited_for_stand_in_the_status_and_an_event_says_so_once() -> None:
    views = (gateway(), gateway(LOADED_AT - 1, silent=6, name="two"), gateway(silent=9, name="three"))
    first = decide(rollout(**BEFORE_LAST, loaded=False), world(gateways=views))
    assert first.status.silent_gateways == ["two"]
    assert [(kind, name) for kind, name, _ in first.events] == [("Warning", "GatewaySilent")]
    again = decide(rollout(**BEFORE_LAST, loaded=False, silentGateways=["two"]), world(gateways=views))
    assert (again.status.silent_gateways, again.events) == (["two"], ())
    back = decide(rollout(**BEFORE_LAST, loaded=False, silentGateways=["two"]), world(gateways=(gateway(),)))
    assert (back.status.loaded, back.status.silent_gateways) == (True, [])
    taken = decide(rollout("RollingBack", message="errors"), world(gateways=views))
    assert taken.status.silent_gateways == []


def test_a_silent_gateway_that_has_the_weight_is_not_waited_for() -> None:
    views = (gateway(), gateway(silent=60, name="two"))
    before = rollout(**BEFORE_LAST, loaded=False, stepStartedAt=None)
    outcome = decide(before, world(gateways=views))
    assert outcome.status.loaded
    assert outcome.status.step_started_at == NOW, "the step's clock starts when its weight is in force"


def test_a_rollback_waits_for_live_gateways_but_never_for_silent_ones() -> None:
    taken = rollout("RollingBack", message="errors")
    behind = decide(taken, world(gateways=(gateway(LOADED_AT - 1),)))
    assert (behind.status.phase, behind.ended) == ("RollingBack", None)
    silent = decide(taken, world(gateways=(gateway(), gateway(LOADED_AT - 1, silent=6, name="two"))))
    assert (silent.status.phase, silent.ended) == ("RolledBack", "rolledBack")
    assert "gateway two is silent and may still send it traffic" in silent.reason
    assert not silent.status.loaded
    done = decide(taken, world())
    assert (done.status.phase, done.status.loaded, done.reason) == ("RolledBack", True, "errors")
    assert decide(taken, world(gateways=())).status.phase == "RolledBack"


def test_a_rolled_back_rollout_says_why_and_not_what_it_waited_for() -> None:
    taken = committed(rollout(**LAST), decide(rollout(**LAST), world(BAD)))
    waiting = committed(taken, decide(taken, world(BAD)))
    assert "waiting for gateway" in waiting.status.message
    ended = decide(waiting, world(BAD, gateways=(gateway(LOADED_AT + 1),)))
    assert ended.reason == ended.status.message == taken.status.decisions[-1].reason
    assert "error rate" in ended.reason


# --- what Envoy refuses --------------------------------------------------------------------------------------------


def test_a_refused_configuration_takes_the_candidate_back_in_envoys_words() -> None:
    refused = gateway(LOADED_AT - 1, error="bad cluster", error_version=LOADED_AT)
    for phase in ("Progressing", "Promoting", "Observing"):
        status = decide(rollout(phase, BLUE_GREEN, step=0, weight=100), world(gateways=(refused,))).status
        assert (status.phase, status.message) == (
            "RollingBack",
            "gateway gw refused the configuration: bad cluster",
        )


def test_a_refusal_from_before_this_weight_says_nothing_about_it() -> None:
    old = gateway(error="bad cluster", error_version=LOADED_AT - 1)
    assert decide(rollout(**LAST), world(gateways=(old,))).status.phase == "Progressing"
