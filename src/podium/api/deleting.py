"""What may be deleted, and what stands in the way. Called by `routes/objects` inside one write transaction."""

from podium.api.access import Caller
from podium.resources.errors import Refused
from podium.resources.kinds import KINDS, AnyResource
from podium.resources.requests import DeleteResult
from podium.resources.shape import DEFAULT_WORKSPACE
from podium.store import Read, Write

_SHOWN = 5


def delete(tx: Write, caller: Caller, resource: AnyResource, expected_version: int | None) -> DeleteResult:
    """Asks for the deletion. Raises Refused naming what stands in the way, Conflict, Forbidden."""
    obstacles = {
        "Workspace": _in_workspace,
        "Model": _of_model,
        "ModelVersion": _of_version,
        "Deployment": _of_deployment,
    }
    if resource.kind == "Workspace":
        caller.require("admin")
    elif resource.kind not in obstacles and not KINDS[resource.kind].applied:
        owner = resource.metadata.owner
        whose = f"{owner.kind} {owner.name}" if owner else "its owner"
        raise Refused(
            f"a {resource.kind} is Podium's own: it goes with {whose}", next_step=f"delete {whose} instead"
        )
    in_the_way = obstacles[resource.kind](tx, resource) if resource.kind in obstacles else []
    if in_the_way:
        more = f" and {len(in_the_way) - _SHOWN} more" if len(in_the_way) > _SHOWN else ""
        raise Refused(
            f"{resource.kind} {resource.metadata.name} is in use: {', '.join(in_the_way[:_SHOWN])}{more}",
            next_step="delete or change what uses it first",
        )
    marked = tx.request_deletion(resource.uid, expected_version=expected_version)
    return DeleteResult(object=(marked or resource).document(), removed=marked is None)


def _in_workspace(tx: Read, workspace: AnyResource) -> list[str]:
    name = workspace.metadata.name
    if name == DEFAULT_WORKSPACE:
        return ["it is the one that everything is in where no other is named"]
    found = []
    for kind in KINDS:
        if kind != "Workspace":
            items = tx.list(kind, workspace=name, limit=_SHOWN + 1).items
            found += [f"{kind} {item.metadata.name}" for item in items]
    return found


def _of_model(tx: Read, model: AnyResource) -> list[str]:
    workspace, name = model.metadata.workspace, model.metadata.name
    versions = tx.list("ModelVersion", workspace=workspace, fields=f"spec.model={name}").items
    deployments = tx.list("Deployment", workspace=workspace, fields=f"spec.model.name={name}").items
    return [f"version {item.spec.version}" for item in versions] + [
        f"Deployment {item.metadata.name}" for item in deployments
    ]


def _of_deployment(tx: Read, deployment: AnyResource) -> list[str]:
    """Routes that name it: its share of their requests would fall to others without a word."""
    routes = tx.list("Route", workspace=deployment.metadata.workspace).items
    name = deployment.metadata.name
    return [f"Route {route.metadata.name}" for route in routes if name in route.spec.deployments]


def _of_version(tx: Read, version: AnyResource) -> list[str]:
    """Aliases that point at it, Deployments that name it, and revisions of it that have or want replicas."""
    workspace, name, number = version.metadata.workspace, version.spec.model, version.spec.version
    model = tx.find("Model", workspace, name)
    aliases = [alias for alias, at in sorted(model.status.aliases.items()) if at == number] if model else []
    found = [f"alias {alias}" for alias in aliases]
    fields = f"spec.model.name={name},spec.model.version={number}"
    for deployment in tx.list("Deployment", workspace=workspace, fields=fields).items:
        found.append(f"Deployment {deployment.metadata.name}")
    fields = f"spec.model={name},spec.version={number}"
    revisions = tx.list("Revision", workspace=workspace, fields=fields).items
    stable = {item.status.stable_revision for item in tx.list("Deployment", workspace=workspace).items}
    for revision in revisions:
        serving = revision.status.wanted_replicas or revision.status.replicas
        if serving or revision.metadata.name in stable:
            found.append(f"Revision {revision.metadata.name}")
    return found
