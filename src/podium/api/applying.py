"""What an apply does: check the references, create or update, and say what changed and what follows.

Called by `routes/apply` inside one write transaction; calls `plans` for the sentences. Updates use optimistic
concurrency only: one that names no resourceVersion, or an old one, is refused with the present one.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from pydantic import ValidationError

from podium.api.access import Caller
from podium.api.plans import describe
from podium.planning import route_preview
from podium.planning.quotas import more_rules, over_quota, over_rules
from podium.resources.deployment import DeploymentSpec
from podium.resources.errors import Conflict, InvalidInput, Issue, Refused
from podium.resources.issues import issues_of
from podium.resources.kinds import KINDS, AnyResource, parse_applied
from podium.resources.model import Quota
from podium.resources.requests import ApplyResult, FieldChange
from podium.resources.route import RouteSpec, Rule
from podium.resources.shape import DEFAULT_WORKSPACE
from podium.store import Read, Write
from podium.store.audit import differences

SERVER_MADE = ("uid", "generation", "createdAt", "updatedAt", "deletionRequestedAt", "finalizers", "owner")
"""Metadata that an apply may carry and that is not looked at."""
_SHOWN = 10
"""Names that an error lists."""


def read_applied(document: Any, workspace: str | None) -> AnyResource:
    """The document as an object. Raises InvalidInput naming each field; nothing is coerced (`"3"` is no number).

    What the server puts into `metadata` is not looked at, so that what `get` printed can be applied again.
    """
    if isinstance(document, dict) and isinstance(meta := document.get("metadata"), dict):
        kept = {key: value for key, value in meta.items() if key not in SERVER_MADE}
        document = {**document, "metadata": kept}
    resource = parse_applied(document, workspace=workspace)
    spec = document.get("spec")
    try:
        KINDS[resource.kind].spec.model_validate({} if spec is None else spec, strict=True)
    except ValidationError as error:
        raise InvalidInput(issues_of(error, "spec")) from None
    given = document["metadata"].get("resourceVersion")
    if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
        raise InvalidInput(Issue("metadata.resourceVersion", "expected a number, as `get` shows it"))
    return resource


def authorise(caller: Caller, wish: AnyResource) -> None:
    """A tenant is an admin's to make or change, everything else an editor's of its workspace."""
    if wish.kind == "Workspace":
        caller.require("admin")
    else:
        caller.enter(wish.metadata.workspace)


def apply(
    tx: Write, wish: AnyResource, *, runtime_wheel: str, dry_run: bool, beside: Collection[str] = ()
) -> ApplyResult:
    """Creates or updates. Raises InvalidInput for what it refers to, Conflict, Refused.

    beside: Deployments that would be there by then; only a dry run is asked before they are.
    """
    meta = wish.metadata
    _check_workspace(tx, wish)
    current = tx.find(wish.kind, meta.workspace, meta.name)
    if current is None and meta.resource_version is not None:
        raise Conflict(
            f"{wish.kind} {wish.key} does not exist (any more), so it is not at version {meta.resource_version}",
            next_step="leave out metadata.resourceVersion to create it",
            details={"field": "metadata.resourceVersion"},
        )
    if current is not None and _same(current, wish):
        return ApplyResult(object=current.document(), action="unchanged", dry_run=dry_run)
    if wish.kind == "Route":
        _check_rules(tx, wish, current)
    if isinstance(wish.spec, DeploymentSpec):
        _check_ceiling(wish.spec)
        _check_model(tx, meta.workspace, wish.spec)
        _check_quota(tx, wish, current)
    if isinstance(wish.spec, RouteSpec):
        known = beside if current is None else {*beside, *current.spec.deployments}
        _check_deployments(tx, meta.workspace, wish.spec, known)
    action: Literal["created", "updated"]
    if current is None:
        after, action = tx.create(wish), "created"
    else:
        _check_version(current, meta.resource_version)
        after, action = _replace(tx, current, wish), "updated"
    return ApplyResult(
        object=after.document(),
        action=action,
        changes=_changes(current, after),
        plan=describe(tx, current, after, runtime_wheel),
        dry_run=dry_run,
    )


def _changes(current: AnyResource | None, after: AnyResource) -> list[FieldChange]:
    if after.kind == "Route":
        return route_preview.changes(current, after)
    found = differences({} if current is None else _asked_for(current), _asked_for(after))
    return [FieldChange.model_validate(change) for change in found]


def _replace(tx: Write, current: AnyResource, wish: AnyResource) -> AnyResource:
    return tx.replace(
        current.uid,
        spec=wish.spec,
        labels=wish.metadata.labels,
        annotations=wish.metadata.annotations,
        expected_version=wish.metadata.resource_version,
    )


def _same(current: AnyResource, wish: AnyResource) -> bool:
    mine, theirs = current.metadata, wish.metadata
    return (current.spec, mine.labels, mine.annotations) == (wish.spec, theirs.labels, theirs.annotations)


def _check_version(current: AnyResource, named: int | None) -> None:
    present = current.metadata.resource_version
    if named == present:
        return
    words = "the update names no version" if named is None else f"the update is of version {named}"
    raise Conflict(
        f"metadata.resourceVersion: {current.kind} {current.key} exists at version {present}; {words}",
        next_step=f"read it, and apply with metadata.resourceVersion: {present} if your change still fits",
        details={"resourceVersion": present, "field": "metadata.resourceVersion"},
    )


def _check_workspace(tx: Read, wish: AnyResource) -> None:
    workspace = wish.metadata.workspace
    if wish.kind == "Workspace":
        return
    found = tx.find("Workspace", DEFAULT_WORKSPACE, workspace)
    if found is None or found.metadata.deletion_requested_at is not None:
        raise InvalidInput(
            Issue("metadata.workspace", f"there is no workspace {workspace}"),
            next_step="ask an admin to apply a Workspace with that name",
        )


def _check_model(tx: Read, workspace: str, spec: DeploymentSpec) -> None:
    """The model, and its version or alias, must be there: a typo is better found now than in a status."""
    name = spec.model.name
    model = tx.find("Model", workspace, name)
    if model is None:
        known = [item.metadata.name for item in tx.list("Model", workspace=workspace, limit=_SHOWN + 1).items]
        raise InvalidInput(
            Issue("spec.model.name", f"there is no model {name} in workspace {workspace}; {_known(known)}"),
            next_step=f"podium model push {name} PATH",
        )
    aliases: Mapping[str, str] = model.status.aliases
    if spec.model.alias is not None:
        if spec.model.alias not in aliases:
            raise InvalidInput(
                Issue(
                    "spec.model.alias", f"{name} has no alias {spec.model.alias}; {_known(sorted(aliases))}"
                ),
                next_step=f"podium model alias {name} {spec.model.alias} VERSION",
            )
    elif tx.find("ModelVersion", workspace, f"{name}.{spec.model.version}") is None:
        found = tx.list("ModelVersion", workspace=workspace, fields=f"spec.model={name}").items
        numbers = sorted((item.spec.version for item in found), key=int, reverse=True)
        raise InvalidInput(
            Issue("spec.model.version", f"{name} has no version {spec.model.version}; {_known(numbers)}"),
            next_step=f"podium model show {name}",
        )


def _check_deployments(tx: Read, workspace: str, spec: RouteSpec, known: Collection[str]) -> None:
    """Every Deployment that a Route names must be there: the share of a misspelt one would fall to others without a
    word. `known`: those that are not asked after: what the Route named before is its status's to tell."""
    issues = []
    for field, name in (named for number, rule in enumerate(spec.rules) for named in _named(number, rule)):
        if name in known:
            continue
        found = tx.find("Deployment", workspace, name)
        if found is None:
            issues.append(Issue(field, f"there is no deployment {name} in workspace {workspace}"))
        elif found.metadata.deletion_requested_at is not None:
            issues.append(Issue(field, f"deployment {name} is being deleted"))
    if not issues:
        return
    there = tx.list("Deployment", workspace=workspace, limit=_SHOWN + 1).items
    listed = _known([item.metadata.name for item in there])
    raise InvalidInput(
        [Issue(issue.field, f"{issue.message}; {listed}") for issue in issues],
        next_step="correct the name, or apply the Deployment before the Route (or with it: `podium apply` sorts them)",
    )


