"""How the replicas of a revision are protected: parts of its cluster. Called by `clusters`.

Outlier detection and breakers hold for each cluster, so for each revision in each role, and for each gateway by itself.
"""

from typing import Any

from podium.gateway.render.document import seconds
from podium.resources.traffic import CircuitBreaker, OutlierEjection

CONNECTIONS = 4000
"""Per cluster; below the 4,096 that a replica takes, so that none hangs in a queue that nobody reads."""
_NO_LIMIT = 1_000_000
_RETRIES = 1_000
"""Repeated requests under way at once: enough for all that a dying replica had, not for a storm of them."""


def breakers(wish: CircuitBreaker | None, *, most: int | None = None) -> dict[str, Any]:
    """The cluster's `circuit_breakers`. Envoy's own limits are for a fleet of proxies; without a wish there are hardly
    any, because they only turned a replica's death into failures. `most`: requests under way whatever the wish is."""
    wish = wish or CircuitBreaker()
    requests = min(wish.max_requests or _NO_LIMIT, most or _NO_LIMIT)
    limits: dict[str, Any] = {
        "max_connections": wish.max_connections or CONNECTIONS,
        "max_pending_requests": min(wish.max_pending or _NO_LIMIT, most or _NO_LIMIT),
        "max_requests": requests,
    }
    if wish.retry_budget_percent is None:
        limits["max_retries"] = _RETRIES
    else:
        limits["retry_budget"] = {
            "budget_percent": {"value": wish.retry_budget_percent},
            "min_retry_concurrency": wish.min_retry_concurrency,
        }
    return {"thresholds": [limits]}


def outliers(wish: OutlierEjection | None) -> dict[str, Any]:
    """For the cluster: its `outlier_detection`, or nothing."""
    if wish is None:
        return {}
    return {
        "outlier_detection": {
            # Lost connections and timeouts count as 502 and 504 here.
            "consecutive_gateway_failure": wish.consecutive_errors,
            "enforcing_consecutive_gateway_failure": 100,
            "enforcing_consecutive_5xx": 0,
            "enforcing_success_rate": 0,
            "interval": seconds(wish.interval),
            "base_ejection_time": seconds(wish.base_ejection),
            "max_ejection_time": seconds(max(300.0, wish.base_ejection)),
            "max_ejection_percent": wish.max_ejected_percent,
        }
    }
