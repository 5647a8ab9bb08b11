"""What a Deployment's decision needs to know, read through whatever can find and list objects.

Called by `control.deployments` (within its transaction) and `api.plans` (for a preview): both see the same world, so
that a preview cannot disagree with what follows. Where requests go is read here too, for `podium route test` and for
the comparison of shadows.
"""

import datetime
from collections.abc import Sequence
from typing import Protocol

from podium.planning.deployments import World
from podium.planning.routing import RouteEntry, plan_route
from podium.resources.deployment import ModelReference
from podium.resources.kinds import AnyResource, Deployment, ModelVersion


class _Page(Protocol):
    @property
    def items(self) -> Sequence[AnyResource]: ...


class Reads(Protocol):
    """One consistent view of the objects, such as a transaction of the store."""

    def find(self, kind: str, workspace: str, name: str) -> AnyResource | None:
        """The object, or None."""

    def list(self, kind: str, *, owner_uid: str | None = None) -> _Page:
        """All objects of a kind that this object owns."""


def read_world(reads: Reads, deployment: Deployment, *, now: datetime.datetime, runtime_wheel: str) -> World:
    """The world as it is. `runtime_wheel`: sha256 of the wheel that new revisions get."""
    version, unresolved = resolve(reads, deployment.metadata.workspace, deployment.spec.model)
    if version is not None and (words := _why_not_served(deployment, version)):
        version, unresolved = None, words
    revisions = reads.list("Revision", owner_uid=deployment.metadata.uid).items
    rollouts = reads.list("Rollout", owner_uid=deployment.metadata.uid).items
    return World(
        now=now,
        version=version,
        unresolved=unresolved,
        revisions={revision.metadata.name: revision for revision in revisions},
        rollout=next((item for item in rollouts if item.metadata.name == deployment.status.rollout), None),
        runtime_wheel=runtime_wheel,
        rollouts=rollouts,
    )


def _why_not_served(deployment: Deployment, version: ModelVersion) -> str:
    """Podium's own model server has nothing to load in a version that is only files."""
    if version.spec.manifest.flavor.name != "custom" or deployment.spec.runtime.command is not None:
        return ""
    return (
        f"spec.runtime.command: {version.spec.model} version {version.spec.version} is only files (flavor custom): "
        "say which command serves them"
    )


def resolve(reads: Reads, workspace: str, reference: ModelReference) -> tuple[ModelVersion | None, str]:
    """The version that a reference means now, or None and the reason in words."""
    model = reads.find("Model", workspace, reference.name)
    if model is None:
        return None, f"spec.model.name: there is no model {reference.name} in workspace {workspace}"
    number = reference.version
    if reference.alias is not None:
        number = model.status.aliases.get(reference.alias)
        if number is None:
            known = ", ".join(sorted(model.status.aliases)) or "none"
            words = f"spec.model.alias: {reference.name} has no alias {reference.alias} (aliases: {known})"
            return None, words
    version = reads.find("ModelVersion", workspace, f"{reference.name}.{number}")
    if version is None:
        return None, f"spec.model.version: {reference.name} has no version {number}"
    return version, ""


def read_entry(reads: Reads, workspace: str, name: str) -> RouteEntry | None:
    """What is planned for the requests of this Deployment, as a gateway plans it; None if there is none."""
    deployment = reads.find("Deployment", workspace, name)
    if deployment is None:
        return None
    status = deployment.status
    rollout = reads.find("Rollout", workspace, status.rollout) if status.rollout else None
    revisions = reads.list("Revision", owner_uid=deployment.uid).items
    return plan_route(deployment, {revision.metadata.name: revision for revision in revisions}, rollout)
