"""How many requests a Route lets through, as a filter that counts in this Envoy.

The buckets are in a filter of the listener whose settings come by themselves (ECDS), and not in the route table: a
change of routes makes all that it holds anew, and a bucket that is made anew is full. A route only names its Route in
its metadata and switches the filter on; the filter finds the Route's buckets by that name. So all routes of a Route
share them, and they are made anew with the gateway, or when a limit comes or changes: then all of them are.

Called by `traffic`, `listener` and `loader`.

What is turned away is answered 429 here and reaches no cluster, so no error count and no canary sees it; `turned_away`
counts it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from podium.gateway.render.access import CALLER_HEADER
from podium.gateway.render.document import Document, document, fragment, seconds, typed
from podium.gateway.settings import LIMITS
from podium.resources.traffic import Limits, RateLimit

FILTER = "podium.limits"
_TYPE = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
FILTERS = {LIMITS: (FILTER, _TYPE)}
"""kind of document -> the filter's name and type."""
ON = {FILTER: typed("envoy.config.route.v3.FilterConfig", config={})}
"""For a route's `typed_per_filter_config`: that the filter is on."""
TURNED_AWAY = "podium.limited"
_MOST_COUNTERS = 10_000
"""One per Route that has turned somebody away; each takes about 200 bytes."""
_ROUTE, _CALLER, _NOBODY, _ADDRESS = "route", "caller", "nobody", "remote_address"
_ALL, _EACH = "all", "each"
"""What a route notes about its Route's limits: the name, under each kind of limit that there is."""
_EXTENSION = "envoy.config.core.v3.TypedExtensionConfig"
_ALWAYS = {"default_value": {"numerator": 100}}
_LEAST_INTERVAL = 0.05
"""Seconds; Envoy fills no bucket more often."""
_NAME = re.compile(r"(?P<workspace>[^/]+)/(?P<route>.+)")


@dataclass(frozen=True)
class Buckets:
    """What one Route adds to the document. `callers`: how many are told apart at least."""

    callers: int
    descriptors: tuple[bytes, ...]

    def more_than(self, before: "Buckets | None") -> bool:
        """Is this something that a document with `before` lacks? What is too much in it does no harm, and to take it
        out would fill all the others."""
        return before is None or before.descriptors != self.descriptors or before.callers < self.callers


def buckets(limits: Limits | None, workspace: str, route: str) -> Buckets | None:
    """The Route's buckets; None where nothing is limited."""
    if limits is None or not _limited(limits):
        return None
    named = {"key": _ROUTE, "value": _name(workspace, route)}
    found: list[dict[str, Any]] = []
    if limits.route is not None:
        found.append({"entries": [named], "token_bucket": _bucket(limits.route)})
    if limits.per_caller is not None:
        bucket = _bucket(limits.per_caller)
        # An entry without a value: a bucket for each value there is.
        found.append({"entries": [named, {"key": _CALLER}], "token_bucket": bucket})
        nobody = [{"key": _NOBODY, "value": "true"}, {"key": _ADDRESS}, named]
        found.append({"entries": nobody, "token_bucket": bucket})
    callers = limits.callers if limits.per_caller is not None else 1
    return Buckets(callers, tuple(sorted(fragment(one) for one in found)))


def limits_document(held: Iterable[Buckets]) -> Document:
    """The settings of the filter: the buckets of all Routes.

    Answers bear Envoy's `x-ratelimit-limit`, `-remaining` and `-reset` (draft 03 of the IETF's RateLimit fields, with
    their old names), and 429 has `retry-after` in seconds. Of two buckets Envoy takes from the one first that fills
    more slowly, in a tie from the caller's: who is refused there takes nothing from the other.
    """
    own = tuple(held)
    settings = typed(
        _TYPE,
        stat_prefix="podium.limits",
        rate_limits=_WHOSE,
        descriptors=[orjson.loads(one) for one in sorted(one for held in own for one in held.descriptors)],
        max_dynamic_descriptors=max((one.callers for one in own), default=1),
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        enable_retry_after_header=True,
        rate_limited_as_resource_exhausted=True,
    )
    return document([fragment(typed(_EXTENSION, name=FILTER, typed_config=settings))])


def read_buckets(content: bytes) -> dict[tuple[str, str], Buckets]:
    """(workspace, Route's name) -> its buckets in a document that an agent before this one wrote."""
    settings = orjson.loads(content)["resources"][0]["typed_config"]
    found: dict[tuple[str, str], list[bytes]] = {}
    for one in settings.get("descriptors", ()):
        values = [entry.get("value", "") for entry in one["entries"] if entry["key"] == _ROUTE]
        named = _NAME.fullmatch(values[0]) if values else None
        if named is not None:
            found.setdefault((named["workspace"], named["route"]), []).append(fragment(one))
    callers = int(settings["max_dynamic_descriptors"])
    return {key: Buckets(callers, tuple(sorted(own))) for key, own in found.items()}


def limited(limits: Limits | None, workspace: str, route: str) -> dict[str, Any]:
    """For a rendered route: `metadata` that names its Route, and `typed_per_filter_config` that has the filter on; or
    nothing. Neither says how many requests: another limit changes no route."""
    if limits is None or not _limited(limits):
        return {}
    kinds = {_ALL: limits.route, _EACH: limits.per_caller}
    noted = {kind: _name(workspace, route) for kind, limit in kinds.items() if limit is not None}
    return {"metadata": {"filter_metadata": {FILTER: noted}}, "typed_per_filter_config": dict(ON)}


def turned_away() -> dict[str, Any]:
    """An access logger of the listener that counts what the limits refuse, by Route: `podium.limited.requests`."""
    counter = {
        "stat": {"name": "requests", "tags": [{"name": "route", "value_format": "%ROUTE_NAME%"}]},
        "value_fixed": 1,
    }
    return {
        "name": TURNED_AWAY,
        "filter": {"response_flag_filter": {"flags": ["RL"]}},
        "typed_config": typed(
            "envoy.extensions.access_loggers.stats.v3.Config",
            stats_scope={"prefix": TURNED_AWAY, "max_counters": _MOST_COUNTERS},
            counters=[counter],
        ),
    }


def _noted(kind: str) -> dict[str, Any]:
    """The action that tells the Route's name, where the route notes it under this kind of limit."""
    place = {"key": FILTER, "path": [{"key": kind}]}
    return {"metadata": {"descriptor_key": _ROUTE, "source": "ROUTE_ENTRY", "metadata_key": place}}


_WHOSE = [
    {
        "actions": [
            _noted(_EACH),
            {"request_headers": {"header_name": CALLER_HEADER, "descriptor_key": _CALLER}},
        ]
    },
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
            _noted(_EACH),
        ]
    },
    {"actions": [_noted(_ALL)]},
]
"""Whose buckets a request takes from: one of the first two, and the third. What finds nothing to say is left out."""


def _limited(limits: Limits) -> bool:
    return limits.route is not None or limits.per_caller is not None


def _name(workspace: str, route: str) -> str:
    return f"{workspace}/{route}"


def _bucket(limit: RateLimit) -> dict[str, Any]:
    """Envoy fills a bucket evenly, whatever the interval: `tokens_per_fill / fill_interval` is a rate to it."""
    return {
        "max_tokens": limit.bucket,
        "tokens_per_fill": limit.requests,
        "fill_interval": seconds(max(limit.per, _LEAST_INTERVAL)),
    }
