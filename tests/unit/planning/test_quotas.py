"""Quotas of a workspace: who is refused, by how much, and who never is."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.planning.quotas import more_rules, over_quota, over_rules, quota_use
from podium.resources.deployment import DeploymentSpec, DeploymentStatus
from podium.resources.kinds import Deployment, Route
from podium.resources.model import Quota, QuotaUse
from podium.resources.route import RouteSpec, RouteStatus
from podium.resources.scaling import Scaling
from podium.resources.shape import Metadata, Resource

GIB = 2**30


def wish(replicas: int, memory: str = "1Gi") -> DeploymentSpec:
    return DeploymentSpec.model_validate(
        {"model": {"name": "churn", "version": 1}, "replicas": replicas, "resources": {"memory": memory}}
    )


def rules(number: int) -> RouteSpec:
    """A Route's, so many."""
    chosen = [{"match": {"path": f"/{place}"}, "to": "churn"} for place in range(number)]
    return RouteSpec.model_validate({"rules": chosen})


def test_without_a_quota_all_deployments_fit_and_a_thousand_rules() -> None:
    assert over_quota(Quota(), "a", None, wish(100), {"b": wish(900)}) is None
    others = {f"r{number:02d}": rules(64) for number in range(15)}
    assert over_rules(Quota(), rules(40), others) is None
    assert over_rules(Quota(), rules(41), others) == (
        "quota of rules: 41 asked for, 960 taken by others (r00 64, r01 64, r02 64, r03 64, r04 64, 10 more); the "
        "workspace may have 1000, so this is 1 over"
    )
    assert over_rules(Quota(rules=1001), rules(41), others) is None


def test_a_route_that_grows_is_asked_and_no_other() -> None:
    assert more_rules(None, rules(1))
    assert more_rules(rules(2), rules(3))
    assert not more_rules(rules(3), rules(3))
    assert not more_rules(rules(3), rules(2))


def test_the_last_replica_fits_and_one_more_is_told_by_how_much_it_does_not() -> None:
    quota = Quota(replicas=10)
    others = {"b": wish(4), "c": wish(3), "idle": wish(0)}
    assert over_quota(quota, "a", None, wish(3), others) is None
    said = over_quota(quota, "a", None, wish(5), others)
    assert said == (
        "quota of replicas: 5 asked for, 7 taken by others (b 4, c 3); the workspace may have 10, so this is 2 over"
    )


def test_memory_is_that_of_all_replicas() -> None:
    quota = Quota.model_validate({"memory": "8Gi"})
    assert over_quota(quota, "a", None, wish(4, "2Gi"), {}) is None
    said = over_quota(quota, "a", wish(4, "2Gi"), wish(4, "3Gi"), {"b": wish(1, "512Mi")})
    assert said == (
        "quota of memory: 12Gi asked for, 512Mi taken by others (b 512Mi); the workspace may have 8Gi, so this is "
        "4608Mi over"
    )


def test_many_others_are_counted_and_the_greatest_named() -> None:
    others = {f"d{number}": wish(number) for number in range(8)}
    said = over_quota(Quota(replicas=1), "a", None, wish(1), others)
    assert said is not None
    assert "28 taken by others (d7 7, d6 6, d5 5, d4 4, d3 3, 2 more)" in said


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 40), st.integers(0, 30))
def test_who_asks_for_no_more_is_never_refused_and_who_fits_neither(
    before: int, after: int, others: int, allowed: int
) -> None:
    said = over_quota(Quota(replicas=allowed), "a", wish(before), wish(after), {"b": wish(others)})
    assert (said is None) == (after <= before or after + others <= allowed)


@pytest.mark.parametrize("wrong", [{"replicas": -1}, {"replicas": 1.5}, {"memory": "lots"}, {"cpus": 1}])
def test_a_quota_is_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Quota.model_validate(wrong)


def named(name: str, *, deleted: bool) -> Metadata:
    at = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC) if deleted else None
    return Metadata(name=name, workspace="default", deletion_requested_at=at)


def deployed(name: str, spec: DeploymentSpec, ready: int, *, deleted: bool = False) -> Deployment:
    status = DeploymentStatus(ready_replicas=ready)
    return Resource(kind="Deployment", metadata=named(name, deleted=deleted), spec=spec, status=status)


def published(name: str, spec: RouteSpec, *, deleted: bool = False) -> Route:
    return Resource(kind="Route", metadata=named(name, deleted=deleted), spec=spec, status=RouteStatus())


def test_what_is_used_is_what_the_quota_counts() -> None:
    scaled = wish(1, "512Mi").model_copy(update={"scaling": Scaling.model_validate({"max": 4, "warm": 2})})
    some = [deployed("a", wish(3), 2), deployed("b", scaled, 1), deployed("gone", wish(9), 1, deleted=True)]
    assert quota_use(some, []) == QuotaUse(replicas=9, memory=6 * GIB, deployments=2, ready_replicas=3)
    ways = [published("two", rules(2), deleted=True), published("five", rules(5)), published("one", rules(1))]
    assert quota_use([], ways) == QuotaUse(rules=6)
    assert quota_use([], []) == QuotaUse()
    quota = Quota(replicas=9)
    assert (
        over_quota(quota, "c", None, wish(1), {one.metadata.name: one.spec for one in some[:2]}) is not None
    )
    assert over_quota(quota, "c", None, wish(0), {one.metadata.name: one.spec for one in some[:2]}) is None
