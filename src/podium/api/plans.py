"""Reads what the pure decisions of `podium.planning` need to know, so that an apply can say what will follow.

Called by `applying`. The reconcilers decide with the same functions: the preview cannot disagree with them.
"""

import datetime

from podium.planning import preview
from podium.planning.deployments import World
from podium.resources.kinds import AnyResource, Deployment
from podium.store import Read


def describe(tx: Read, before: AnyResource | None, after: AnyResource, runtime_wheel: str) -> list[str]:
    """Sentences about what follows from the change; only a Deployment has consequences."""
    if after.kind != "Deployment":
        return []
    return preview.describe(before, after, _world(tx, after, runtime_wheel))


def _world(tx: Read, deployment: Deployment, runtime_wheel: str) -> World:
    revisions = tx.list("Revision", owner_uid=deployment.uid).items
    rollouts = tx.list("Rollout", owner_uid=deployment.uid).items
    reference, workspace = deployment.spec.model, deployment.metadata.workspace
    number = reference.version
    if reference.alias is not None:
        model = tx.find("Model", workspace, reference.name)
        number = model.status.aliases.get(reference.alias) if model else None
    version = tx.find("ModelVersion", workspace, f"{reference.name}.{number}") if number else None
    return World(
        now=datetime.datetime.now(datetime.UTC),
        version=version,
        unresolved="" if version else f"{reference.name} has no such version",
        revisions={revision.metadata.name: revision for revision in revisions},
        rollout=next((item for item in rollouts if item.metadata.name == deployment.status.rollout), None),
        runtime_wheel=runtime_wheel,
        rollouts=rollouts,
    )
