"""Streamed answers outlive the time that one request may take. Called by `listener`.

A route's timeout counts until the last byte of an answer. A request that asks for server-sent events is freed of it,
by the header in which a client inside a mesh would tell Envoy its own timeout; from outside Envoy never obeys that
header. So no Deployment needs a second route, of which Envoy would walk twice as many. The replica holds each event to
the request timeout, and a stream on which nothing moves at all ends with Envoy's idle timeout.
"""

from typing import Any

from podium.gateway.render.document import typed
from podium.gateway.render.only_for import either, header, only_for, switched_on

_TIMEOUT = "x-envoy-upstream-rq-timeout-ms"
_PATH = "/generate_stream"
_EVENTS = "text/event-stream"
_ASKED = ((":path", {"contains": _PATH}), ("accept", {"contains": _EVENTS}))
_FILTER = "podium.streams"
MATCHES: tuple[dict[str, Any], ...] = tuple(
    {"prefix": "/", "headers": [{"name": name, "string_match": match}]} for name, match in _ASKED
)
"""Which requests ask for a stream, as the matches of routes."""
ON = switched_on(_FILTER)
"""For a route's `typed_per_filter_config`: that this filter is on."""


def without_timeout() -> dict[str, Any]:
    """The filter, which runs for requests that ask for a stream only."""
    zero = {"header": {"key": _TIMEOUT, "value": "0"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    freed = typed(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        mutations={"request_mutations": [{"append": zero}]},
    )
    return only_for(either(*(header(name, match) for name, match in _ASKED)), _FILTER, freed)
