"""What people ask of a rollout: abort, promote, pause."""

import pytest

from podium.planning.rollouts import decide
from tests.unit.planning.worlds import (
    BAD,
    BEFORE_LAST,
    BLUE_GREEN,
    CANARY,
    GOOD,
    LAST,
    NOW,
    at,
    rollout,
    world,
)

UNFINISHED = ("Pending", "Progressing", "Paused", "Held", "Promoting", "Observing")


@pytest.mark.parametrize("phase", UNFINISHED)
@pytest.mark.parametrize("paused", [False, True])
def test_an_abort_beats_everything(phase: str, paused: bool) -> None:
    place = {"step": 0, "weight": 100 if phase in ("Promoting", "Observing") else 10}
    settings = BLUE_GREEN if phase == "Observing" else CANARY
    before = rollout(
        phase, settings, spec={"requested": "abort", "requestedBy": "ann", "paused": paused}, **place
    )
    for seen in (
        world(*GOOD),
        world(gateways=()),
        world(replicas=0),
        world(stable=0),
        world(newer_wish=True),
    ):
        outcome = decide(before, seen)
        assert (outcome.status.phase, outcome.status.weight) == ("RollingBack", 0)
        assert outcome.status.message == "aborted by ann"


def test_a_person_may_promote_without_evidence_but_not_what_is_not_ready() -> None:
    wish = {"requested": "promote", "requestedBy": "ann", "paused": True}
    assert decide(rollout("Pending", spec=wish), world(candidate=0)).status.phase == "Pending"
    assert decide(rollout("Pending", spec=wish), world()).status.weight == 10
    now = decide(rollout("Held", spec=wish, **BEFORE_LAST), world()).status
    assert (now.phase, now.weight) == ("Promoting", 100)
    assert "promoted by ann" in now.message


def test_a_pause_holds_and_is_no_time_of_the_steps() -> None:
    over = {**BEFORE_LAST, "stepStartedAt": at(-600)}
    paused = decide(rollout(spec={"paused": True}, **over), world(*GOOD)).status
    assert (paused.phase, paused.weight, paused.message) == ("Paused", 10, "paused at 10 %")
    resumed = decide(rollout("Paused", **over), world(*GOOD)).status
    assert (resumed.phase, resumed.weight, resumed.step_started_at) == ("Progressing", 10, NOW)
    ready = decide(rollout("Pending", spec={"paused": True}), world()).status
    assert (ready.phase, ready.weight) == ("Pending", 0)


def test_without_replicas_nothing_moves_and_nothing_is_judged() -> None:
    for status in (BEFORE_LAST, LAST):
        after = decide(rollout(**status), world(BAD, candidate=0, replicas=0)).status
        assert (after.phase, after.weight, after.decisions) == ("Progressing", status["weight"], [])
