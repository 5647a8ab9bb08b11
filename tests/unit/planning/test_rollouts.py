"""What a rollout does next: what moves traffic, what holds it, what takes it back. Gateways, people and blue-green have
files of their own."""

from typing import Any

import pytest

from podium.planning.gateways import GatewayView
from podium.planning.judging import step_cap
from podium.planning.looks import replay
from podium.planning.rollouts import decide
from podium.resources.rollout import FINAL_PHASES
from podium.resources.strategies import CanaryStep
from tests.unit.planning.worlds import (
    BAD,
    BEFORE_LAST,
    BLUE_GREEN,
    CANARY,
    CANDIDATE,
    FEW,
    GOOD,
    LAST,
    LOADED_AT,
    NOW,
    RECREATE,
    STABLE,
    UNEVEN,
    UNPROVEN,
    at,
    committed,
    restarted,
    revision,
    rollout,
    traffic,
    world,
)


def canary(**analysis: Any) -> dict[str, Any]:
    return {**CANARY, "analysis": analysis}


# --- the way through -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "spec", "weight", "phase", "preview"),
    [
        (CANARY, {}, 10, "Progressing", False),
        (BLUE_GREEN, {}, 0, "Progressing", True),
        (RECREATE, {}, 100, "Promoting", False),
        (CANARY, {"stableRevision": None, "cause": "first"}, 100, "Promoting", False),
        (CANARY, {"cause": "rollback"}, 100, "Promoting", False),
    ],
    ids=["canary", "blueGreen", "recreate", "the first", "a rollback"],
)
def test_a_ready_candidate_starts_as_its_strategy_says(
    settings: dict[str, Any], spec: dict[str, Any], weight: int, phase: str, preview: bool
) -> None:
    status = decide(rollout("Pending", settings, spec=spec), world()).status
    assert (status.weight, status.phase, status.preview, status.loaded) == (weight, phase, preview, False)


def test_a_good_candidate_passes_every_step_in_order_and_each_is_loaded_first() -> None:
    current, version, path = rollout("Pending"), LOADED_AT, []
    while current.status.phase not in FINAL_PHASES:
        assert len(path) < 20, path
        version += 1
        moment = at(100 * version)
        view = GatewayView("gw", moment, current.status.weight_version)
        seen = world(*GOOD, now=moment, gateways=(view,))
        outcome = decide(current, seen)
        if outcome.status.weight != current.status.weight:
            assert not outcome.status.loaded
        current = committed(current, outcome, version)
        path.append((current.status.phase, current.status.weight))
    kept = [item for n, item in enumerate(path) if n == 0 or item != path[n - 1]]
    assert kept == [("Progressing", 10), ("Progressing", 50), ("Promoting", 100), ("Promoted", 100)]
    acts = [item.decision for item in current.status.decisions if item.decision != "continue"]
    assert acts == ["start", "advance", "promote"]


@pytest.mark.parametrize("ready", [0, 1])
def test_a_candidate_with_too_few_ready_replicas_gets_nothing(ready: int) -> None:
    outcome = decide(rollout("Pending"), world(candidate=ready, replicas=2))
    assert (outcome.status.phase, outcome.status.weight) == ("Pending", 0)
    assert "waiting for churn-00002 to be ready" in outcome.status.message


def test_who_is_not_ready_in_time_is_taken_back() -> None:
    waiting = {**CANARY, "readyTimeout": "10s"}
    assert (
        decide(rollout("Pending", waiting, startedAt=at(-10)), world(candidate=0)).status.phase == "Pending"
    )
    late = decide(rollout("Pending", waiting, startedAt=at(-10.5)), world(candidate=0)).status
    assert late.phase == "RollingBack"
    assert "not ready within 10 s" in late.message


def test_the_time_without_replicas_is_no_time_of_the_candidates() -> None:
    outcome = decide(rollout("Pending", startedAt=at(-9999)), world(candidate=0, replicas=0))
    assert outcome.status.started_at == NOW
    assert "spec.replicas is 0" in outcome.status.message


@pytest.mark.parametrize("phase", ["CrashLoop", "Failed"])
def test_a_candidate_that_cannot_start_is_taken_back_at_once_with_its_own_words(phase: str) -> None:
    broken = revision(2, phase=phase, message="no module named nope")
    outcome = decide(rollout("Pending"), world(candidate=broken))
    assert outcome.status.phase == "RollingBack"
    assert "no module named nope" in outcome.status.message


