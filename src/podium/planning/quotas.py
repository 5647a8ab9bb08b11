"""Whether a Deployment or a Route fits into its workspace's quota, and how much of that is used. Called by the API when
one is applied and when a Workspace is read.

What counts is what Deployments may ask for: `replicas` (with scaling: its `max` and its warm ones), and that number
x `resources.memory`. A rollout, during which both revisions run, is not counted twice: a quota would otherwise keep a
team from mending its model. Of Routes their rules count: those of all workspaces stand in one table at every gateway.
"""

from collections.abc import Callable, Iterable, Mapping

from podium.resources.deployment import DeploymentSpec
from podium.resources.kinds import Deployment, Route, Workspace
from podium.resources.load import QuotaLoad
from podium.resources.model import Quota, QuotaUse
from podium.resources.quantities import format_size
from podium.resources.route import RouteSpec

_SHOWN = 5
"""Deployments or Routes that a refusal names, those that ask for most first."""


def over_quota(
    quota: Quota,
    name: str,
    before: DeploymentSpec | None,
    after: DeploymentSpec,
    others: Mapping[str, DeploymentSpec],
) -> str | None:
    """Return why the Deployment `name` must not ask for `after` instead of `before`, or None if it may.

    `others`: the other Deployments of the workspace by name. One that asks for no more of a thing than it did is never
    refused for it: a workspace that is over its quota, because that was lowered, must be able to shrink.
    """
    for allowed, thing, asked, written in (
        (quota.replicas, "replicas", _replicas, str),
        (quota.memory, "memory", _memory, format_size),
    ):
        if allowed is None or (before is not None and asked(after) <= asked(before)):
            continue
        taken = {other: asked(spec) for other, spec in others.items() if asked(spec)}
        refused = _over(allowed, thing, asked(after), taken, written)
        if refused is not None:
            return refused
    return None


def more_rules(before: RouteSpec | None, after: RouteSpec) -> bool:
    """Whether a Route asks for more than it did: the others need not be counted for one that does not."""
    return before is None or len(after.rules) > len(before.rules)


def over_rules(quota: Quota, after: RouteSpec, others: Mapping[str, RouteSpec]) -> str | None:
    """Return why a Route that asks for more than before (`more_rules`) must not ask for `after`, or None if it may.

    `others`: the other Routes of the workspace by name.
    """
    taken = {other: len(spec.rules) for other, spec in others.items()}
    return _over(quota.rules, "rules", len(after.rules), taken, str)


def quota_use(deployments: Iterable[Deployment], routes: Iterable[Route]) -> QuotaUse:
    """What these of one workspace ask for together; those that are being deleted no longer do."""
    counted = [one for one in deployments if one.metadata.deletion_requested_at is None]
    return QuotaUse(
        replicas=sum(_replicas(one.spec) for one in counted),
        memory=sum(_memory(one.spec) for one in counted),
        rules=sum(len(one.spec.rules) for one in routes if one.metadata.deletion_requested_at is None),
        deployments=len(counted),
        ready_replicas=sum(one.status.ready_replicas for one in counted),
    )


def quota_load(workspace: Workspace, deployments: Iterable[Deployment], routes: Iterable[Route]) -> QuotaLoad:
    """deployments, routes: all of that workspace."""
    used, quota = quota_use(deployments, routes), workspace.spec.quota
    return QuotaLoad(
        workspace=workspace.metadata.name,
        replicas=used.replicas,
        replica_limit=quota.replicas,
        memory=used.memory,
        memory_limit=quota.memory,
        rules=used.rules,
        rule_limit=quota.rules,
    )


def _replicas(spec: DeploymentSpec) -> int:
    return spec.most_replicas


def _memory(spec: DeploymentSpec) -> int:
    return spec.most_replicas * spec.resources.memory


def _over(
    allowed: int, thing: str, asked: int, taken: Mapping[str, int], written: Callable[[int], str]
) -> str | None:
    """The refusal of what is more than `allowed` together with what others have taken."""
    total = asked + sum(taken.values())
    if total <= allowed:
        return None
    return (
        f"quota of {thing}: {written(asked)} asked for, {_taken(taken, written)}; the workspace may have "
        f"{written(allowed)}, so this is {written(total - allowed)} over"
    )


def _taken(taken: Mapping[str, int], written: Callable[[int], str]) -> str:
    if not taken:
        return "nothing taken by others"
    most = sorted(taken, key=lambda name: (-taken[name], name))
    names = ", ".join(f"{name} {written(taken[name])}" for name in most[:_SHOWN])
    more = f", {len(most) - _SHOWN} more" if len(most) > _SHOWN else ""
    return f"{written(sum(taken.values()))} taken by others ({names}{more})"
