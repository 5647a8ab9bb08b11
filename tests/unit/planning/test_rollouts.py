"""What a rollout does next: what moves traffic, what holds it, what takes it back."""

from typing import Any

import pytest

from podium.planning.gateways import GatewayView
from podium.planning.judging import step_cap
from podium.planning.looks import replay
from podium.planning.rollouts import decide
from podium.resources.kinds import Rollout
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
    gateway,
    restarted,
    revision,
    rollout,
    traffic,
    world,
)

UNFINISHED = ("Pending", "Progressing", "Paused", "Held", "Promoting", "Observing")


def canary(**analysis: Any) -> dict[str, Any]:
    return {**CANARY, "analysis": analysis}


# --- the way through ----------------------------------------------------------------------------------------------


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


# --- loaded weights -----------------------------------------------------------------------------------------------


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


# --- verdicts -----------------------------------------------------------------------------------------------------


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


# --- liveness -----------------------------------------------------------------------------------------------------


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


# --- people -------------------------------------------------------------------------------------------------------


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


# --- what Envoy refuses -------------------------------------------------------------------------------------------


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


# --- blue-green ---------------------------------------------------------------------------------------------------


def preview(settings: dict[str, Any] = BLUE_GREEN, **more: Any) -> Rollout:
    return rollout(settings=settings, step=0, weight=0, preview=True, **more)


def test_a_preview_lasts_its_time_and_then_flips() -> None:
    early = decide(preview(stepStartedAt=at(-59)), world())
    assert (early.status.weight, early.next_at) == (0, at(1))
    assert decide(preview(stepStartedAt=at(-60)), world()).status.weight == 100


def test_without_automatic_promotion_a_preview_waits_for_a_person() -> None:
    manual = {"strategy": {**BLUE_GREEN["strategy"], "autoPromote": False}}
    waiting = decide(preview(manual, stepStartedAt=at(-9999)), world()).status
    assert (waiting.phase, waiting.weight) == ("Held", 0)
    paused = decide(preview(spec={"paused": True}, stepStartedAt=at(-9999)), world()).status
    assert (paused.phase, paused.weight) == ("Paused", 0)


OBSERVED = {"step": 0, "weight": 100}


def test_after_the_flip_a_blue_green_rollout_is_observed_before_it_is_promoted() -> None:
    flipped = decide(rollout("Promoting", BLUE_GREEN, **OBSERVED), world()).status
    assert (flipped.phase, flipped.step_started_at) == ("Observing", NOW)
    back = rollout("Promoting", BLUE_GREEN, spec={"cause": "rollback"}, **OBSERVED)
    assert decide(back, world()).ended == "promoted", "a rollback has been observed before"


@pytest.mark.parametrize(
    ("since", "wish", "newer", "ended"),
    [
        (29, None, False, None),
        (30, None, False, "promoted"),
        (1, "promote", False, "promoted"),
        (1, None, True, "promoted"),
    ],
    ids=["too early", "its time", "a person", "a new wish"],
)
def test_an_observation_ends_by_its_time_a_person_or_a_new_wish(
    since: int, wish: str | None, newer: bool, ended: str | None
) -> None:
    before = rollout("Observing", BLUE_GREEN, spec={"requested": wish}, **OBSERVED, stepStartedAt=at(-since))
    assert decide(before, world(newer_wish=newer)).ended == ended


def test_a_limit_that_is_broken_after_the_flip_takes_it_back_if_the_old_one_still_answers() -> None:
    limits = {**BLUE_GREEN, "analysis": {"thresholds": [{"metric": "errorRate", "max": 0.01}]}}
    before = rollout("Observing", limits, **OBSERVED)
    broken = traffic(100, (500, 50), (0, 0))
    assert decide(before, world(broken)).status.phase == "RollingBack"
    assert decide(before, world(broken, stable=0)).status.phase == "Observing"


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
