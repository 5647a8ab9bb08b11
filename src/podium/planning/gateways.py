"""Which gateways a change waits for, and what is said of those that fall silent. Pure.

Called by `rollouts`; `control.gateways` reads the reports. The rule (docs/gateway.md): a change is loaded when every
gateway that is known has it loaded, and a gateway is known for a while after its last report.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

SILENT_LIMIT = datetime.timedelta(seconds=5)
"""A gateway that has not reported for this long is silent: a rollback does not wait for it, a step forward does."""
KNOWN_FOR = datetime.timedelta(minutes=10)
"""A gateway that was silent for longer is taken for gone: its Envoy is no longer waited for."""


@dataclass(frozen=True)
class GatewayView:
    """One gateway's last report."""

    name: str
    seen_at: datetime.datetime
    observed_version: int
    """Every commit up to this one is rendered and loaded there."""
    error: str = ""
    """Envoy's own words, where it refused this Deployment's route."""
    error_version: int = 0


@dataclass(frozen=True)
class GatewayInstance:
    """Who reports under a gateway's name: one start of an agent in one home folder."""

    home: str
    """The folder's own id."""
    start: str
    """Of this start of the agent."""
    host: str
    pid: int


def may_report(
    given: GatewayInstance, known: GatewayInstance, former: Sequence[str], silence: datetime.timedelta
) -> bool:
    """Whether a report counts where `known` reported last, `silence` ago. An agent that was started again in its folder
    takes the place of the one before at once, and that one (its start is in `former`) does not come back: that
    would be the copy of a folder, in use twice. From elsewhere a name is taken only once it has fallen silent."""
    if given.start == known.start or silence > SILENT_LIMIT:
        return True
    return given.home == known.home and given.start not in former


def silent_ones(views: Sequence[GatewayView], now: datetime.datetime) -> list[GatewayView]:
    """Those that have not reported lately."""
    return [view for view in views if now - view.seen_at > SILENT_LIMIT]


def lost_ones(views: Sequence[GatewayView], now: datetime.datetime, version: int) -> list[GatewayView]:
    """The silent ones of which nobody knows whether they have loaded that version."""
    return [view for view in silent_ones(views, now) if view.observed_version < version]


def not_loaded(
    views: Sequence[GatewayView], now: datetime.datetime, version: int, *, wait_for_silent: bool = True
) -> str:
    """Empty when every gateway has loaded that version, else what is waited for, in words."""
    silent = silent_ones(views, now)
    live = [view for view in views if view not in silent]
    if not live and wait_for_silent:
        heard = ", ".join(f"{view.name} at {view.seen_at:%H:%M:%S} UTC" for view in silent)
        last = f" Last heard of: {heard}." if heard else ""
        return f"waiting: no gateway reports; is `podium gateway` running?{last}"
    lost = lost_ones(views, now, version)
    if lost and wait_for_silent:
        # Times, not lengths of time: the sentence stays true while nothing happens, and is written once.
        words = [
            f"{view.name} (silent since {view.seen_at:%H:%M:%S} UTC, given up at {view.seen_at + KNOWN_FOR:%H:%M:%S})"
            for view in lost
        ]
        return (
            f"waits for gateway {', '.join(words)}; to give it up now: podium gateway forget {lost[0].name}"
        )
    behind = [view.name for view in live if view.observed_version < version]
    return f"waiting for gateway {', '.join(behind)} to load the new weights" if behind else ""
