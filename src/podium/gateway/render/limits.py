"""How many requests a route lets through, as a filter that counts in this Envoy. Called by `rules` and `listener`.

One bucket for all and one per caller, shared by all of Envoy's threads, in the order: caller, then all. Each rule of a
Route has its own (two, if it is sticky by a cookie: with the cookie and without), and each gateway counts for itself. A
change of the route table fills every bucket: Envoy makes the limits of all routes anew then.

What is turned away is answered 429 here and reaches no cluster, so no error count and no canary sees it; it is counted
as `limit.WORKSPACE_ROUTE.http_local_rate_limit.rate_limited`.
"""

from typing import Any

from podium.gateway.render.access import CALLER_HEADER
from podium.gateway.render.document import seconds, typed
from podium.resources.traffic import Limits, RateLimit

FILTER = "envoy.filters.http.local_ratelimit"
_TYPE = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
_CALLER, _NOBODY, _ADDRESS = "caller", "nobody", "remote_address"
_ALWAYS = {"default_value": {"numerator": 100}}
_LEAST_INTERVAL = 0.05
"""Seconds; Envoy fills no bucket more often."""
_ENDLESS = {"max_tokens": 2**32 - 1, "tokens_per_fill": 2**32 - 1, "fill_interval": seconds(_LEAST_INTERVAL)}
"""Envoy wants a bucket for all, also where only callers are counted."""


ON = {FILTER: typed(_TYPE, stat_prefix="podium", token_bucket=_ENDLESS)}
"""For a route's `typed_per_filter_config`: that the filter is on, without a limit of this route."""


def limiting() -> dict[str, Any]:
    """The filter in the listener, which lets everything through; a route's own settings take its place."""
    return {"name": FILTER, "typed_config": typed(_TYPE, stat_prefix="podium")}


def limits(limits: Limits | None, workspace: str, route: str) -> dict[str, Any]:
    """For the route's `typed_per_filter_config`: one entry, or none where nothing is limited.

    Answers bear Envoy's `x-ratelimit-limit`, `-remaining` and `-reset` (draft 03 of the IETF's RateLimit fields, with
    their old names), and 429 has `retry-after` in seconds.
    """
    if limits is None or (limits.route is None and limits.per_caller is None):
        return {}
    more: dict[str, Any] = {}
    if limits.per_caller is not None:
        bucket = _bucket(limits.per_caller)
        more = {
            "rate_limits": _WHO,
            "descriptors": [
                {"entries": [{"key": _CALLER}], "token_bucket": bucket},
                {"entries": [{"key": _NOBODY, "value": "true"}, {"key": _ADDRESS}], "token_bucket": bucket},
            ],
            "max_dynamic_descriptors": limits.callers,
        }
    settings = typed(
        _TYPE,
        # '_' cannot occur in a name, and a '.' would be one more level.
        stat_prefix=f"limit.{workspace}_{route}",
        token_bucket=_ENDLESS if limits.route is None else _bucket(limits.route),
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        enable_retry_after_header=True,
        rate_limited_as_resource_exhausted=True,
        **more,
    )
    return {FILTER: settings}


_WHO = [
    {"actions": [{"request_headers": {"header_name": CALLER_HEADER, "descriptor_key": _CALLER}}]},
    # Without a name: by address. Envoy takes it from the connection, so no client chooses it.
    {
        "actions": [
            {
                "header_value_match": {
                    "descriptor_key": _NOBODY,
                    "descriptor_value": "true",
                    "expect_match": False,
                    "headers": [{"name": CALLER_HEADER, "present_match": True}],
                }
            },
            {"remote_address": {}},
        ]
    },
]
"""One of the two makes a descriptor of each request: whose bucket it takes from."""


def _bucket(limit: RateLimit) -> dict[str, Any]:
    """Envoy fills a bucket evenly, whatever the interval: `tokens_per_fill / fill_interval` is a rate to it."""
    return {
        "max_tokens": limit.bucket,
        "tokens_per_fill": limit.requests,
        "fill_interval": seconds(max(limit.per, _LEAST_INTERVAL)),
    }