def _named(number: int, rule: Rule) -> Iterator[tuple[str, str]]:
    """Every place where a rule names a Deployment: the field and the name."""
    at = f"spec.rules[{number}]"
    yield from ((f"{at}.to[{place}].deployment", one.deployment) for place, one in enumerate(rule.to))
    yield from ((f"{at}.shadow[{place}].deployment", one.deployment) for place, one in enumerate(rule.shadow))
    if rule.cascade is not None:
        yield f"{at}.cascade.deployment", rule.cascade.deployment
    if rule.fallback is not None:
        for place, name in enumerate(rule.fallback.deployments):
            yield f"{at}.fallback.deployments[{place}]", name


def _check_ceiling(spec: DeploymentSpec) -> None:
    """No rule of the kind: what was stored before it was refused has to stay readable."""
    scaling = spec.scaling
    most = None if scaling is None else scaling.max_replica_hours_per_day
    if scaling is None or most is None or scaling.least_replica_hours <= most:
        return
    least = f"{scaling.least_replica_hours:g}"
    raise InvalidInput(
        Issue(
            "spec.scaling.maxReplicaHoursPerDay",
            f"expected at least {least}, got {most:g}: min {scaling.min} outranks it and takes {least} in a day",
        ),
        next_step=f"allow {least}, lower spec.scaling.min (0 lets it sleep), or leave the ceiling out",
    )