@pytest.mark.parametrize(
    ("step", "seconds"),
    [
        ({"duration": "1s"}, 60),
        ({"duration": "10m"}, 6000),
        ({"requests": 10}, 3600),
        ({"duration": "10m", "maxDuration": "15m"}, 900),
        ({"duration": "10m", "maxDuration": "5m"}, 600),
        ({"requests": 10, "maxDuration": "5m"}, 300),
    ],
)
def test_a_steps_cap_is_ten_times_its_duration_at_least_a_minute_or_what_the_spec_says(
    step: dict[str, Any], seconds: float
) -> None:
    assert step_cap(CanaryStep.model_validate({"weight": 10, **step})) == seconds


# --- verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["Progressing", "Paused", "Held"])
@pytest.mark.parametrize("paused", [False, True])
def test_evidence_against_the_candidate_takes_it_back_paused_or_not(phase: str, paused: bool) -> None:
    status = decide(rollout(phase, **LAST, spec={"paused": paused}), world(BAD)).status
    assert (status.phase, status.weight, status.verdict_at) == ("RollingBack", 0, NOW)
    verdict = status.decisions[-1]
    again = replay(verdict.evidence or {})
    assert (again.decision, again.reason) == ("rollback", verdict.reason)


def test_a_bad_candidate_keeps_its_traffic_while_the_stable_revision_cannot_take_it() -> None:
    status = decide(rollout(**LAST), world(BAD, stable=0)).status
    assert (status.phase, status.weight) == ("Progressing", 50)
    assert "waiting for churn-00001 to answer again; then rollback: " in status.message
    assert decide(rollout(**LAST), world(BAD, stable=0, candidate=0)).status.weight == 0, (
        "it serves nobody either"
    )


@pytest.mark.parametrize(
    ("status", "windows", "weight"),
    [
        (BEFORE_LAST | {"stepStartedAt": at(-59)}, [traffic(10, (150, 0))], 10),
        (BEFORE_LAST | {"stepStartedAt": at(-60)}, [traffic(10, (99, 0))], 10),
        (BEFORE_LAST | {"stepStartedAt": at(-60)}, [traffic(10, (150, 0))], 50),
        (LAST, [traffic(50, (999, 0))], 50),
        (LAST, [traffic(50, (1000, 100), (1000, 100))], 50),
        (LAST, [traffic(50, (8000, 8), (8000, 8))], 100),
    ],
    ids=["too early", "too few", "passed", "last: too early", "last: not proven", "last: proven"],
)
def test_a_step_is_passed_when_it_is_over_and_only_the_last_asks_for_proof(
    status: dict[str, Any], windows: list[Any], weight: int
) -> None:
    assert decide(rollout(**status), world(*windows)).status.weight == weight


CAPPED = {"stepStartedAt": at(-3600)}


