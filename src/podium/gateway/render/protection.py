"""How the replicas of a revision are protected: parts of its cluster, and an adaptive limit on a route.

Called by `clusters` (`breakers`, `outliers`), `rules` (`adaptive`) and `listener` (`adapting`). Outlier detection and
breakers hold for each cluster, so for each revision in each role, and for each gateway by itself.
"""

from typing import Any

from podium.gateway.render.document import seconds, typed
from podium.gateway.render.only_for import header, switched_on
from podium.resources.traffic import AdaptiveConcurrency, CircuitBreaker, OutlierEjection

FILTER = "podium.adaptive"
CONNECTIONS = 4000
"""Per cluster; below the 4,096 that a replica takes, so that none hangs in a queue that nobody reads."""
_NO_LIMIT = 1_000_000
_RETRIES = 1_000
"""Repeated requests under way at once: enough for all that a dying replica had, not for a storm of them."""
_MATCHING = "envoy.extensions.common.matching.v3."
ON = switched_on(FILTER)
"""For a route's `typed_per_filter_config`: that the adaptive filter is on, without a limit of this route."""


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


def adapting() -> dict[str, Any]:
    """The filter in the listener, which does nothing; a route's own settings put a limit of its own in its place."""
    nothing = typed("envoy.extensions.filters.http.composite.v3.Composite")
    skip = typed("envoy.extensions.filters.common.matcher.action.v3.SkipFilter")
    return {
        "name": FILTER,
        "typed_config": typed(
            f"{_MATCHING}ExtensionWithMatcher",
            extension_config={"name": FILTER, "typed_config": nothing},
            xds_matcher=_for_all({"name": "skip", "typed_config": skip}),
        ),
    }


def adaptive(wish: AdaptiveConcurrency | None) -> dict[str, Any]:
    """For the route's `typed_per_filter_config`: one entry, or none. A change of the route table starts it anew."""
    if wish is None:
        return {}
    limit = typed(
        "envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
        enabled={"default_value": True, "runtime_key": "podium.adaptive"},
        gradient_controller_config={
            "sample_aggregate_percentile": {"value": wish.percentile},
            "concurrency_limit_params": {
                "concurrency_update_interval": seconds(wish.update_interval),
                "max_concurrency_limit": wish.max_concurrency,
            },
            "min_rtt_calc_params": {
                "interval": seconds(wish.idle_latency_interval),
                "request_count": wish.idle_latency_requests,
                "min_concurrency": wish.min_concurrency,
            },
        },
    )
    run = typed(
        "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction",
        typed_config={"name": "envoy.filters.http.adaptive_concurrency", "typed_config": limit},
    )
    matcher = _for_all({"name": "limit", "typed_config": run})
    return {FILTER: typed(f"{_MATCHING}ExtensionWithMatcherPerRoute", xds_matcher=matcher)}


def _for_all(action: dict[str, Any]) -> dict[str, Any]:
    """Envoy asks for a predicate; this one holds for every request."""
    always = header(":path", {"prefix": "/"})
    return {"matcher_list": {"matchers": [{"predicate": always, "on_match": {"action": action}}]}}
