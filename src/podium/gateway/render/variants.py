"""A user's variant in a rule that asks others in turn: drawn first, and then a route of that variant's own. Called by
`rules`, `listener` (`drawing`) and `entrance` (`ON`).

A route with stages (`attempts`) draws the arms of a stage at random, whatever the user's key. So such a rule has a
route that draws one arm by the key, as a rule without stages does, but sends nothing there: with the arm that was drawn
comes a setting of a filter that notes it, another filter has the table looked at once more, and there the note leads to
a route whose first stage is this arm alone. The weights stay where those of other sticky rules are, so do the users.
"""

from collections.abc import Iterable
from typing import Any

from podium.gateway.render.document import typed
from podium.gateway.render.only_for import only_for, switched_on

_NOTE, _AGAIN = "podium.variant", "podium.variant.again"
_TYPE = "envoy.extensions.filters.http.set_filter_state.v3.Config"
_DRAWN = "podium.variant.drawn"
"""Where the cluster that was drawn is noted: a state of the request that no client can write."""
ON = {_NOTE: typed(_TYPE), **switched_on(_AGAIN)}
"""For a route's `typed_per_filter_config`: that the filters are on, and do nothing."""


def drawing() -> list[dict[str, Any]]:
    """The filters in the listener: one that notes what a route's own settings say, and one that has the table looked at
    again for requests with a note. For the others that would be for nothing."""
    drawn = typed("envoy.extensions.matching.common_inputs.network.v3.FilterStateInput", key=_DRAWN)
    noted = {
        "single_predicate": {
            "input": {"name": "drawn", "typed_config": drawn},
            "value_match": {"safe_regex": {"google_re2": {}, "regex": ".+"}},
        }
    }
    again = typed(_TYPE, clear_route_cache=True)
    return [{"name": _NOTE, "typed_config": typed(_TYPE)}, only_for(noted, _AGAIN, again)]


def drawn_only(route: dict[str, Any]) -> dict[str, Any]:
    """The route, which has `weighted_clusters`, noting which one it has drawn instead of sending the request there."""
    action = route["route"]
    drawn = action["weighted_clusters"]
    noting = [
        {**cluster, "typed_per_filter_config": _noting(cluster["name"])} for cluster in drawn["clusters"]
    ]
    return {
        **route,
        "route": {**action, "weighted_clusters": {**drawn, "clusters": noting}},
        "typed_per_filter_config": {**route.get("typed_per_filter_config", {}), **ON},
    }


def drawn(match: dict[str, Any], clusters: Iterable[str]) -> list[tuple[dict[str, Any], str]]:
    """For each cluster, what matches requests that have drawn it. Their routes stand in front of the one that draws."""
    return [
        ({**match, "filter_state": [{"key": _DRAWN, "string_match": {"exact": name}}]}, name)
        for name in dict.fromkeys(clusters)
    ]


def _noting(cluster: str) -> dict[str, Any]:
    note = {
        "object_key": _DRAWN,
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": cluster}},
    }
    return {_NOTE: typed(_TYPE, on_request_headers=[note])}
