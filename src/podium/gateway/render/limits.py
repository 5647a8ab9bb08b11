"""How many requests a Route lets through, as a filter that counts in this Envoy.

The buckets are in a filter of the listener whose settings come by themselves (ECDS), and not in the route table: a
change of routes makes all that it holds anew, and a bucket that is made anew is full. A route says in its metadata
which limit holds and for which Route, and switches the filter on; the filter knows the limits that there are, and keeps
a bucket of each for whoever comes. So all routes of a Route share their buckets, and they are made anew with the
gateway, or when numbers come that no limit had before: then all of them are.

Called by `traffic`, `listener` and `loader`.

What is turned away is answered 429 here and reaches no cluster, so no error count and no canary sees it; `turned_away`
counts it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
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
MOST_COUNTERS = 10_000
"""One per Route that has turned somebody away; each takes about 200 bytes."""
_LIMIT, _ROUTE, _CALLER, _NOBODY, _ADDRESS = "limit", "route", "caller", "nobody", "remote_address"
_ALL, _EACH = "all", "each"
"""A Route's limits, as its routes note them."""
_LEAST_ROOM, _STEP = 64, 4
_EXTENSION = "envoy.config.core.v3.TypedExtensionConfig"
_ALWAYS = {"default_value": {"numerator": 100}}
_LEAST_INTERVAL = 0.05
"""Seconds; Envoy fills no bucket more often."""


@dataclass(frozen=True)
class Counted:
    """What the filter counts: a bucket for each value of each descriptor. `room`: how many of one descriptor are kept;
    beyond it the one that was quiet for longest begins afresh."""

    descriptors: frozenset[bytes] = frozenset()
    room: int = _LEAST_ROOM

    def has(self, wanted: "Counted") -> bool:
        """Is nothing missing? What is too much does no harm, and to take it out would fill all buckets."""
        return wanted.descriptors <= self.descriptors and wanted.room <= self.room

    def with_all_of(self, other: "Counted") -> "Counted":
        """Both together."""
        return Counted(self.descriptors | other.descriptors, max(self.room, other.room))


def buckets(limits: Limits | None) -> dict[bytes, int]:
    """Descriptor -> how many buckets of it the Route needs. Routes with the same numbers have the same descriptors."""
    if limits is None:
        return {}
    found: list[tuple[list[dict[str, str]], RateLimit, int]] = []
    # An entry without a value: a bucket for each value there is.
    if limits.route is not None:
        found.append(([], limits.route, 1))
    if limits.per_caller is not None:
        nobody = [{"key": _NOBODY, "value": "true"}, {"key": _ADDRESS}]
        found += [(who, limits.per_caller, limits.callers) for who in ([{"key": _CALLER}], nobody)]
    return {
        fragment(
            {
                "entries": [*who, {"key": _LIMIT, "value": _numbers(limit)}, {"key": _ROUTE}],
                "token_bucket": _bucket(limit),
            }
        ): needed
        for who, limit, needed in found
    }


def together(held: Iterable[Mapping[bytes, int]]) -> Counted:
    """What is to be counted for Routes that need these buckets. The room grows in large steps: each fills them all."""
    needed: Counter[bytes] = Counter()
    for one in held:
        needed.update(one)
    room = _LEAST_ROOM
    while room < max(needed.values(), default=0):
        room *= _STEP
    return Counted(frozenset(needed), room)


def limits_document(counted: Counted) -> Document:
    """The settings of the filter.

    Answers bear Envoy's `x-ratelimit-limit`, `-remaining` and `-reset` (draft 03 of the IETF's RateLimit fields, with
    their old names), and 429 has `retry-after` in seconds. Of two buckets Envoy takes from the one first that fills
    more slowly, in a tie from the caller's: who is refused there takes nothing from the other.
    """
    settings = typed(
        _TYPE,
        stat_prefix="podium.limits",
        rate_limits=_WHOSE,
        descriptors=[orjson.loads(one) for one in sorted(counted.descriptors)],
        max_dynamic_descriptors=counted.room,
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        enable_retry_after_header=True,
        rate_limited_as_resource_exhausted=True,
    )
    return document([fragment(typed(_EXTENSION, name=FILTER, typed_config=settings))])


def read_counted(content: bytes) -> Counted:
    """What a document says that an agent before this one wrote."""
    settings = orjson.loads(content)["resources"][0]["typed_config"]
    return Counted(
        frozenset(fragment(one) for one in settings["descriptors"]), int(settings["max_dynamic_descriptors"])
    )


def limited(limits: Limits | None, workspace: str, route: str) -> dict[str, Any]:
    """For a rendered route: `metadata` that says whose buckets it takes from, and `typed_per_filter_config` that has
    the filter on; or nothing."""
    if limits is None:
        return {}
    kinds = {_ALL: limits.route, _EACH: limits.per_caller}
    # '/' cannot occur in a name.
    name = f"{workspace}/{route}"
    noted = {
        kind: {_LIMIT: _numbers(limit), _ROUTE: name} for kind, limit in kinds.items() if limit is not None
    }
    if not noted:
        return {}
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
            stats_scope={"prefix": TURNED_AWAY, "max_counters": MOST_COUNTERS},
            counters=[counter],
        ),
    }


def _noted(kind: str) -> list[dict[str, Any]]:
    """The actions that tell the limit and the Route's name, where the route notes a limit of this kind."""
    return [
        {
            "metadata": {
                "descriptor_key": what, "source": "ROUTE_ENTRY",
                "metadata_key": {"key": FILTER, "path": [{"key": kind}, {"key": what}]},
            }
        }
        for what in (_LIMIT, _ROUTE)
    ]  # fmt: skip


_NAMED = {"request_headers": {"header_name": CALLER_HEADER, "descriptor_key": _CALLER}}
_NAMELESS = {
    "header_value_match": {
        "descriptor_key": _NOBODY,
        "descriptor_value": "true",
        "expect_match": False,
        "headers": [{"name": CALLER_HEADER, "present_match": True}],
    }
}
_WHOSE = [
    {"actions": [_NAMED, *_noted(_EACH)]},
    # Without a name: by address. Envoy takes it from the connection, so no client chooses it.
    {"actions": [_NAMELESS, {"remote_address": {}}, *_noted(_EACH)]},
    {"actions": _noted(_ALL)},
]
"""Whose buckets a request takes from: one of the first two, and the third. What finds nothing to say is left out."""


def _numbers(limit: RateLimit) -> str:
    """What a limit is known by."""
    return f"{limit.requests}/{_interval(limit)}/{limit.bucket}"


def _interval(limit: RateLimit) -> str:
    return seconds(max(limit.per, _LEAST_INTERVAL))


def _bucket(limit: RateLimit) -> dict[str, Any]:
    """Envoy fills a bucket evenly, whatever the interval: `tokens_per_fill / fill_interval` is a rate to it."""
    return {
        "max_tokens": limit.bucket,
        "tokens_per_fill": limit.requests,
        "fill_interval": _interval(limit),
    }
