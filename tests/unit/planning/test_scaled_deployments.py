"""What scaling changes in a Deployment: who runs how many, who sleeps, the phase, the preview, the quota."""

from typing import Any

import pytest

from podium.planning.deployments import World, decide
from podium.planning.preview import describe
from podium.planning.quotas import over_quota
from podium.planning.routing import plan_route
from podium.resources.deployment import DeploymentSpec
from podium.resources.model import Quota
from podium.resources.scaling import Scaling
from tests.unit.planning.worlds import NOW, deployment, model_version, revision, rollout


def world(*revisions: Any, version: int = 1, under_way: Any = None) -> World:
    return World(
        now=NOW, version=model_version(version), unresolved="",
        revisions={one.metadata.name: one for one in revisions}, rollout=under_way, runtime_wheel="wheel-1",
    )  # fmt: skip


def scaled(
    desired: int | None, version: int = 1, status: dict[str, Any] | None = None, **scaling: Any
) -> Any:
    known = {} if desired is None else {"scaling": {"desired": desired, "reason": "7 requests under way"}}
    return deployment(
        version,
        scaling={"max": 8, **scaling},
        status={"stableRevision": "churn-00001", "revisionCount": 1, **known, **(status or {})},
    )


def test_the_autoscalers_number_is_what_is_wanted() -> None:
    outcome = decide(scaled(4), world(revision(1, ready=1)))
    assert outcome.wanted == {"churn-00001": 4}
    assert decide(scaled(None, min=2), world(revision(1, ready=1))).wanted == {"churn-00001": 2}
    assert decide(scaled(50), world(revision(1, ready=1))).wanted == {"churn-00001": 8}


@pytest.mark.parametrize(
    ("ready", "failures", "phase"), [(4, 0, "Ready"), (2, 0, "Ready"), (2, 1, "Degraded"), (1, 0, "Degraded")]
)
def test_who_grows_is_ready_who_fails_or_lacks_its_least_is_not(
    ready: int, failures: int, phase: str
) -> None:
    outcome = decide(scaled(4, min=2), world(revision(1, ready=ready, failures=failures)))
    assert outcome.status.phase == phase
    message = "" if ready == 4 else f"{ready} of 4 replicas are ready: 7 requests under way"
    assert outcome.status.message == message


def test_nobody_wanted_is_asleep_and_has_none_standing_by() -> None:
    outcome = decide(scaled(0, min=0, warm=2), world(revision(1, ready=1, warmReplicas=2)))
    assert (outcome.wanted, outcome.sleeping, outcome.warm) == (
        {"churn-00001": 0}, {"churn-00001": True}, {"churn-00001": 0},
    )  # fmt: skip
    assert outcome.status.message == "asleep: 7 requests under way; a request wakes it"
    awake = decide(scaled(1, min=0, warm=2), world(revision(1, wantedReplicas=0, sleeping=True)))
    assert (awake.wanted, awake.sleeping, awake.warm) == (
        {"churn-00001": 1}, {"churn-00001": False}, {"churn-00001": 2},
    )  # fmt: skip


def test_a_plain_deployment_without_replicas_does_not_sleep() -> None:
    off = deployment(replicas=0, status={"stableRevision": "churn-00001", "revisionCount": 1})
    outcome = decide(off, world(revision(1, ready=1)))
    assert (outcome.wanted, outcome.sleeping) == ({"churn-00001": 0}, {})
    assert "spec.replicas is 0" in plan_route(off, {}, None).unavailable
    assert "spec.replicas is 0" not in plan_route(scaled(0, min=0), {}, None).unavailable


def test_a_new_version_of_one_that_sleeps_is_rolled_out_awake() -> None:
    asleep = scaled(0, version=2, min=0)
    opened = decide(asleep, world(revision(1, wantedReplicas=0, sleeping=True), version=2))
    assert opened.new_rollout is not None
    assert opened.wanted == {"churn-00001": 1, "churn-00002": 1}
    status = {"rollout": "churn-2", "rolloutCount": 2, "revisionCount": 2, "latestRevision": "churn-00002"}
    both = world(revision(1, ready=1), revision(2, ready=1), version=2, under_way=rollout(weight=10))
    assert decide(scaled(0, version=2, status=status, min=0), both).wanted == {}
    assert decide(scaled(3, version=2, status=status, min=0), both).wanted == {
        "churn-00001": 3, "churn-00002": 3,
    }  # fmt: skip


def test_the_preview_says_what_the_replicas_follow() -> None:
    new = deployment(scaling={"max": 8, "min": 0, "target": {"p95": "200ms"}})
    assert "Replicas follow the load: 1 now, 0 to 8 (p95 200ms), none without requests." in describe(
        None, new, world()
    )
    before, after = scaled(4), scaled(4, max=9, target={"concurrency": 3})
    sentences = describe(before, after, world(revision(1, ready=4)))
    assert sentences == ["Replicas follow the load: 4 now, 1 to 9 (3 concurrency each)."]
    fixed = deployment(replicas=2, status={"stableRevision": "churn-00001", "revisionCount": 1})
    assert describe(before, fixed, world(revision(1, ready=4))) == ["Replicas: 4 -> 2."]


def test_a_quota_counts_what_may_come() -> None:
    def spec(**given: Any) -> DeploymentSpec:
        return DeploymentSpec.model_validate({"model": {"name": "churn", "version": 1}, **given})

    scaling = spec(scaling={"max": 6, "warm": 1})
    assert scaling.most_replicas == 7
    assert over_quota(Quota(replicas=7), "churn", None, scaling, {}) is None
    reason = over_quota(Quota(replicas=8), "price", None, spec(replicas=2), {"churn": scaling})
    assert reason is not None and "7 taken by others (churn 7)" in reason and "1 over" in reason


def test_scaling_brings_every_number_between_its_bounds() -> None:
    bounds = Scaling(min=2, max=4)
    assert [bounds.within(number) for number in (0, 2, 3, 9)] == [2, 2, 3, 4]
