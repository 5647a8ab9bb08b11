"""A blue-green rollout: the preview, the flip, the time that it is observed."""

from typing import Any

import pytest

from podium.planning.rollouts import decide
from podium.resources.kinds import Rollout
from tests.unit.planning.worlds import (
    BLUE_GREEN,
    NOW,
    at,
    rollout,
    traffic,
    world,
)


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
