"""What the gateways report, as the reconcilers need it."""

import datetime

from podium.planning.rollouts import GatewayView
from podium.store import Store

KNOWN_FOR = datetime.timedelta(minutes=10)
"""A gateway that was silent for longer is taken for gone: its Envoy is no longer waited for."""


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


def lowest_observed(store: Store, at: datetime.datetime) -> int | None:
    """The version that every known gateway has loaded, silent ones included; None when there is no gateway."""
    return min((row.observed_version for row in store.gateways(since=at - KNOWN_FOR)), default=None)
