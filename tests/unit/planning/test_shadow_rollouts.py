"""Strategy `shadow`: what copies must show before any traffic moves, and what takes the candidate back."""

from typing import Any

import pytest

from podium.planning.looks import replay
from podium.planning.rollouts import decide
from podium.planning.routing import WHOLE, compared_share, plan_route
from podium.resources.comparison import Comparison, OutputComparison
from podium.resources.kinds import Rollout
from tests.unit.planning.worlds import (
    CANDIDATE,
    COPYING,
    NOW,
    SHADOW,
    STABLE,
    at,
    committed,
    deployment,
    revision,
    rollout,
    traffic,
    world,
)

ALL_COPIED = traffic(50, (600, 0))
"""With 100 %, half of requests and copies together are copies."""
BROKEN = traffic(50, (400, 80))
LONG_AGO = at(-601)


def copying(
    settings: dict[str, Any] = SHADOW, *, spec: dict[str, Any] | None = None, **status: Any
) -> Rollout:
    return rollout(status.pop("phase", "Progressing"), settings, spec=spec, **{**COPYING, **status})


def shadow(analysis: dict[str, Any] | None = None, **strategy: Any) -> dict[str, Any]:
    return {"strategy": {**SHADOW["strategy"], **strategy}, "analysis": analysis or {}}


def compared(agreeing: int, pairs: int) -> Comparison:
    share = agreeing / pairs
    span = (share - 0.02, min(1.0, share + 0.02))
    output = OutputComparison(
        name="label", kind="class", pairs=pairs, agreement=share, interval=span, alpha=0.05
    )
    return Comparison(
        workspace="default", champion=STABLE, shadow=CANDIDATE, pairs=pairs, per_output=[output]
    )


def test_it_begins_with_copies_and_no_traffic() -> None:
    status = decide(rollout("Pending", SHADOW), world()).status
    assert (status.shadow, status.weight, status.step, status.phase) == (True, 0, -1, "Progressing")
    assert "copies of 100 %" in status.message


def test_enough_copies_without_anything_against_it_lead_to_the_first_step() -> None:
    before = copying()
    few = decide(before, world(copies=(traffic(50, (499, 0)),)))
    assert (few.status.shadow, few.status.weight, few.status.phase) == (True, 0, "Progressing")
    outcome = decide(before, world(copies=(ALL_COPIED,)))
    assert (outcome.status.shadow, outcome.status.weight, outcome.status.step) == (False, 10, 0)
    assert (outcome.status.copies, outcome.status.copies_bad) == (600, 0)
    assert "600 copies and nothing against the candidate" in outcome.status.message
    evidence = outcome.status.decisions[-1].evidence
    assert evidence is not None
    assert (replay(evidence).decision, replay(evidence).reason) == ("advance", outcome.status.message)
    # From here on it is a canary, judged by its own traffic.
    after = committed(before, outcome)
    assert decide(after, world(copies=(ALL_COPIED,))).status.step == 0


