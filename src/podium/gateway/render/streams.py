"""Streamed answers outlive the time that one request may take. Called by `listener`.

A route's timeout counts until the last byte of an answer. A request that asks for server-sent events has `CEILING`
instead, by the header in which a client inside a mesh would tell Envoy its own timeout; from outside Envoy never obeys
that header. So no Deployment needs a second route, of which Envoy would walk twice as many. The replica holds each
event to the request timeout, and a stream on which nothing moves at all ends with Envoy's idle timeout. Where no model
server of Podium's own does that (`begins_within`), the answer has to begin within the route's timeout all the same:
otherwise any caller would be free of it, by asking for a stream of what is none.
"""

from typing import Any

from podium.gateway.render.document import seconds, typed
from podium.gateway.render.only_for import either, header, only_for, switched_on

_TIMEOUT = "x-envoy-upstream-rq-timeout-ms"
CEILING = 3600.0
"""Seconds after which every stream is ended."""
_PATH = r"(?:/ws/[^/?]+)?/v2/models/[^/?]+(?:/versions/[^/?]+)?/generate_stream(?:\?.*)?"
_EVENTS = "text/event-stream"
_ASKED = ((":path", {"safe_regex": {"google_re2": {}, "regex": _PATH}}), ("accept", {"contains": _EVENTS}))
_FILTER = "podium.streams"
MATCHES: tuple[dict[str, Any], ...] = tuple(
    {"prefix": "/", "headers": [{"name": name, "string_match": match}]} for name, match in _ASKED
)
"""Which requests ask for a stream, as the matches of routes."""
ON = switched_on(_FILTER)
"""For a route's `typed_per_filter_config`: that this filter is on."""


def without_timeout() -> dict[str, Any]:
    """The filter, which runs for requests that ask for a stream only."""
    longest = {
        "header": {"key": _TIMEOUT, "value": str(int(CEILING * 1000))},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    freed = typed(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        mutations={"request_mutations": [{"append": longest}]},
    )
    return only_for(either(*(header(name, match) for name, match in _ASKED)), _FILTER, freed)


def begins_within(action: dict[str, Any], timeout: float, policy: dict[str, Any]) -> dict[str, Any]:
    """A route's action whose streams have to begin within `timeout` seconds, per attempt. `policy`: its retry policy
    where it has none of its own.

    Envoy ignores the time of an attempt once its answer has begun, and where it is not shorter than the request's: so
    this changes nothing for requests that ask for no stream.
    """
    own = action.get("retry_policy", policy)
    return {**action, "retry_policy": {"per_try_timeout": seconds(timeout), **own}}
