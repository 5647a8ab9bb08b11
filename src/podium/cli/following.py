"""--wait: how a Deployment's change comes out, told as it happens, and the exit code that it means.

Called by apply, rollback and `rollout status`. The waiting itself is `Client.wait`.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from podium.cli.exits import Exit
from podium.cli.progress import Activity
from podium.cli.session import Session
from podium.resources.errors import InvalidInput, Issue

if TYPE_CHECKING:
    from podium.client import Client, RolloutOutcome, RouteOutcome
    from podium.resources.kinds import Deployment, Rollout

CODES = {
    "promoted": Exit.OK,
    "rolledBack": Exit.ROLLED_BACK,
    "held": Exit.HELD,
    "timedOut": Exit.TIMED_OUT,
    "failed": Exit.ERROR,
    "loaded": Exit.OK,
    "degraded": Exit.DEGRADED,
    "refused": Exit.ERROR,
}
"""Of a Deployment's change, and of a Route's."""
_WORDS = {
    "promoted": "promoted",
    "rolledBack": "rolled back",
    "held": "held",
    "timedOut": "timed out",
    "failed": "failed",
}
_WORST = (Exit.ERROR, Exit.ROLLED_BACK, Exit.HELD, Exit.TIMED_OUT, Exit.DEGRADED)


def seconds_of(text: str, option: str = "--timeout") -> float:
    """Seconds from `90s`, `5m`, `1h`. Raises InvalidInput naming the option."""
    from podium.resources.quantities import parse_duration

    try:
        return parse_duration(float(text) if text.replace(".", "", 1).isdigit() else text)
    except ValueError as error:
        raise InvalidInput(Issue(option, str(error))) from None


def follow(
    session: Session,
    client: "Client",
    name: str,
    *,
    workspace: str | None = None,
    generation: int | None = None,
    timeout: float,
) -> "RolloutOutcome":
    """Wait for the outcome, saying on stderr what happens meanwhile."""
    with Activity(name, quiet=not session.is_table) as activity:
        return client.wait(
            name,
            workspace=workspace,
            generation=generation,
            timeout=timeout,
            on_update=lambda deployment, rollout: activity.say(progress_words(deployment, rollout)),
        )


def progress_words(deployment: "Deployment", rollout: "Rollout | None") -> str:
    """Where it stands, in a few words; the figures that change at each look are left to `rollout watch`."""
    if rollout is not None and deployment.status.rollout == rollout.metadata.name:
        status = rollout.status
        weight = f", {status.weight} % on {rollout.spec.candidate_revision}" if status.weight else ""
        return f"{status.phase}{weight}"
    message = deployment.status.message
    return f"{deployment.status.phase}{f': {message}' if message else ''}"


def outcome_document(outcome: "RolloutOutcome | RouteOutcome") -> dict[str, Any]:
    """For -o json: outcome, message, and the route; or deployment, and the rollout or null."""
    from podium.client import RouteOutcome

    if isinstance(outcome, RouteOutcome):
        return {"outcome": outcome.outcome, "message": outcome.message, "route": outcome.route.document()}
    return {
        "outcome": outcome.outcome,
        "message": outcome.message,
        "deployment": outcome.deployment.document(),
        "rollout": outcome.rollout.document() if outcome.rollout is not None else None,
    }


def outcome_line(outcome: "RolloutOutcome") -> str:
    """One line for people, with the next step where there is one."""
    name = outcome.deployment.metadata.name
    steps = {
        "rolledBack": f"podium rollout explain {name}",
        "held": f"podium rollout promote {name}, or podium rollout abort {name}",
        "timedOut": f"podium rollout status {name}",
        "failed": f"podium describe deployment {name}",
    }
    step = f". Next: {steps[outcome.outcome]}" if outcome.outcome in steps else ""
    return f"{name} {_WORDS[outcome.outcome]}: {outcome.message}{step}"


def route_line(outcome: "RouteOutcome") -> str:
    """The same of a Route."""
    name, message = outcome.route.metadata.name, f": {outcome.message}" if outcome.message else ""
    words = {
        "loaded": f"Route {name} is in force at every gateway{message}",
        "degraded": f"Route {name} is in force, but lacks something{message}. Next: podium describe route {name}",
        "refused": f"Route {name} was refused{message}",
        "timedOut": f"Route {name} timed out{message}",
    }
    return words[outcome.outcome]


def worst(codes: Iterable[Exit]) -> Exit:
    """The code of several: an error before a rollback, a hold, a timeout, and a Route that lacks something."""
    found = set(codes)
    return next((code for code in _WORST if code in found), Exit.OK)


class Deadline:
    """Seconds that are shared by several waits."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """What remains, at least 0."""
        return max(0.0, self._end - time.monotonic())
