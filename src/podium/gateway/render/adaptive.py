"""Limits on requests under way that find their own height, one for each Route that wants one.

Envoy's controller of such a limit lives as long as the settings that it was made by, and one that is made anew begins
by letting only `minConcurrency` requests through. So the settings are in a document of their own (ECDS), and not in the
route table, which any change of anybody's makes anew. A route notes whose limit holds and switches the filters on; the
filter finds the Route's settings, with its one controller, by that note. All controllers are made anew with the
gateway, and when a Route comes with settings that the document does not have for it.

Called by `traffic` (`adapting`), `listener`, `loader` and `entrance`.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from podium.gateway.render.document import Document, document, fragment, seconds, typed
from podium.gateway.settings import ADAPTIVE
from podium.resources.traffic import AdaptiveConcurrency, Limits

FILTER, NOTE = "podium.adaptive", "podium.adaptive.note"
_TYPE = "envoy.extensions.common.matching.v3.ExtensionWithMatcher"
FILTERS = {ADAPTIVE: (FILTER, _TYPE)}
"""kind of document -> the filter's name and type."""
_NOTING = "envoy.extensions.filters.http.set_filter_state.v3.Config"
_WHOSE = "podium.adaptive.route"
"""Where the Route is noted: a state of the request that no client can write."""
ON = {NOTE: typed(_NOTING), FILTER: typed("envoy.config.route.v3.FilterConfig", config={})}
"""For a route's `typed_per_filter_config`: that the filters are on, without a limit of this route."""
_NOBODY = "-"
"""Is noted by no route. Envoy wants one entry at least."""
_JITTER_PERCENT = 15
"""Of the interval between two measurements, by which each is put off at random."""


def noting() -> dict[str, Any]:
    """The filter in the listener, in front of the one that limits, that notes what a route's own settings say."""
    return {"name": NOTE, "typed_config": typed(_NOTING)}


def adapting(limits: Limits | None, workspace: str, route: str) -> dict[str, Any]:
    """For a rendered route: its `typed_per_filter_config`, which says whose limit holds; or nothing."""
    if limits is None or limits.adaptive is None:
        return {}
    note = {
        "object_key": _WHOSE,
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": _name(workspace, route)}},
    }
    return {**ON, NOTE: typed(_NOTING, on_request_headers=[note])}


def controllers(limits: Limits | None, workspace: str, route: str) -> dict[str, bytes]:
    """What the document needs for a Route: its name there -> its settings. Empty: it has no such limit."""
    if limits is None or limits.adaptive is None:
        return {}
    return {_name(workspace, route): fragment(_controller(limits.adaptive))}


def adaptive_document(held: Mapping[str, bytes]) -> Document:
    """The settings of the filter: for each Route an action with a controller that all its requests share."""
    known: dict[str, Any] = {name: _action("limit", orjson.loads(one)) for name, one in held.items()}
    known[_NOBODY] = _action("skip", typed("envoy.extensions.filters.common.matcher.action.v3.SkipFilter"))
    whose = typed("envoy.extensions.matching.common_inputs.network.v3.FilterStateInput", key=_WHOSE)
    tree = {"input": {"name": "whose", "typed_config": whose}, "exact_match_map": {"map": known}}
    nothing = typed("envoy.extensions.filters.http.composite.v3.Composite")
    settings = typed(
        _TYPE,
        extension_config={"name": FILTER, "typed_config": nothing},
        xds_matcher={"matcher_tree": tree},
    )
    return document(
        [fragment(typed("envoy.config.core.v3.TypedExtensionConfig", name=FILTER, typed_config=settings))]
    )


def read_controllers(content: bytes) -> dict[str, bytes]:
    """What a document says that an agent before this one wrote, as `controllers` gives it."""
    (resource,) = orjson.loads(content)["resources"]
    known = resource["typed_config"]["xds_matcher"]["matcher_tree"]["exact_match_map"]["map"]
    return {name: fragment(one["action"]["typed_config"]) for name, one in known.items() if name != _NOBODY}


def _name(workspace: str, route: str) -> str:
    # '/' cannot occur in a name, nor '%', which Envoy would read.
    return f"{workspace}/{route}"


def _action(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"action": {"name": name, "typed_config": settings}}


def _controller(wish: AdaptiveConcurrency) -> dict[str, Any]:
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
                # Otherwise all Routes' limits would be measured in the same moment.
                "jitter": {"value": _JITTER_PERCENT},
                "request_count": wish.idle_latency_requests,
                "min_concurrency": wish.least,
            },
        },
    )
    return typed(
        "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction",
        typed_config={"name": "envoy.filters.http.adaptive_concurrency", "typed_config": limit},
    )
