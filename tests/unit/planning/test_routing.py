"""Which arms a Deployment's requests go to."""

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.planning.routing import WHOLE, ServerPaths, plan_route
from podium.resources.deployment import DeploymentSpec, DeploymentStatus
from podium.resources.kinds import KINDS
from podium.resources.shape import Metadata, Resource

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def deployment(stable: str | None = "d-00001", rollout: str | None = None, **metadata: Any) -> Any:
    spec = DeploymentSpec.model_validate({"model": {"name": "m", "version": "1"}})
    status = DeploymentStatus(stable_revision=stable, rollout=rollout)
    return Resource(kind="Deployment", metadata=Metadata(name="d", **metadata), spec=spec, status=status)


def revision(number: int, ready: int = 1, draining: int = 0) -> Any:
    states = [{"name": f"r{n}", "phase": "Ready", "address": f"unix:/{number}/{n}"} for n in range(ready)]
    states += [
        {"name": f"x{n}", "phase": "Draining", "address": f"unix:/{number}/x{n}"} for n in range(draining)
    ]
    return KINDS["Revision"].parse(
        {
            "metadata": {"name": f"d-{number:05d}"},
            "spec": {
                "deployment": "d", "deploymentUid": "u", "number": number, "model": "m", "version": str(number),
                "manifestDigest": "sha256:" + "0" * 64, "runtimeWheel": "w", "target": "process", "resources": {},
                "runtime": {}, "sandbox": {}, "idempotent": True, "contentHash": "h",
            },
            "status": {"replicas": states, "readyReplicas": ready},
        }
    )  # fmt: skip


def rollout(
    weight: int, phase: str = "Progressing", *, preview: bool = False, strategy: str = "canary"
) -> Any:
    return KINDS["Rollout"].parse(
        {
            "metadata": {"name": "d-2"},
            "spec": {
                "deployment": "d", "deploymentUid": "u", "generation": 2, "stableRevision": "d-00001",
                "candidateRevision": "d-00002", "settings": {"strategy": {"type": strategy}},
            },
            "status": {"phase": phase, "weight": weight, "preview": preview},
        }
    )  # fmt: skip


def test_without_a_rollout_the_stable_revision_takes_all() -> None:
    entry = plan_route(deployment(), {"d-00001": revision(1)}, None)
    assert [(arm.revision, arm.weight) for arm in entry.live] == [("d-00001", WHOLE)]
    assert entry.direct is not None
    assert entry.direct.version == "1"


def test_replicas_that_drain_get_nothing() -> None:
    entry = plan_route(deployment(), {"d-00001": revision(1, ready=1, draining=2)}, None)
    assert entry.live[0].endpoints == ("unix:/1/0",)


@given(weight=st.integers(0, 100), stable=st.integers(0, 2), candidate=st.integers(0, 2))
def test_traffic_never_points_at_a_dead_revision_while_the_other_may_serve(
    weight: int, stable: int, candidate: int
) -> None:
    revisions = {"d-00001": revision(1, stable), "d-00002": revision(2, candidate)}
    entry = plan_route(deployment(rollout="d-2"), revisions, rollout(weight))
    assert sum(arm.weight for arm in entry.live) in (0, WHOLE)
    assert all(arm.endpoints for arm in entry.live)
    if stable or (candidate and weight > 0):
        assert entry.live
    if weight == 0:
        # A candidate that has taken no traffic yet has not passed its gates: it never steps in.
        assert "d-00002" not in {arm.revision for arm in entry.live}


@pytest.mark.parametrize(
    ("phase", "weight", "winner"), [("Promoted", 100, "d-00002"), ("RolledBack", 0, "d-00001")]
)
def test_the_end_of_a_rollout_and_the_deployments_status_may_arrive_in_any_order(
    phase: str, weight: int, winner: str
) -> None:
    revisions = {"d-00001": revision(1), "d-00002": revision(2)}
    before = plan_route(deployment(rollout="d-2"), revisions, rollout(weight, phase))
    after = plan_route(deployment(stable=winner), revisions, None)
    assert before.live == after.live


def test_a_preview_is_an_arm_of_its_own_without_weight() -> None:
    revisions = {"d-00001": revision(1), "d-00002": revision(2)}
    entry = plan_route(deployment(rollout="d-2"), revisions, rollout(0, preview=True, strategy="blueGreen"))
    assert entry.preview is not None
    assert (entry.preview.role, entry.preview.weight, entry.preview_header) == (
        "preview",
        0,
        "x-podium-preview",
    )
    assert [arm.revision for arm in entry.live] == ["d-00001"]


def test_what_is_being_deleted_takes_no_traffic_and_says_why() -> None:
    entry = plan_route(deployment(deletion_requested_at=NOW), {"d-00001": revision(1)}, None)
    assert entry.live == ()
    assert "deleted" in entry.unavailable


@pytest.mark.parametrize(
    ("runtime", "inside"),
    [
        ({"command": "serve"}, "/v2/models/d"),
        ({"command": "serve", "modelName": "other"}, "/v2/models/other"),
        ({"command": "serve", "protocol": "openai"}, ""),
        ({"command": "serve", "protocol": "http", "readyPath": "/up"}, ""),
    ],
)
def test_each_revision_has_the_paths_of_its_own_server(runtime: dict[str, Any], inside: str) -> None:
    """Whatever the Deployment says now: a revision never changes."""
    candidate = revision(2)
    settings = type(candidate.spec.runtime).model_validate(runtime)
    candidate = candidate.model_copy(update={"spec": candidate.spec.model_copy(update={"runtime": settings})})
    revisions = {"d-00001": revision(1), "d-00002": candidate}
    entry = plan_route(deployment(rollout="d-2"), revisions, rollout(20))
    stable, moved = entry.live
    assert stable.paths is None
    assert moved.paths == ServerPaths("/v2/models/d", "2", inside)
    whole = plan_route(deployment("d-00002"), revisions, None)
    assert [arm.paths for arm in whole.arms] == [moved.paths, moved.paths]