def _check_quota(tx: Read, wish: AnyResource, current: AnyResource | None) -> None:
    """Raises Refused. One writer at a time commits, so two applies cannot both take what is left."""
    workspace, name = wish.metadata.workspace, wish.metadata.name
    quota = tx.get("Workspace", DEFAULT_WORKSPACE, workspace).spec.quota
    if quota == Quota():
        return
    others = {
        item.metadata.name: item.spec
        for item in tx.list("Deployment", workspace=workspace).items
        if item.metadata.name != name and item.metadata.deletion_requested_at is None
    }
    reason = over_quota(quota, name, None if current is None else current.spec, wish.spec, others)
    if reason is not None:
        raise Refused(
            f"{wish.kind} {wish.key}: {reason}",
            next_step=f"ask for less, or have an admin raise spec.quota of Workspace {workspace}",
            details={"field": "spec.replicas" if wish.spec.scaling is None else "spec.scaling.max"},
        )


def _check_rules(tx: Read, wish: AnyResource, current: AnyResource | None) -> None:
    """Raises Refused for more rules than the workspace may put into the table of every gateway."""
    if not more_rules(None if current is None else current.spec, wish.spec):
        return
    workspace = wish.metadata.workspace
    quota = tx.get("Workspace", DEFAULT_WORKSPACE, workspace).spec.quota
    others = {
        item.metadata.name: item.spec
        for item in tx.list("Route", workspace=workspace).items
        if item.metadata.name != wish.metadata.name and item.metadata.deletion_requested_at is None
    }
    reason = over_rules(quota, wish.spec, others)
    if reason is not None:
        raise Refused(
            f"Route {wish.key}: {reason}",
            next_step=f"use fewer rules, or have an admin raise spec.quota.rules of Workspace {workspace}",
            details={"field": "spec.rules"},
        )


def _known(names: list[str]) -> str:
    if not names:
        return "there are none"
    return f"known: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"


def _asked_for(resource: AnyResource) -> dict[str, Any]:
    meta = resource.metadata
    return {
        "metadata": {"labels": meta.labels, "annotations": meta.annotations},
        "spec": resource.spec.model_dump(mode="json", by_alias=True),
    }