@pytest.mark.parametrize(
    ("wish", "status", "window", "phase", "weight"),
    [
        ("hold", LAST, UNPROVEN, "Held", 50),
        ("rollback", LAST, UNPROVEN, "RollingBack", 0),
        ("promote", LAST, UNPROVEN, "Promoting", 100),
        ("hold", BEFORE_LAST, FEW, "Held", 10),
        ("promote", BEFORE_LAST, FEW, "Progressing", 50),
        ("rollback", BEFORE_LAST, FEW, "RollingBack", 0),
        ("promote", LAST, UNEVEN, "Held", 50),
        ("promote", LAST, None, "Held", 50),
        ("rollback", LAST, None, "RollingBack", 0),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_an_inconclusive_step_leads_to_is_the_specs_choice(
    wish: str, status: dict[str, Any], window: Any, phase: str, weight: int
) -> None:
    """`promote` passes the one step, never without a request, and never a traffic split that is not as it should be."""
    before = rollout(settings=canary(onInconclusive=wish), **status, **CAPPED)
    after = decide(before, world(*[window] if window else [])).status
    assert (after.phase, after.weight) == (phase, weight), after.message


def test_no_setting_ends_a_pause_but_evidence_against_the_candidate_does() -> None:
    for wish in ("hold", "promote", "rollback"):
        settings = canary(onInconclusive=wish)
        before = rollout("Paused", settings, spec={"paused": True}, **LAST, **CAPPED)
        assert decide(before, world(UNPROVEN)).status.phase == "Paused"
        assert decide(before, world(BAD)).status.phase == "RollingBack"


def test_nothing_is_ever_passed_without_traffic() -> None:
    for status in (BEFORE_LAST, LAST):
        for since in (0, 61, 7200):
            before = rollout(**status, stepStartedAt=at(-since))
            assert decide(before, world()).status.weight == status["weight"]


def test_a_hold_ends_when_the_evidence_comes() -> None:
    held = rollout("Held", **LAST, **CAPPED)
    assert decide(held, world(*GOOD)).status.phase == "Promoting"


def test_looks_that_say_the_same_are_one_entry_that_counts_them() -> None:
    current = rollout(**LAST)
    for _ in range(5):
        current = committed(current, decide(current, world(traffic(50, (200, 0)))))
    (entry,) = current.status.decisions
    assert (entry.decision, entry.repeated) == ("continue", 5)
    assert (current.status.candidate_requests, current.status.stable_requests) == (200, 200)


def test_the_history_of_decisions_is_bounded_and_keeps_the_newest() -> None:
    old = [{"at": NOW, "step": 0, "weight": 10, "decision": "advance", "reason": str(n)} for n in range(200)]
    kept = decide(rollout(**LAST, decisions=old), world(BAD)).status.decisions
    assert len(kept) == 200
    assert (kept[0].reason, kept[-1].decision) == ("1", "rollback")


# --- liveness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "stable", "phase"),
    [
        (0, 1, "RollingBack"),
        (None, 1, "RollingBack"),
        (1, 0, "Progressing"),
        (0, 0, "Progressing"),
        (0, restarted(1, 1, 5.0), "Progressing"),
        (0, restarted(1, 1, 500.0), "RollingBack"),
        (0, restarted(1, 2, 5.0, 9.0), "Progressing"),
        (0, restarted(1, 2, 5.0, 500.0), "RollingBack"),
        (revision(2, phase="CrashLoop"), restarted(1, 1, 5.0), "RollingBack"),
    ],
    ids=[
        "dead", "gone", "the other one dead", "both dead", "back after a reboot", "back long ago", "two replicas back",
        "only one of two was started again", "crash loop after a reboot",
    ],
)  # fmt: skip
def test_a_dead_candidate_is_taken_back_at_once_unless_the_whole_machine_was_down(
    candidate: Any, stable: Any, phase: str
) -> None:
    status = decide(rollout(**LAST), world(candidate=candidate, stable=stable)).status
    assert status.phase == phase
    if phase == "RollingBack":
        assert status.message.startswith("liveness:")
        assert (status.decisions[-1].evidence or {})["liveness"] == status.message


@pytest.mark.parametrize("wish", [None, "promote"])
@pytest.mark.parametrize("strategy", [CANARY, BLUE_GREEN])
def test_who_cannot_answer_is_neither_advanced_nor_promoted(
    strategy: dict[str, Any], wish: str | None
) -> None:
    blue = strategy is BLUE_GREEN
    place: dict[str, Any] = {"step": 0, "weight": 0, "preview": True} if blue else LAST
    before = rollout(settings=strategy, spec={"requested": wish}, **place, **CAPPED)
    after = decide(before, world(*GOOD, candidate=0, stable=restarted(1, 1, 5.0))).status
    assert after.weight == before.status.weight
    assert "waiting for churn-00002 to answer again" in after.message
    assert decide(before, world(*GOOD)).status.weight == 100, "alive, it would have been"


def test_a_promotion_ends_only_when_the_candidate_answers() -> None:
    before = rollout("Promoting", weight=100, step=1)
    assert decide(before, world(candidate=0, stable=0)).status.phase == "Promoting"
    assert decide(before, world(candidate=0)).status.phase == "RollingBack"
    assert decide(before, world()).ended == "promoted"


# --- the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", sorted(FINAL_PHASES))
def test_what_has_ended_stays_as_it_is(phase: str) -> None:
    ended = rollout(phase, spec={"requested": "promote"}, **LAST)
    outcome = decide(ended, world(BAD, candidate=0))
    assert outcome.status == ended.status
    assert (outcome.events, outcome.ended, outcome.next_at) == ((), None, None)


def test_the_words_of_a_decision_name_the_revision_that_gets_the_traffic() -> None:
    (event,) = decide(rollout("Pending"), world()).events
    assert event == ("Normal", "WeightChanged", f"10 % to {CANDIDATE}: {CANDIDATE} is ready")
    first = decide(rollout("Pending", spec={"stableRevision": None}), world(stable=None))
    assert first.events[0][1] == "Promoting"
    assert STABLE not in first.events[0][2]