@pytest.mark.parametrize("requests", [0, 1000])
def test_requests_of_live_traffic_are_no_copies(requests: int) -> None:
    live = (traffic(10, (requests, requests // 2)),) if requests else ()
    assert decide(copying(), world(*live)).status.phase == "Progressing"


def test_a_candidate_that_fails_on_its_copies_is_taken_back() -> None:
    outcome = decide(copying(), world(copies=(BROKEN,)))
    assert (outcome.status.phase, outcome.status.shadow) == ("RollingBack", False)
    assert "error rate" in outcome.status.message
    assert replay(outcome.status.decisions[-1].evidence or {}).decision == "rollback"


def test_what_fails_on_both_sides_alike_takes_nobody_back() -> None:
    both = traffic(50, (600, 120), (600, 120))
    assert decide(copying(), world(copies=(both,))).status.step == 0


def test_fewer_copies_than_planned_are_no_mismatch() -> None:
    """Where requests reach the Deployment on ways that copy none."""
    assert decide(copying(), world(copies=(traffic(50, (600, 0), (9000, 0)),))).status.step == 0


@pytest.mark.parametrize(
    ("wish", "phase", "weight"),
    [("hold", "Held", 0), ("promote", "Progressing", 10), ("rollback", "RollingBack", 0)],
)
def test_at_its_cap_too_few_copies_are_inconclusive(wish: str, phase: str, weight: int) -> None:
    before = copying(shadow({"onInconclusive": wish}), stepStartedAt=LONG_AGO)
    status = decide(before, world(copies=(traffic(50, (40, 0)),))).status
    assert (status.phase, status.weight) == (phase, weight)


def test_no_copy_at_all_is_never_passed() -> None:
    before = copying(shadow({"onInconclusive": "promote"}), stepStartedAt=LONG_AGO)
    assert decide(before, world()).status.phase == "Held"


def test_then_hold_waits_for_a_person() -> None:
    before = copying(shadow(then="hold"))
    outcome = decide(before, world(copies=(ALL_COPIED,)))
    assert (outcome.status.phase, outcome.status.weight, outcome.status.shadow) == ("Held", 0, True)
    assert "podium rollout promote" in outcome.status.message
    wanted = copying(shadow(then="hold"), spec={"requested": "promote"}, phase="Held")
    promoted = decide(wanted, world(copies=(ALL_COPIED,))).status
    assert (promoted.phase, promoted.weight, promoted.shadow) == ("Promoting", 100, False)


def test_a_pause_keeps_the_copies_and_moves_nothing() -> None:
    status = decide(copying(spec={"paused": True}), world(copies=(ALL_COPIED,))).status
    assert (status.phase, status.shadow, status.weight) == ("Paused", True, 0)


def test_abort_and_a_dead_candidate_end_it() -> None:
    assert decide(copying(spec={"requested": "abort"}), world()).status.phase == "RollingBack"
    assert decide(copying(), world(candidate=0)).status.phase == "RollingBack"


# --- its answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "phase", "step", "words"),
    [
        (compared(2000, 2000), "Progressing", 0, "agreement 1.0000"),
        (compared(700, 1000), "RollingBack", -1, "its answers differ"),
        (compared(96, 100), "Progressing", -1, "not proven yet"),
        (compared(10, 10), "Progressing", -1, "100 are needed"),
        (None, "Progressing", -1, "no answers were compared yet"),
    ],
    ids=["agree", "differ", "open", "too few", "none"],
)
def test_what_is_asked_of_its_answers_has_to_be_proven(
    found: Comparison | None, phase: str, step: int, words: str
) -> None:
    before = copying(shadow(compare={"agreement": 0.95}))
    outcome = decide(before, world(copies=(ALL_COPIED,), comparison=found))
    assert (outcome.status.phase, outcome.status.step) == (phase, step)
    assert words in outcome.status.message
    decisive = outcome.status.decisions[-1].evidence
    if decisive is not None:
        assert replay(decisive).reason == outcome.status.message


def test_answers_that_stay_open_are_inconclusive_at_the_cap() -> None:
    before = copying(shadow(compare={"agreement": 0.95}), stepStartedAt=LONG_AGO)
    seen = world(copies=(ALL_COPIED,), comparison=compared(96, 100))
    status = decide(before, seen).status
    assert (status.phase, status.shadow) == ("Held", True)
    wish = {"onInconclusive": "promote"}
    passed = copying(shadow(wish, compare={"agreement": 0.95}), stepStartedAt=LONG_AGO)
    assert decide(passed, seen).status.step == 0


# --- the route -----------------------------------------------------------------------------------------------------


def test_the_route_copies_while_the_rollout_says_so_and_all_answers_are_the_stable_ones() -> None:
    served = deployment(2, status={"stableRevision": STABLE, "rollout": "churn-2"})
    revisions = {STABLE: revision(1, ready=1), CANDIDATE: revision(2, ready=1)}
    entry = plan_route(served, revisions, copying(shadow(percent=12.5)))
    assert [(arm.revision, arm.weight) for arm in entry.live] == [(STABLE, WHOLE)]
    assert entry.shadow is not None
    arm, share = entry.shadow
    assert (arm.revision, arm.role, share) == (CANDIDATE, "shadow", 1250)
    assert arm in entry.arms
    # Nobody to copy to, nobody to copy from, and after the copies.
    assert plan_route(served, {**revisions, CANDIDATE: revision(2, ready=0)}, copying()).shadow is None
    assert plan_route(served, {**revisions, STABLE: revision(1, ready=0)}, copying()).shadow is None
    assert plan_route(served, revisions, copying(step=0, weight=10, shadow=False)).shadow is None


@pytest.mark.parametrize(("copied", "share"), [(10_000, 5000), (5000, 3333), (1000, 909), (100, 99)])
def test_the_share_of_copies_among_requests_and_copies(copied: int, share: int) -> None:
    assert compared_share(copied) == share


def test_the_clock_of_the_copies_begins_when_they_are_seen_loaded() -> None:
    outcome = decide(copying(loaded=False, stepStartedAt=None), world())
    assert (outcome.status.loaded, outcome.status.step_started_at) == (True, NOW)
