"""The access record: a line of JSON for each request that has come, written by Envoy. Called by `listener`.

What a request costs here is told by the operators: a name that Envoy has at hand (its route, its cluster) is written
as it is, and whoever reads the line takes it apart; notes of the request, its route or its cluster cost as much as all
the rest together (decision 039). Envoy writes valid JSON whatever bytes a client sends, and what a client sends is
cut to a length, so that nobody fills the record with a few requests.

Copies for a shadow are requests of the gateway's own and leave no line.
"""

from pathlib import Path
from typing import Any

from podium.gateway.render.access import CALLER_HEADER
from podium.gateway.render.document import typed

NAME = "podium.record"
_TYPE = "envoy.extensions.access_loggers.file.v3.FileAccessLog"
_LONGEST_NAME, _LONGEST_PATH = 128, 1024
"""Bytes of what a client has sent."""
_FIELDS = {
    "time": "%START_TIME%",
    "requestId": f"%REQ(X-REQUEST-ID):{_LONGEST_NAME}%",
    "caller": f"%REQ({CALLER_HEADER.upper()}):{_LONGEST_NAME}%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "method": "%REQ(:METHOD)%",
    # The one that was asked for, not what a route made of it; NQ: no query, which may hold anything.
    "path": f"%PATH(NQ:ORIG_OR_PATH):{_LONGEST_PATH}%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    # Envoy's own number is there only for calls that were refused before `grpc` has made plain requests of them.
    "grpcStatus": "%TRAILER(GRPC-STATUS)%",
    "grpcRefused": "%GRPC_STATUS_NUMBER%",
    "reason": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "bytesIn": "%BYTES_RECEIVED%",
    "bytesOut": "%BYTES_SENT%",
    "durationMs": "%DURATION%",
    "upstreamMs": "%COMMON_DURATION(US_TX_BEG:US_RX_END:ms)%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
}
"""docs/gateway.md says what each one means. Never a header as it came but for the request's id, never a body."""


def record(path: Path) -> list[dict[str, Any]]:
    """The listener's access logger that writes to this file, which Envoy opens for appending."""
    return [
        {
            "name": NAME,
            "typed_config": typed(
                _TYPE, path=str(path), log_format={"json_format": _FIELDS, "omit_empty_values": True}
            ),
        }
    ]
