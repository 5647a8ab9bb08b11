"""Whatever the world and the rollout look like: what no decision ever does, and that every one comes to rest."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.planning.moves import RolloutWorld
from podium.planning.rollouts import decide
from podium.resources.kinds import Rollout
from podium.resources.rollout import FINAL_PHASES
from tests.unit.planning.worlds import (
    AB_TEST,
    BAD,
    BEFORE_LAST,
    BLUE_GREEN,
    CANARY,
    COPYING,
    FEW,
    GOOD,
    LAST,
    LOADED_AT,
    NOW,
    RECREATE,
    SHADOW,
    UNEVEN,
    UNPROVEN,
    at,
    committed,
    gateway,
    restarted,
    rollout,
    world,
)  # fmt: skip

WINDOWS = [[], [FEW], [BAD], [UNPROVEN], [UNEVEN], list(GOOD)]
AB_TEST_PROMOTES = {"strategy": {**AB_TEST["strategy"], "onEnd": "promote"}}
ready = st.sampled_from([None, 0, 1, 2])


@st.composite
def under_way(draw: st.DrawFn) -> Rollout:
    strategy = draw(st.sampled_from([CANARY, BLUE_GREEN, RECREATE, SHADOW, AB_TEST, AB_TEST_PROMOTES]))
    phases = ["Pending", "Promoting", "RollingBack"]
    phases += [] if strategy is RECREATE else ["Progressing", "Paused", "Held"]
    phases += ["Observing"] if strategy is BLUE_GREEN else []
    phase = draw(st.sampled_from(phases))
    places = {
        "canary": [BEFORE_LAST, LAST],
        "shadow": [COPYING, BEFORE_LAST, LAST],
        "abTest": [{"step": 0, "weight": 50}],
    }
    place = draw(st.sampled_from(places.get(strategy["strategy"]["type"], [{"step": 0, "weight": 0}])))
    weight = {"Promoting": 100, "Observing": 100, "RollingBack": 0}.get(phase, place["weight"])
    wish = {
        "paused": draw(st.booleans()),
        "requested": draw(st.sampled_from([None, None, "promote", "abort"])),
        "cause": draw(st.sampled_from(["apply", "rollback"])),
    }
    analysis = {"onInconclusive": draw(st.sampled_from(["hold", "promote", "rollback"]))}
    if phase == "Pending":
        return rollout(phase, {**strategy, "analysis": analysis}, spec=wish)
    return rollout(
        phase,
        {**strategy, "analysis": analysis},
        spec=wish,
        step=place["step"],
        weight=weight,
        preview=strategy is BLUE_GREEN,
        shadow=place.get("shadow", False) and phase in ("Progressing", "Paused", "Held"),
        loaded=phase == "Observing" or draw(st.booleans()),
        stepStartedAt=draw(st.sampled_from([NOW, at(-61), at(-7200)])),
    )


@st.composite
def worlds(draw: st.DrawFn) -> RolloutWorld:
    views = st.builds(
        gateway,
        st.integers(LOADED_AT - 1, LOADED_AT),
        silent=st.sampled_from([0.0, 6.0]),
        error=st.sampled_from(["", "", "", "refused"]),
        error_version=st.just(LOADED_AT),
    )
    stable = draw(st.one_of(ready, st.just(restarted(1, 1, 5.0))))
    return world(
        *draw(st.sampled_from(WINDOWS)),
        candidate=draw(ready),
        stable=stable,
        replicas=draw(st.sampled_from([0, 1, 1, 1])),
        gateways=tuple(draw(st.lists(views, max_size=2))),
        newer_wish=draw(st.booleans()),
        copies=tuple(draw(st.sampled_from(WINDOWS))),
    )


def alive(found: Any) -> bool:
    return found is not None and found.status.ready_replicas > 0


@given(under_way(), worlds())
@settings(max_examples=150)
def test_no_decision_moves_traffic_to_a_revision_that_is_not_ready(
    before: Rollout, seen: RolloutWorld
) -> None:
    outcome = decide(before, seen)
    if outcome.status.weight > before.status.weight:
        assert alive(seen.candidate)
    by_force = before.spec.requested == "abort" or any(view.error for view in seen.gateways)
    if outcome.status.weight < before.status.weight and not by_force:
        assert alive(seen.stable) or not alive(seen.candidate)


@given(under_way(), worlds())
@settings(max_examples=150)
def test_one_world_moves_the_weight_at_most_once_and_then_the_rollout_rests(
    before: Rollout, seen: RolloutWorld
) -> None:
    """A decision on its own outcome changes nothing before the gateways have loaded it."""
    current, weights = before, [before.status.weight]
    for turn in range(5):
        outcome = decide(current, seen)
        after = committed(current, outcome)
        weights += [after.status.weight] if after.status.weight != weights[-1] else []
        moved = (after.status.phase, after.status.step, after.status.loaded) != (
            current.status.phase,
            current.status.step,
            current.status.loaded,
        )
        current = after
        if turn and not moved and not outcome.events:
            break
    else:
        pytest.fail(f"no rest: {weights}, {current.status.phase}")
    # What a user promotes by hand before it has begun takes its first step on the way.
    by_hand = before.status.phase == "Pending" and before.spec.requested == "promote"
    assert len(weights) <= 2 + by_hand, weights


@given(under_way(), worlds())
@settings(max_examples=150)
def test_a_pause_lets_traffic_go_back_only(before: Rollout, seen: RolloutWorld) -> None:
    spec = before.spec.model_copy(update={"paused": True, "requested": None})
    outcome = decide(before.model_copy(update={"spec": spec}), seen)
    if before.status.phase in ("Pending", "Progressing", "Paused", "Held"):
        assert outcome.status.weight <= before.status.weight
        assert outcome.ended is None


@given(under_way(), worlds())
@settings(max_examples=150)
def test_what_is_on_its_way_back_never_turns_around(before: Rollout, seen: RolloutWorld) -> None:
    outcome = decide(before, seen)
    if before.status.phase == "RollingBack":
        assert outcome.status.phase in ("RollingBack", "RolledBack")
        assert outcome.status.weight == 0
    elif before.spec.requested == "abort":
        assert (outcome.status.phase, outcome.status.weight) == ("RollingBack", 0)


@given(under_way(), worlds())
def test_who_waits_has_a_timer_unless_a_change_of_the_spec_is_what_it_waits_for(
    before: Rollout, seen: RolloutWorld
) -> None:
    outcome = decide(before, seen)
    if outcome.status.phase not in FINAL_PHASES and seen.replicas:
        assert outcome.next_at is not None
        assert outcome.next_at > seen.now


@given(under_way(), worlds())
@settings(max_examples=150)
def test_copies_are_made_only_before_any_traffic_and_end_with_the_first_move(
    before: Rollout, seen: RolloutWorld
) -> None:
    after = decide(before, seen).status
    if after.shadow:
        assert (after.weight, after.step) == (0, -1)
        assert after.phase in ("Progressing", "Paused", "Held")
    moved = (after.weight, after.phase in ("Promoting", "RollingBack")) != (0, False)
    assert not (moved and after.shadow)


@given(under_way(), worlds())
@settings(max_examples=150)
def test_a_test_keeps_its_split_until_it_is_all_or_nothing(before: Rollout, seen: RolloutWorld) -> None:
    if before.spec.settings.strategy.type == "abTest" and before.status.phase != "Pending":
        assert decide(before, seen).status.weight in (before.status.weight, 0, 100)
