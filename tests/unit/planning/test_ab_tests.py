"""Strategy `abTest`: a split that is held to its end, whoever looks good before it; who meets whom."""

from typing import Any

import pytest
from pydantic import ValidationError

from podium.planning.rollouts import decide
from podium.planning.routes import plan_published
from podium.planning.routing import RouteEntry, plan_route
from podium.resources.kinds import Rollout
from podium.resources.route import RouteSpec, RouteStatus
from podium.resources.shape import Metadata, Resource
from podium.resources.strategies import AbTestStrategy
from tests.unit.planning.worlds import (
    AB_TEST,
    CANDIDATE,
    STABLE,
    UNPROVEN,
    at,
    deployment,
    revision,
    rollout,
    traffic,
    world,
)

HELD: dict[str, Any] = {"step": 0, "weight": 50}
PROVEN = traffic(50, (8000, 8), (8000, 8))
BAD = traffic(50, (400, 80))
ENDED = at(-3600)
STICKY = {"header": "x-user"}


def ab(analysis: dict[str, Any] | None = None, **strategy: Any) -> dict[str, Any]:
    return {"strategy": {**AB_TEST["strategy"], **strategy}, "analysis": analysis or {}}


def held(settings: dict[str, Any] = AB_TEST, *, spec: dict[str, Any] | None = None, **status: Any) -> Rollout:
    return rollout(status.pop("phase", "Progressing"), settings, spec=spec, **{**HELD, **status})


def test_it_begins_with_its_split() -> None:
    status = decide(rollout("Pending", ab(weight=30)), world()).status
    assert (status.phase, status.weight, status.step) == ("Progressing", 30, 0)


def test_however_good_the_candidate_is_nothing_moves_before_the_end() -> None:
    settings = ab(requests=100_000, onEnd="promote")
    status = decide(held(settings, stepStartedAt=at(-3599)), world(PROVEN)).status
    assert (status.phase, status.weight) == ("Progressing", 50)
    assert decide(held(settings, stepStartedAt=at(-3600)), world(PROVEN)).status.phase == "Promoting"


def test_what_is_worse_is_taken_back_before_the_end() -> None:
    status = decide(held(), world(BAD)).status
    assert (status.phase, status.weight) == ("RollingBack", 0)
    assert "error rate" in status.message


@pytest.mark.parametrize(
    ("seen", "ended"),
    [
        (traffic(50, (1000, 0), (1000, 0)), True),
        (traffic(50, (5000, 0), (999, 0)), False),
        (traffic(50, (999, 0), (5000, 0)), False),
    ],
    ids=["both", "stable has too few", "candidate has too few"],
)
def test_the_sample_is_counted_for_each_arm(seen: Any, ended: bool) -> None:
    # The share is a matter of another test; here users are assigned, so that it is not looked at.
    message = decide(held(ab(sticky=STICKY)), world(seen)).status.message
    assert ("has ended with 1,000 requests of each arm" in message) is ended


@pytest.mark.parametrize(
    ("on_end", "phase", "weight"),
    [("hold", "Held", 50), ("promote", "Promoting", 100), ("rollback", "RollingBack", 0)],
)
def test_the_end_is_as_the_spec_says(on_end: str, phase: str, weight: int) -> None:
    outcome = decide(held(ab(onEnd=on_end)), world(PROVEN))
    assert (outcome.status.phase, outcome.status.weight) == (phase, weight)
    assert "the test has ended with 1,000 requests of each arm" in outcome.status.message


@pytest.mark.parametrize(
    ("wish", "phase"), [("hold", "Held"), ("promote", "Promoting"), ("rollback", "RollingBack")]
)
def test_a_promotion_at_the_end_needs_proof_or_the_word_of_the_spec(wish: str, phase: str) -> None:
    before = held(ab({"onInconclusive": wish}, onEnd="promote"))
    assert decide(before, world(UNPROVEN)).status.phase == phase


def test_the_time_ends_it_too_and_silence_promotes_nobody() -> None:
    before = held(ab({"onInconclusive": "promote"}, onEnd="promote"), stepStartedAt=ENDED)
    status = decide(before, world()).status
    assert status.phase == "Held"
    assert "the test has ended after 1h" in status.message


