"""Streamed answers outlive the time that one request may take. Called by `listener`.

A route's timeout counts until the last byte of an answer. A request that asks for server-sent events is freed of it,
by the header in which a client inside a mesh would tell Envoy its own timeout; from outside Envoy never obeys that
header. So no Deployment needs a second route, of which Envoy would walk twice as many. The replica holds each event to
the request timeout, and a stream on which nothing moves at all ends with Envoy's idle timeout.
"""

from typing import Any

from podium.gateway.render.document import typed
from podium.gateway.render.only_for import either, header, only_for

_TIMEOUT = "x-envoy-upstream-rq-timeout-ms"
_PATH = "/generate_stream"
_EVENTS = "text/event-stream"


def without_timeout() -> dict[str, Any]:
    """The filter, which runs for requests that ask for a stream only."""
    zero = {"header": {"key": _TIMEOUT, "value": "0"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    freed = typed(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        mutations={"request_mutations": [{"append": zero}]},
    )
    asked = either(header(":path", {"contains": _PATH}), header("accept", {"contains": _EVENTS}))
    return only_for(asked, "podium.streams", freed)
