"""Requests counted by what they asked for and by answer, and by caller where somebody can ask for that. Called by
`listener`.

Envoy counts by itself (its access logger `stats`), at a few microseconds a request. There are at most so many counters,
whatever callers do: subjects come from tokens that the server signed, and what is over the limit is not counted by
caller, but still in the second set, which knows no callers; the difference is `other` to `podium.gateway.metrics`.
"""

from typing import Any

from podium.gateway.render.access import CALLER_HEADER
from podium.gateway.render.document import typed

BY_CALLER, BY_ROUTE = "podium.callers", "podium.routes"
_MOST = {BY_CALLER: 10_000, BY_ROUTE: 50_000}
"""Counters of each set; one takes about 200 bytes."""
_ROUTE = {"route": "%ROUTE_NAME%", "code": "%RESPONSE_CODE%"}
_TAGS = {BY_CALLER: {"caller": f"%REQ({CALLER_HEADER.upper()})%", **_ROUTE}, BY_ROUTE: _ROUTE}


def counting(*, callers: bool) -> list[dict[str, Any]]:
    """The listener's access loggers. `callers`: also by caller."""
    return [_logger(prefix) for prefix in ((BY_CALLER, BY_ROUTE) if callers else (BY_ROUTE,))]


def _logger(prefix: str) -> dict[str, Any]:
    tags = [{"name": name, "value_format": said} for name, said in _TAGS[prefix].items()]
    return {
        "name": prefix,
        "typed_config": typed(
            "envoy.extensions.access_loggers.stats.v3.Config",
            stats_scope={"prefix": prefix, "max_counters": _MOST[prefix]},
            counters=[{"stat": {"name": "requests", "tags": tags}, "value_fixed": 1}],
        ),
    }
