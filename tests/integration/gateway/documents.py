"""Resources as the server would give them, made with the real kinds so that they cannot drift from them."""

from dataclasses import dataclass, field
from typing import Any

from podium.resources.deployment import DeploymentSpec, DeploymentStatus
from podium.resources.kinds import KINDS
from podium.resources.revision import ReplicaState, RevisionSpec, RevisionStatus
from podium.resources.rollout import RolloutSpec, RolloutStatus
from podium.resources.route import RouteSpec, RouteStatus
from podium.resources.shape import Metadata, Resource


def deployment(
    name: str,
    workspace: str = "default",
    *,
    stable: str | None = None,
    rollout: str | None = None,
    **spec: Any,
) -> dict[str, Any]:
    made = Resource(
        kind="Deployment",
        metadata=Metadata(name=name, workspace=workspace, uid=f"uid-{workspace}-{name}"),
        spec=DeploymentSpec.model_validate({"model": {"name": "m", "version": "1"}, **spec}),
        status=DeploymentStatus(stable_revision=stable, rollout=rollout),
    )
    return made.document()


def revision(
    deployment_name: str, number: int, endpoints: list[str], workspace: str = "default", **spec: Any
) -> dict[str, Any]:
    name = f"{deployment_name}-{number:05d}"
    wish = DeploymentSpec.model_validate({"model": {"name": "m", "version": "1"}, **spec})
    made = Resource(
        kind="Revision",
        metadata=Metadata(name=name, workspace=workspace, uid=f"uid-{workspace}-{name}"),
        spec=RevisionSpec(
            deployment=deployment_name, deployment_uid=f"uid-{workspace}-{deployment_name}", number=number, model="m",
            version=str(number), manifest_digest="sha256:0", runtime_wheel="0", target="process",
            resources=wish.resources, runtime=wish.runtime, sandbox=wish.sandbox, idempotent=wish.idempotent,
            content_hash="0",
        ),
        status=RevisionStatus(
            phase="Ready" if endpoints else "Starting",
            replicas=[
                ReplicaState(name=f"{name}-{index}-0", phase="Ready", address=address)
                for index, address in enumerate(endpoints)
            ],
            ready_replicas=len(endpoints),
        ),
    )  # fmt: skip
    return made.document()


def rollout(
    deployment_name: str, stable: str | None, candidate: str, weight: int, workspace: str = "default",
    phase: str = "Progressing", number: int = 1, preview: bool = False, shadow: bool = False, **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    name = f"{deployment_name}-{number}"
    made = Resource(
        kind="Rollout",
        metadata=Metadata(name=name, workspace=workspace, uid=f"uid-{workspace}-{name}"),
        spec=RolloutSpec.model_validate(
            {
                "deployment": deployment_name, "deploymentUid": f"uid-{workspace}-{deployment_name}", "generation": 1,
                "stableRevision": stable, "candidateRevision": candidate, "settings": settings,
            }
        ),
        status=RolloutStatus.model_validate(
            {"phase": phase, "weight": weight, "preview": preview, "shadow": shadow}
        ),
    )  # fmt: skip
    return made.document()


def route(name: str, *rules: dict[str, Any], workspace: str = "default", **spec: Any) -> dict[str, Any]:
    made = Resource(
        kind="Route",
        metadata=Metadata(name=name, workspace=workspace, uid=f"uid-{workspace}-route-{name}"),
        spec=RouteSpec.model_validate({"rules": list(rules), **spec}),
        status=RouteStatus(),
    )
    return made.document()


def workspace(name: str) -> dict[str, Any]:
    kind = KINDS["Workspace"]
    made: Resource[Any, Any] = Resource(
        kind="Workspace",
        metadata=Metadata(name=name, uid=f"uid-{name}"),
        spec=kind.spec(),
        status=kind.status(),
    )
    return made.document()


@dataclass
class World:
    """A server with Deployments, and the replicas behind them."""

    server: Any
    gateway: Any
    endpoints: dict[tuple[str, str, int], list[str]] = field(default_factory=dict)

    def deploy(
        self, name: str, workspace: str = "default", number: int = 1, replicas: int = 1, **spec: Any
    ) -> int:
        """A Deployment with running replicas of one revision, committed."""
        docs = [
            self.revision(name, workspace, number, replicas, **spec),
            deployment(name, workspace, stable=f"{name}-{number:05d}", **spec),
        ]
        return int(self.server.put(*docs))

    def revision(
        self, name: str, workspace: str = "default", number: int = 1, replicas: int = 1, **spec: Any
    ) -> dict[str, Any]:
        """A revision's document with replicas that are started now."""
        label = f"{name}-{number:05d}"
        file = label if workspace == "default" else f"{workspace}.{label}"
        addresses = [self.gateway.start_replica(file, index) for index in range(replicas)]
        self.endpoints[workspace, name, number] = addresses
        return revision(name, number, addresses, workspace, **spec)

    def canary(self, name: str, weight: int, *, spec: dict[str, Any] | None = None, **more: Any) -> int:
        """A rollout from revision 1 to 2 at this weight, committed; revision 2 is started the first time."""
        docs = []
        if ("default", name, 2) not in self.endpoints:
            docs.append(self.revision(name, number=2))
            docs.append(deployment(name, stable=f"{name}-00001", rollout=f"{name}-1", **(spec or {})))
        docs.append(rollout(name, f"{name}-00001", f"{name}-00002", weight, **more))
        return int(self.server.put(*docs))
