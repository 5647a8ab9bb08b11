"""How a Deployment's or a Route's last change comes out. Run by both clients."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from podium.client import operations
from podium.client.effects import Operation, Pause
from podium.resources.errors import NotFound, Unavailable
from podium.resources.kinds import Deployment, Rollout, Route

_LOOK = 0.25
_SETTLES = 3.0
"""A Route's status follows its Deployments by this many seconds at most: what it lacks for longer, it lacks."""


@dataclass(frozen=True)
class RolloutOutcome:
    """`rollout` is None where nothing had to be rolled out, or it ended before anyone looked.

    promoted: the wish is what is served. rolledBack: it was taken back. held: inconclusive, a person must decide.
    failed: the Deployment cannot serve what it asks for. timedOut: none of these in time.
    """

    outcome: Literal["promoted", "rolledBack", "held", "failed", "timedOut"]
    deployment: Deployment
    rollout: Rollout | None
    message: str


@dataclass(frozen=True)
class RouteOutcome:
    """loaded: in force at every gateway, and all that it names is served. degraded: in force, but it lacks what the
    message says, and nothing is under way that would bring it (or not in time). refused: Envoy does not take it, and
    what was before goes on. timedOut: not in force in time."""

    outcome: Literal["loaded", "degraded", "refused", "timedOut"]
    route: Route
    message: str


def wait_route(
    name: str, workspace: str, *, generation: int | None, timeout: float
) -> Operation[RouteOutcome]:
    """Looks until every gateway has the Route loaded, or `timeout` seconds have passed. While a Deployment of it is
    being started, that is waited for."""
    deadline = time.monotonic() + timeout
    lacks_since: float | None = None
    while True:
        route: Route = yield from operations.get("Route", name, workspace)
        status = route.status
        if status.observed_generation >= (generation or route.metadata.generation or 0):
            if status.loaded and status.phase != "Degraded":
                return RouteOutcome("loaded", route, status.message)
            if not status.loaded or (yield from _starting(route, workspace)):
                lacks_since = None
            else:
                lacks_since = lacks_since or time.monotonic()
                if time.monotonic() - lacks_since >= _SETTLES:
                    return RouteOutcome("degraded", route, status.message)
            if status.phase == "Rejected":
                return RouteOutcome("refused", route, status.message)
        if time.monotonic() >= deadline:
            late: Literal["degraded", "timedOut"] = "degraded" if status.phase == "Degraded" else "timedOut"
            return RouteOutcome(late, route, status.message or status.phase)
        yield Pause(min(_LOOK, max(0.0, deadline - time.monotonic())))


def _starting(route: Route, workspace: str) -> Operation[bool]:
    """Whether a Deployment that it names is on its way to be served."""
    for name in route.spec.deployments:
        try:
            found: Deployment = yield from operations.get("Deployment", name, workspace)
        except NotFound:
            continue
        if found.status.phase == "Pending":
            return True
    return False


def wait(
    name: str,
    workspace: str,
    *,
    generation: int | None,
    timeout: float,
    on_update: Callable[[Deployment, Rollout | None], object] | None,
) -> Operation[RolloutOutcome]:
    """Looks until it is decided, or `timeout` seconds have passed. A server that is away for a while is waited for.

    generation: of the change that is meant (`metadata.generation` of the apply's answer); None: the present one.
    on_update: told the state at each look.
    """
    deadline = time.monotonic() + timeout
    deployment = yield from operations.get("Deployment", name, workspace)
    wanted = deployment.metadata.generation if generation is None else generation
    followed: str | None = None
    rollout: Rollout | None = None
    while True:
        try:
            deployment = yield from operations.get("Deployment", name, workspace)
            followed = deployment.status.rollout or followed
            rollout = (yield from _find_rollout(followed, workspace)) if followed else None
            if on_update is not None:
                on_update(deployment, rollout)
            if deployment.status.observed_generation >= (wanted or 0):
                outcome = _outcome(deployment, rollout)
                if outcome is not None:
                    return outcome
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
        if time.monotonic() >= deadline:
            words = rollout.status.message if rollout is not None else deployment.status.message
            words = f"nothing is decided after {timeout:g} s: {words or deployment.status.phase}"
            return RolloutOutcome("timedOut", deployment, rollout, words)
        yield Pause(min(_LOOK, max(0.0, deadline - time.monotonic())))


def _find_rollout(name: str, workspace: str) -> Operation[Rollout | None]:
    try:
        found: Rollout = yield from operations.get("Rollout", name, workspace)
    except NotFound:
        return None
    return found


def _outcome(deployment: Deployment, rollout: Rollout | None) -> RolloutOutcome | None:
    """None while it goes on."""
    status = deployment.status
    if rollout is not None and status.rollout == rollout.metadata.name:
        if rollout.status.phase == "Held":
            return RolloutOutcome("held", deployment, rollout, rollout.status.message)
        return None
    if status.rejected is not None and status.rejected.generation >= status.observed_generation:
        mine = rollout if rollout is not None and rollout.metadata.name == status.rejected.rollout else None
        return RolloutOutcome("rolledBack", deployment, mine, status.rejected.reason)
    if status.rollout is not None:
        return None
    if status.phase == "Failed":
        return RolloutOutcome("failed", deployment, rollout, status.message)
    off = deployment.spec.replicas == 0 and deployment.spec.scaling is None
    if off and status.phase == "Ready" and status.stable_revision is not None:
        words = f"it has no replicas; {status.latest_revision} is rolled out when spec.replicas is raised"
        return RolloutOutcome("promoted", deployment, rollout, words)
    served = status.stable_revision is not None and status.stable_revision == status.latest_revision
    if served and status.phase == "Ready":
        words = f"{status.stable_revision} serves version {status.served_version}"
        return RolloutOutcome("promoted", deployment, rollout, words)
    return None
