"""The gRPC skin over `core`: one call in, one answer out.

Called by the HTTP server for `POST /inference.GRPCInferenceService/RPC`, whose body is one protobuf message without
gRPC's frame: the gateway takes that off and puts it back on. An answer is an HTTP answer. A good one is 200 with a
message as its body. A failed one has no body, the HTTP status that the REST form would have (a rollout's analysis
counts by it), and gRPC's status and message in the headers `x-grpc-status` and `x-grpc-message`, which the gateway
turns into what a gRPC client expects.
"""

import functools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import quote

from podium_runtime import cascading, errors
from podium_runtime.core import Dataplane
from podium_runtime.grpc import schema, wire
from podium_runtime.grpc.requests import encode_response, infer_request, sent_raw
from podium_runtime.http.statuses import status_of
from podium_runtime.jobs import Outputs
from podium_runtime.messages import InferRequest
from podium_runtime.raw import Buffer

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]
"""HTTP status, headers (all but content-length), body."""

LogFailure = Callable[[str, BaseException], None]
"""Logs where an error came from, with what ties it to this call."""

CONTENT_TYPE = (b"content-type", b"application/x-protobuf")

INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL = 3, 12, 13
STATUSES: dict[type[errors.RequestError], int] = {
    errors.InvalidInput: INVALID_ARGUMENT,
    errors.UnknownPath: 5,
    errors.TooSlow: 4,
    errors.BodyTooLarge: 8,
    errors.QueueFull: 8,
    errors.ClientGone: 1,
    errors.ModelFailed: INTERNAL,
    errors.NotReady: 14,
    errors.DeadlineExceeded: 4,
}
"""error -> gRPC status: NOT_FOUND 5, RESOURCE_EXHAUSTED 8, CANCELLED 1, UNAVAILABLE 14, DEADLINE_EXCEEDED 4.
Source of the numbers: gRPC's list of status codes."""
_LONGEST_MESSAGE = 4096
"""Bytes of a message as it is sent: all headers together must stay below what a proxy allows."""
_CONTINUED = re.compile("%[89AB]")
"""Escaped bytes that UTF-8 has inside a character only."""
_NOT_DONE = {
    "ModelStreamInfer": "streams are not served over gRPC; call ModelInfer",
}


@dataclass(frozen=True)
class Caller:
    """What the gateway says about a call beside its message."""

    timeout: float | None
    """Seconds; shortens the core's own."""
    public: str | None = None
    """The name of the model under which it took the call in."""
    asked: cascading.Asked | None = None
    """What it wants to know of the answer; `tell` gets what `cascading.line` says."""
    tell: Callable[[bytes, str], None] = lambda line, counted: None
    see: Callable[[InferRequest, Outputs], None] = lambda request, outputs: None
    """Gets all that the model answered, before it is written."""


async def answer(
    core: Dataplane, method: str, body: Buffer, caller: Caller, log_failure: LogFailure
) -> Answer:
    """Answer the RPC `method` (`ModelInfer`).

    Raises nothing but CancelledError: what goes wrong is in the answer.
    """
    try:
        rpc = _RPCS.get(method)
        if rpc is None:
            known = f"known are {', '.join(sorted(_RPCS))}"
            return _failure(404, UNIMPLEMENTED, f"{method[:100]}: {_NOT_DONE.get(method, known)}")
        if isinstance(content := rpc(core, body, caller), bytes):
            return 200, [CONTENT_TYPE], content
        return 200, [CONTENT_TYPE], await content()
    except errors.RequestError as error:
        if isinstance(error, errors.ModelFailed):
            log_failure("the model failed on a request", error.cause)
        return refusal(error)
    except Exception as error:
        log_failure("internal error", error)
        return _failure(500, INTERNAL, "internal error of the model server")


def refusal(error: errors.RequestError) -> Answer:
    """The answer for an error; also for those that the HTTP server meets before it has a body to hand on."""
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    made = _failure(status_of(error), status, error.message)
    if isinstance(error, errors.QueueFull):
        made[1].append((b"retry-after", str(error.retry_after).encode()))
    return made


def _failure(http: int, status: int, message: str) -> Answer:
    # gRPC's own escaping of messages: all that is not printable ASCII, and the percent sign.
    escaped = quote(message[:_LONGEST_MESSAGE], safe=_PLAIN, errors="replace")
    end = _LONGEST_MESSAGE
    if len(escaped) > end:
        # Never inside an escape or a character: clients then take all of it for another encoding.
        while "%" in escaped[end - 2 : end] or _CONTINUED.match(escaped, end):
            end -= 1
    told = escaped[:end].encode()
    headers = [CONTENT_TYPE, (b"x-grpc-status", str(status).encode()), (b"x-grpc-message", told)]
    return http, headers, b""


_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

_Later = Callable[[], Awaitable[bytes]]


def _server_live(core: Dataplane, body: Buffer, caller: Caller) -> bytes:
    wire.decode(schema.NOTHING, body)
    return wire.encode(schema.LIVE, {"live": core.is_alive()})


def _server_ready(core: Dataplane, body: Buffer, caller: Caller) -> bytes:
    wire.decode(schema.NOTHING, body)
    return wire.encode(schema.READY, {"ready": core.is_ready()})


def _server_metadata(core: Dataplane, body: Buffer, caller: Caller) -> bytes:
    wire.decode(schema.NOTHING, body)
    return wire.encode(schema.SERVER_METADATA, core.server_metadata())


def _model_ready(core: Dataplane, body: Buffer, caller: Caller) -> bytes:
    fields = wire.decode(schema.MODEL, body)
    core.require(fields.get("name", ""), fields.get("version") or None, caller.public)
    return wire.encode(schema.READY, {"ready": core.is_ready()})


def _model_metadata(core: Dataplane, body: Buffer, caller: Caller) -> bytes:
    fields = wire.decode(schema.MODEL, body)
    core.require(fields.get("name", ""), fields.get("version") or None, caller.public)
    return wire.encode(schema.MODEL_METADATA, core.model_metadata())


def _model_infer(core: Dataplane, body: Buffer, caller: Caller) -> _Later:
    fields = wire.decode(schema.INFER_REQUEST, body)
    core.require(fields.get("model_name", ""), fields.get("model_version") or None, caller.public)
    request, raw = infer_request(fields, core.max_elements), sent_raw(fields)

    async def later() -> bytes:
        asked = caller.asked
        also = None if asked is None else asked.output
        response = await core.infer(request, caller.timeout, also, functools.partial(_see, caller, request))
        try:
            return encode_response(response, raw)
        except BaseException as error:
            # All of them: the model's own objects are asked for their texts here, and they may raise as they like.
            raise errors.ModelFailed(error) from error

    return later


def _see(caller: Caller, request: InferRequest, outputs: Outputs) -> None:
    if caller.asked is not None:
        caller.tell(*cascading.line(caller.asked, outputs))
    caller.see(request, outputs)


_RPCS: dict[str, Callable[[Dataplane, Buffer, Caller], bytes | _Later]] = {
    "ServerLive": _server_live,
    "ServerReady": _server_ready,
    "ServerMetadata": _server_metadata,
    "ModelReady": _model_ready,
    "ModelMetadata": _model_metadata,
    "ModelInfer": _model_infer,
}
