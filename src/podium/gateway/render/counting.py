"""Requests counted by what they asked for and by the class of the answer's status, and by caller where somebody can ask
for that. Called by `listener`; `route_load`, `metrics` and `counter_room` read them.

Envoy counts by itself (its access logger `stats`), at a few microseconds a request. There are at most so many counters,
whatever callers do: subjects come from tokens that the server signed, and what is over the limit is not counted by
caller, but still in the second set, which knows no callers; the difference is `other` to `podium.gateway.metrics`. A
status is its server's to choose, and a server may have all of a thousand: so it counts as one of eight classes, and a
Route takes at most eight counters for each of its at most 64 rules.
"""

from typing import Any

from podium.gateway.render.access import CALLER_HEADER
from podium.gateway.render.document import typed

BY_CALLER, BY_ROUTE = "podium.callers", "podium.routes"
MOST = {BY_CALLER: 10_000, BY_ROUTE: 50_000}
"""Counters of each set; one takes about 200 bytes."""
REFUSED, ODD = "429", "6"
"""Classes of their own, beside the first digit: a limit or a full queue; what is no status of HTTP."""
_CLASS = f"response.code == {REFUSED} ? {REFUSED} : (response.code > 599 ? {ODD} : response.code / 100)"
_ROUTE = {"route": "%ROUTE_NAME%", "code": f"%CEL({_CLASS})%"}
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
            stats_scope={"prefix": prefix, "max_counters": MOST[prefix]},
            counters=[{"stat": {"name": "requests", "tags": tags}, "value_fixed": 1}],
        ),
    }
