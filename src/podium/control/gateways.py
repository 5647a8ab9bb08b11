"""What the gateways report, as the reconcilers need it."""

import datetime
import time

from podium.planning.gateways import KNOWN_FOR, GatewayView
from podium.store import Store

_EVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_RETURN_SECONDS = 30.0
_STARTED = time.monotonic()
__all__ = ["KNOWN_FOR", "known_gateways", "lowest_observed"]


def known_gateways(
    store: Store, at: datetime.datetime, *, workspace: str, deployment: str
) -> list[GatewayView]:
    """Every gateway that reported in the last ten minutes, with Envoy's words where it refused this Deployment."""
    views = []
    for row in store.gateways(since=at - KNOWN_FOR):
        refusal = next(
            (
                item
                for item in row.rejected
                if item.get("workspace") == workspace and item.get("deployment") == deployment
            ),
            None,
        )
        views.append(
            GatewayView(
                name=row.name,
                seen_at=row.seen_at,
                observed_version=row.observed_version,
                error=str(refusal.get("error", "")) if refusal else "",
                error_version=int(refusal.get("version", 0)) if refusal else 0,
            )
        )
    return views


def lowest_observed(store: Store, at: datetime.datetime, *, workspace: str, deployment: str) -> int | None:
    """The version that every known gateway has loaded for this Deployment, silent ones included; None where there has
    never been a gateway. One that refused the Deployment's route still has the one before that."""
    views = known_gateways(store, at, workspace=workspace, deployment=deployment)
    if not views:
        # After a long sleep or outage all reports are old: gateways get a while to report again before they are given
        # up for gone.
        rows = store.gateways(since=_EVER)
        if not rows or time.monotonic() - _STARTED > _RETURN_SECONDS:
            return None
        return min(row.observed_version for row in rows)
    return min(view.error_version - 1 if view.error else view.observed_version for view in views)
