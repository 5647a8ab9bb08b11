"""Filters that most requests do not concern are off, and the route that a request meets first switches them on.

Envoy makes a request's filters once, by the route that it finds before any of them has run; one that is off costs
nothing then. Calls of gRPC, version 1 paths and requests for streams meet a route of their own here, first in the
table, with everything on. Two filters let them pass: a note that this is done, and another look at the table, in which
such a route no longer matches. From there on they take the routes of everybody. Who comes here without need loses some
microseconds and nothing else. Limits and the like are switched on by the settings of a route that has some.

Called by `listener` (`off`, `passing`), `routes` (`entrances`) and `rules` (`alike`).
"""

from collections.abc import Sequence
from typing import Any

from podium.gateway.render import adaptive, fallback, grpc, limits, streams, v1, variants
from podium.gateway.render.document import typed
from podium.gateway.render.problem import answer

_NOTE, _AGAIN = "podium.entrance.note", "podium.entrance.again"
_PASSED = "passed"
_PER_FILTER = "typed_per_filter_config"
_SETTINGS = {**limits.ON, **fallback.ON, **adaptive.ON, **variants.ON}
"""The filters that routes have settings for of their own."""


def off(*filters: dict[str, Any]) -> list[dict[str, Any]]:
    """The filters, off for requests whose first route does not have settings for them."""
    return [{**one, "disabled": True} for one in filters]


def passing() -> list[dict[str, Any]]:
    """The filters in front of all others."""
    return [{"name": name, "typed_config": settings} for name, settings in _filters().items()]


def entrances() -> list[dict[str, Any]]:
    """The first routes of the table."""
    on = {**_filters(), **grpc.ON, **v1.ON, **streams.ON, **_SETTINGS}
    # Notes stand in the request's metadata, which no client can write.
    passed = {"filter": _NOTE, "path": [{"key": _PASSED}], "value": {"present_match": True}, "invert": True}
    # An Envoy that still has the filters of a version before this one.
    said = answer("unavailable", 503, "the gateway is being brought up to date")
    return [
        {
            "match": {**match, "dynamic_metadata": [passed]},
            "direct_response": said,
            _PER_FILTER: on,
        }
        for match in (*grpc.MATCHES, *v1.MATCHES, *streams.MATCHES)
    ]


def alike(routes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The routes of one Route, with each filter on in all of them that one of them has settings for. What a token says
    is known only when the filters run, and then another rule may match than the one that they were made by."""
    wanted = {name for route in routes for name in route.get(_PER_FILTER, {})}
    on = {name: settings for name, settings in _SETTINGS.items() if name in wanted}
    return [{**route, _PER_FILTER: {**on, **route.get(_PER_FILTER, {})}} if on else route for route in routes]


def _filters() -> dict[str, dict[str, Any]]:
    """name -> settings, in the listener as on a route."""
    note = {"metadata_namespace": _NOTE, "value": {_PASSED: True}}
    return {
        _NOTE: typed("envoy.extensions.filters.http.set_metadata.v3.Config", metadata=[note]),
        _AGAIN: typed("envoy.extensions.filters.http.set_filter_state.v3.Config", clear_route_cache=True),
    }