def test_without_an_end_a_person_ends_it() -> None:
    wish = ab(requests=None, duration=None)
    assert decide(held(wish, stepStartedAt=at(-(10**7))), world(PROVEN)).status.phase == "Progressing"
    by_hand = held(wish, spec={"requested": "promote"})
    assert decide(by_hand, world(PROVEN)).status.phase == "Promoting"


def test_a_held_end_is_still_watched() -> None:
    assert (
        decide(held(phase="Held"), world(traffic(50, (2000, 400), (2000, 0)))).status.phase == "RollingBack"
    )


def test_a_pause_at_the_end_decides_nothing() -> None:
    before = held(ab(onEnd="rollback"), spec={"paused": True})
    assert decide(before, world(PROVEN)).status.phase == "Paused"


def test_users_are_judged_by_thresholds_only() -> None:
    """One user who fails again and again is no sample of requests."""
    assert decide(held(ab(sticky=STICKY)), world(BAD)).status.phase == "Progressing"
    uneven = traffic(50, (9000, 0), (2000, 0))
    assert decide(held(ab(sticky=STICKY, requests=10**6)), world(uneven)).status.phase == "Progressing"
    limit = {"thresholds": [{"metric": "errorRate", "max": 0.1}]}
    status = decide(held(ab(limit, sticky=STICKY)), world(BAD)).status
    assert status.phase == "RollingBack"
    passed = held(ab(limit, sticky=STICKY, onEnd="promote"))
    assert decide(passed, world(uneven)).status.phase == "Promoting"
    # Nothing at all to judge by is no proof either.
    blind = held(ab(sticky=STICKY, onEnd="promote"))
    assert decide(blind, world(PROVEN)).status.phase == "Held"


def test_an_end_that_never_comes_is_refused() -> None:
    with pytest.raises(ValidationError, match="onEnd: promote needs requests or duration"):
        AbTestStrategy.model_validate({"type": "abTest", "onEnd": "promote"})


# --- who meets whom ------------------------------------------------------------------------------------------------


def planned(name: str = CANDIDATE, **strategy: Any) -> RouteEntry:
    served = deployment(2, status={"stableRevision": STABLE, "rollout": "churn-2"})
    number = int(name[-5:])
    revisions = {STABLE: revision(1, ready=1), name: revision(number, ready=1)}
    return plan_route(served, revisions, held(ab(**strategy), spec={"candidateRevision": name}))


def test_the_salt_is_the_same_in_every_test_of_a_candidate_and_another_for_the_next() -> None:
    first, again = planned(sticky=STICKY), planned(sticky=STICKY, weight=10)
    assert first.salt == again.salt == "d/churn-00002"
    assert planned("churn-00003", sticky=STICKY).salt != first.salt
    assert planned(sticky={**STICKY, "salt": "sale"}).salt == "sale/churn-00002"
    assert (planned().sticky, planned().salt) == (None, "")


def published(*rules: dict[str, Any], entry: RouteEntry) -> Any:
    spec = RouteSpec.model_validate({"rules": list(rules)})
    route = Resource(kind="Route", metadata=Metadata(name="front", uid="u"), spec=spec, status=RouteStatus())
    other = plan_route(deployment(1, meta={"name": "other"}), {}, None)
    return plan_published(route, {"churn": entry, "other": other}).rules[-1]


def test_a_route_to_this_deployment_alone_keeps_its_users_where_they_are() -> None:
    entry = planned(sticky=STICKY)
    rule = published({"to": "churn"}, entry=entry)
    assert (rule.sticky, rule.salt) == (entry.sticky, entry.salt)
    # The candidate lies at the end of the line, as on the Deployment's own path.
    assert [(arm.revision, width) for arm, width in rule.slots] == [(STABLE, 5000), (CANDIDATE, 5000)]
    own_key = published({"to": "churn", "sticky": {"cookie": "id"}}, entry=entry)
    assert (own_key.sticky.cookie, own_key.salt) == ("id", "u")
    split = {"to": [{"deployment": "churn", "weight": 60}, {"deployment": "other", "weight": 40}]}
    assert published(split, entry=entry).sticky is None
