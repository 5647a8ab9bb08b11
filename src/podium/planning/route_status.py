"""Whether a Route is in force, in words: a pure function of the Route, its Deployments and what gateways report.

Called by `control.routes`. Where its requests go is `planning.routes`.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from podium.resources.kinds import Deployment, Route
from podium.resources.route import RoutePhase, RouteStatus

_SOON = datetime.timedelta(seconds=0.5)
_SLOWER = datetime.timedelta(seconds=10)
_YOUNG = datetime.timedelta(minutes=1)
"""So long after a change its loading is looked for often; then something is wrong that takes longer."""
_LATER = datetime.timedelta(minutes=2)
"""Its Deployments wake it when they change; a gateway that refuses it or goes away does not: so often it looks."""
_UNSERVED = ("Pending", "Failed", "Deleting")


@dataclass(frozen=True)
class GatewayWord:
    """What one gateway has loaded, and Envoy's words where it refused the Route."""

    name: str
    observed_version: int
    refusal: str


@dataclass(frozen=True)
class RouteOutcome:
    """`new_wish`: the status speaks of another generation than before; its `version` is that of this commit."""

    status: RouteStatus
    new_wish: bool
    events: tuple[tuple[Literal["Normal", "Warning"], str, str], ...]
    next_at: datetime.datetime


def decide(
    route: Route,
    deployments: Mapping[str, Deployment | None],
    gateways: Sequence[GatewayWord],
    *,
    troubles: Sequence[str] = (),
    now: datetime.datetime,
) -> RouteOutcome:
    """The status that is due. Without any gateway a Route waits for the first. `troubles`: what keeps a rule from doing
    what it says, in words."""
    before, generation = route.status, route.metadata.generation or 0
    new_wish = before.observed_generation != generation
    behind = sorted(word.name for word in gateways if word.observed_version < before.version)
    refused = sorted((word.name, word.refusal) for word in gateways if word.refusal)
    missing = [f"{name} {why}" for name, found in deployments.items() if (why := _why_not(found))]
    missing += troubles
    loaded = not new_wish and bool(gateways) and not behind and not refused
    phase: RoutePhase
    if refused:
        phase, message = (
            "Rejected",
            f"gateway {refused[0][0]} refuses it, what was before goes on: {refused[0][1]}",
        )
    elif not loaded:
        waits = f"gateway {', '.join(behind)}" if behind else "a gateway"
        phase, message = "Pending", f"waits for {waits} to load it"
    elif missing:
        phase, message = "Degraded", "; ".join(missing)
    else:
        phase, message = "Ready", _counting_apart(route, len(gateways))
    status = before.model_copy(
        update={"phase": phase, "message": message, "observed_generation": generation, "loaded": loaded}
    )
    events: tuple[tuple[Literal["Normal", "Warning"], str, str], ...] = ()
    if phase != before.phase and phase != "Pending":
        events = (
            ("Normal" if phase == "Ready" else "Warning", phase, message or "every gateway has it loaded"),
        )
    young = new_wish or now - (route.metadata.updated_at or now) < _YOUNG
    wait = _LATER if phase in ("Ready", "Degraded") else _SOON if young else _SLOWER
    return RouteOutcome(status, new_wish, events, now + wait)


def _counting_apart(route: Route, gateways: int) -> str:
    """What the numbers of a limit mean where several gateways count, each for itself."""
    limits = route.spec.limits
    if gateways < 2 or limits is None or (limits.route is None and limits.per_caller is None):
        return ""
    return f"limits count per gateway: {gateways} gateways let {gateways} times as much through"


def _why_not(deployment: Deployment | None) -> str:
    if deployment is None:
        return "does not exist"
    if deployment.metadata.deletion_requested_at is not None:
        return "is being deleted"
    return f"is {deployment.status.phase}" if deployment.status.phase in _UNSERVED else ""
