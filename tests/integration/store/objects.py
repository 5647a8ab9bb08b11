"""Objects to store, and waiting for what another thread does."""

import datetime
import time
from collections.abc import Callable

from podium.resources.deployment import DeploymentSpec, DeploymentStatus, ModelReference, RolloutSettings
from podium.resources.kinds import AnyResource, Deployment, Model, ModelVersion, Rollout
from podium.resources.manifest import Manifest
from podium.resources.model import ModelSpec, ModelStatus, ModelVersionSpec, ModelVersionStatus
from podium.resources.rollout import RolloutSpec, RolloutStatus
from podium.resources.shape import Metadata, OwnerReference
from podium.store import Actor, Store

ALICE = Actor("alice", "user", "req-1")
LOOP = Actor("control", "system")
WORKED_ON = ["Deployment", "Revision", "Rollout"]
HOUR = datetime.timedelta(hours=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def deployment(
    name: str = "churn", *, workspace: str = "default", model: str = "churn", alias: str = "champion",
    labels: dict[str, str] | None = None,
) -> Deployment:  # fmt: skip
    return Deployment(
        kind="Deployment",
        metadata=Metadata(name=name, workspace=workspace, labels=labels or {}),
        spec=DeploymentSpec(model=ModelReference(name=model, alias=alias)),
        status=DeploymentStatus(),
    )


def rollout(name: str, owner: AnyResource) -> Rollout:
    meta = owner.metadata
    uid = meta.uid or ""
    reference = OwnerReference(kind=owner.kind, name=meta.name, uid=uid)
    return Rollout(
        kind="Rollout",
        metadata=Metadata(name=name, workspace=meta.workspace, owner=reference),
        spec=RolloutSpec(
            deployment=meta.name, deployment_uid=uid, generation=1, stable_revision=None,
            candidate_revision=f"{meta.name}-00001", settings=RolloutSettings(),
        ),
        status=RolloutStatus(),
    )  # fmt: skip


def model(name: str = "churn") -> Model:
    return Model(kind="Model", metadata=Metadata(name=name), spec=ModelSpec(), status=ModelStatus())


def version(number: str, name: str = "churn") -> ModelVersion:
    digest = f"sha256:{int(number):064x}"
    return ModelVersion(
        kind="ModelVersion",
        metadata=Metadata(name=f"{name}.{number}"),
        spec=ModelVersionSpec(
            model=name, version=number, digest=digest, push_digest=digest,
            manifest=Manifest.model_validate(MANIFEST),
        ),
        status=ModelVersionStatus(),
    )  # fmt: skip


MANIFEST = {
    "flavor": {"name": "sklearn", "entry": "model.pkl"},
    "files": [{"path": "model.pkl", "size": 1, "sha256": "0" * 64}],
    "python": "3.11",
    "lock": {"sha256": "1" * 64},
}


def create(store: Store, *resources: AnyResource, actor: Actor = ALICE) -> list[AnyResource]:
    with store.write(actor) as transaction:
        return [transaction.create(resource) for resource in resources]


def uid_of(resource: AnyResource) -> str:
    assert resource.metadata.uid is not None
    return resource.metadata.uid


def replicas(resource: AnyResource, count: int) -> DeploymentSpec:
    assert isinstance(resource.spec, DeploymentSpec)
    return resource.spec.model_copy(update={"replicas": count})


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns when it holds; fails when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)
