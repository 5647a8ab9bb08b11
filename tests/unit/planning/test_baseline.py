"""A canary beside a baseline: fresh replicas of the stable revision with a share of their own, and what is compared."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.gateway.fleet import Fleet
from podium.planning.looks import Trial
from podium.planning.revisions import RevisionOutcome, RevisionWorld, Seen
from podium.planning.revisions import decide as decide_revision
from podium.planning.rollouts import decide
from podium.planning.routes import plan_published
from podium.planning.routing import WHOLE, baseline_share, beside_baseline, plan_route
from podium.resources.kinds import Revision, Rollout
from podium.resources.route import RouteSpec, RouteStatus
from podium.resources.shape import Metadata, Resource
from tests.unit.planning.worlds import (
    CANARY,
    CANDIDATE,
    NOW,
    STABLE,
    at,
    deployment,
    revision,
    rollout,
    traffic,
    world,
)

BESIDE: dict[str, Any] = {"strategy": {**CANARY["strategy"], "baseline": True}}


def replica(number: int, group: str = "", phase: str = "Ready") -> dict[str, Any]:
    return {"name": f"{STABLE}-{number}", "phase": phase, "address": f"unix:/s{number}", "group": group}


def stable(*replicas: dict[str, Any], **status: Any) -> Revision:
    ordinary = [item for item in replicas if item["phase"] == "Ready" and not item["group"]]
    given = {"wantedReplicas": 1, "starts": len(replicas), "readyReplicas": len(ordinary)} | status
    return revision(1, replicas=list(replicas), **given)


def seen(number: int, phase: Any = "Ready") -> Seen:
    return Seen(f"{STABLE}-{number}", phase, f"unix:/s{number}", number, at(-60 / number), None, (), "full")


def step(before: Revision, *replicas: Seen) -> RevisionOutcome:
    return decide_revision(before, RevisionWorld(NOW, replicas, 100))


def groups(outcome: RevisionOutcome) -> dict[str, tuple[str, str]]:
    return {state.name[-1]: (state.group, state.phase) for state in outcome.status.replicas}


# --- replicas ------------------------------------------------------------------------------------------------------


def test_fresh_ones_are_started_for_it_and_stay_apart() -> None:
    before = stable(replica(1), baselineReplicas=1)
    first = step(before, seen(1))
    assert first.start == (f"{STABLE}-2",)
    assert groups(first) == {"1": ("", "Ready")}
    then = before.model_copy(update={"status": first.status})
    second = step(then, seen(1), seen(2, "Starting"))
    assert groups(second) == {"1": ("", "Ready"), "2": ("baseline", "Starting")}
    third = step(then.model_copy(update={"status": second.status}), seen(1), seen(2))
    assert groups(third) == {"1": ("", "Ready"), "2": ("baseline", "Ready")}
    assert (third.start, third.stop, third.status.ready_replicas) == ((), (), 1)


def test_a_replica_of_the_others_that_ended_is_replaced_before_the_baseline_gets_one() -> None:
    before = stable(baselineReplicas=1, starts=1)
    fresh = step(before, seen(2, "Starting"))
    assert groups(fresh) == {"2": ("", "Starting")}
    assert len(fresh.start) == 1
    assert groups(step(before, seen(2), seen(3)))["3"] == ("baseline", "Ready")


def test_after_the_rollout_the_fresh_ones_drain() -> None:
    before = stable(replica(1), replica(2, "baseline"))
    assert groups(step(before, seen(1), seen(2))) == {"1": ("", "Ready"), "2": ("", "Draining")}
    # Or stand in, if the other one has ended meanwhile.
    assert groups(step(before, seen(2))) == {"2": ("", "Ready")}


GROUPS, PHASES = st.sampled_from(["", "baseline", "unknown"]), st.sampled_from(["Starting", "Ready"])


@given(st.lists(st.tuples(GROUPS, PHASES), max_size=7), st.integers(0, 3), st.integers(0, 3))
def test_there_are_never_more_than_wanted_and_the_second_look_changes_nothing(
    found: list[tuple[str, Any]], wanted: int, baseline: int
) -> None:
    known = [replica(n, group, phase) for n, (group, phase) in enumerate(found, 1) if group != "unknown"]
    before = stable(*known, wantedReplicas=wanted, baselineReplicas=baseline, starts=len(found))
    replicas = [seen(number, phase) for number, (_, phase) in enumerate(found, 1)]
    outcome = step(before, *replicas)
    kept = [state for state in outcome.status.replicas if state.phase != "Draining"]
    apart = [state for state in kept if state.group == "baseline"]
    assert len(kept) + len(outcome.start) == (wanted + baseline if wanted else 0)
    assert len(apart) <= baseline
    assert len(kept) - len(apart) <= wanted
    then = before.model_copy(update={"status": outcome.status})
    fresh = [seen(int(name.rpartition("-")[2]), "Starting") for name in outcome.start]
    again = step(then, *replicas, *fresh)
    assert (again.start, len(again.status.replicas)) == ((), len(replicas) + len(fresh))
    third = step(then.model_copy(update={"status": again.status}), *replicas, *fresh)
    assert groups(third) == groups(again)


# --- the route -----------------------------------------------------------------------------------------------------

SERVED = deployment(2, status={"stableRevision": STABLE, "rollout": "churn-2"})
BOTH = {STABLE: stable(replica(1), replica(2, "baseline")), CANDIDATE: revision(2, ready=1)}


def at_weight(weight: int, step: int = 0, **status: Any) -> Rollout:
    return rollout("Progressing", BESIDE, weight=weight, step=step, **status)


@pytest.mark.parametrize(
    ("weight", "arms"),
    [
        (0, [("live", 10_000)]),
        (10, [("live", 8000), ("baseline", 1000), ("live", 1000)]),
        (50, [("baseline", 5000), ("live", 5000)]),
        (80, [("baseline", 2000), ("live", 8000)]),
        (100, [("live", 10_000)]),
    ],
)
def test_it_has_the_candidates_share_as_far_as_there_is_one(weight: int, arms: list[tuple[str, int]]) -> None:
    entry = plan_route(SERVED, BOTH, at_weight(weight))
    assert [(arm.role, arm.weight) for arm in entry.live] == arms
    assert {arm.endpoints for arm in entry.live if arm.role == "baseline"} <= {("unix:/s2",)}
    assert sum(arm.weight for arm in entry.live) == WHOLE


def test_without_fresh_replicas_the_others_take_their_share_and_the_other_way_round() -> None:
    lost = {**BOTH, STABLE: stable(replica(1), replica(2, "baseline", "Starting"))}
    entry = plan_route(SERVED, lost, at_weight(10))
    assert [(arm.role, arm.weight) for arm in entry.live] == [("live", 9000), ("live", 1000)]
    assert entry.live[0].endpoints == ("unix:/s1",)
    left = {**BOTH, STABLE: stable(replica(2, "baseline"))}
    assert [arm.endpoints for arm in plan_route(SERVED, left, at_weight(10)).live][:2] == [("unix:/s2",)] * 2


def test_who_is_asked_next_is_the_whole_revision() -> None:
    rule = {"to": "other", "fallback": {"deployments": ["churn"]}}
    spec = RouteSpec.model_validate({"rules": [rule]})
    route = Resource(kind="Route", metadata=Metadata(name="front", uid="u"), spec=spec, status=RouteStatus())
    other = plan_route(deployment(1, meta={"name": "other"}), {}, None)
    entries = {"churn": plan_route(SERVED, BOTH, at_weight(10)), "other": other}
    fallback = plan_published(route, entries).rules[0].fallback
    assert fallback is not None
    assert [(arm.revision, arm.weight, arm.endpoints) for arm in fallback.stages[0]] == [
        (STABLE, 9000, ("unix:/s1", "unix:/s2")),
        (CANDIDATE, 1000, ("unix:/2/0",)),
    ]


def fleet(revisions: dict[str, Revision], wish: Rollout) -> Fleet:
    known = Fleet()
    known.reset([SERVED, *revisions.values(), wish], 1)
    return known


def test_samples_are_of_the_baseline_and_only_while_it_is_there() -> None:
    key = ("default", "churn")
    found = fleet(BOTH, at_weight(10))
    watched, wish = found.watched_rollout(key), found.wish(key)
    assert watched is not None and wish is not None
    assert (watched.stable, watched.candidate) == ("default_churn-00001_baseline", "default_churn-00002_live")
    # All three have clusters and weights as long as the rollout lasts.
    assert [arm.role for arm in wish.split] == ["live", "baseline", "live"]
    measured = wish.measured(watched)
    assert measured is not None and measured[0] == 1000
    lost = fleet({**BOTH, STABLE: stable(replica(1))}, at_weight(10)).wish(key)
    assert lost is not None and lost.measured(watched) is None
    # What it counted before it was away is continued by nothing: the candidate had requests meanwhile.
    back = fleet({**BOTH, STABLE: stable(replica(1), replica(3, "baseline"))}, at_weight(10)).wish(key)
    assert back is not None and back.measured(watched) not in (None, measured)


# --- the rollout ---------------------------------------------------------------------------------------------------


def test_it_begins_when_the_baseline_is_ready_too() -> None:
    pending = rollout("Pending", BESIDE, startedAt=at(-10))
    waiting = decide(pending, world(stable=stable(replica(1)))).status
    assert (waiting.phase, waiting.weight) == ("Pending", 0)
    assert "waiting for its baseline" in waiting.message
    assert decide(pending, world(stable=BOTH[STABLE])).status.weight == 10
    late = rollout("Pending", {**BESIDE, "readyTimeout": "5s"}, startedAt=at(-10))
    assert (
        "its baseline was not ready within 5 s"
        in decide(late, world(stable=stable(replica(1)))).status.message
    )
    assert decide(pending, world(stable=stable(replica(1, phase="Starting")))).status.weight == 10
    by_hand = rollout("Pending", BESIDE, spec={"requested": "promote"}, startedAt=at(-10))
    assert decide(by_hand, world(stable=stable(replica(1)))).status.phase == "Progressing"


@pytest.mark.parametrize("weight", [1, 10, 50])
def test_both_have_half_of_what_is_compared(weight: int) -> None:
    assert baseline_share(weight * 100) == weight * 100
    assert beside_baseline(weight * 100) == 5000


def test_above_half_of_the_traffic_the_shares_differ() -> None:
    assert (baseline_share(8000), beside_baseline(8000), beside_baseline(0)) == (2000, 8000, 0)


def test_a_step_counts_the_requests_of_its_own_weight() -> None:
    """At every step the two have half of what is compared; that makes no step of all of them."""
    good = traffic(50, (8000, 8), (8000, 8))
    trial = Trial((good,), 1, 1, by_weight={1000: 7500, 5000: 500})
    assert (trial.requests_at(10), trial.requests_at(50)) == (7500, 500)
    last = at_weight(50, step=1)
    early = decide(last, replace(world(), trial=trial))
    assert (early.status.phase, early.status.weight) == ("Progressing", 50)
    enough = Trial((good,), 1, 1, by_weight={1000: 7000, 5000: 1000})
    assert decide(last, replace(world(), trial=enough)).status.phase == "Promoting"
