"""The REST transport: a small ASGI application over `core`.

Served by `server` through uvicorn. Knows paths, statuses, headers and bodies; everything else is the core's.
The one file that maps errors to statuses.
"""

import asyncio
import functools
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import unquote

import orjson

from podium_runtime import errors
from podium_runtime.batching import Job
from podium_runtime.core import Dataplane, Phase
from podium_runtime.logs import RateLimit, frames
from podium_runtime.messages import decode_request, encode_response
from podium_runtime.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

STATUSES: dict[type[errors.RequestError], int] = {
    errors.InvalidInput: 400,
    errors.UnknownPath: 404,
    errors.BodyTooLarge: 413,
    errors.QueueFull: 429,
    errors.ClientGone: 499,
    errors.ModelFailed: 500,
    errors.NotReady: 503,
    errors.DeadlineExceeded: 504,
}
_JSON = (b"content-type", b"application/json")
_PRINTABLE = re.compile(rb"[\x21-\x7e]{1,128}")
# All bodies held at once may take this many times the limit for one: a queue of large ones must not fill the memory.
_BODIES_AT_ONCE = 8

log = logging.getLogger(__name__)


class _Bodies:
    """Counts the bytes of all bodies that are held for requests without an answer."""

    def __init__(self, most: int) -> None:
        self.left = most

    def held(self, length: int) -> "_Held":
        return _Held(self, length)


class _Held:
    """One request's share of the bytes, given back when its block ends. Raises QueueFull when there are not enough."""

    __slots__ = ("_bodies", "_length")

    def __init__(self, bodies: _Bodies, length: int) -> None:
        self._bodies = bodies
        self._length = 0
        self.grow_to(length)

    def grow_to(self, length: int) -> None:
        """Take what a body of `length` bytes needs beyond what it has; a chunked body is not announced."""
        more = length - self._length
        if more <= 0:
            return
        if more > self._bodies.left:
            raise errors.QueueFull("the bodies of waiting requests take all the memory set aside for them")
        self._bodies.left -= more
        self._length = length

    def __enter__(self) -> "_Held":
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.left += self._length


class HttpApp:
    """The ASGI application of one replica.

    `active` and `last_request` tell the drain whether anybody is still talking to this process.
    """

    def __init__(self, core: Dataplane, metrics: Metrics, max_body_bytes: int) -> None:
        self._core = core
        self._metrics = metrics
        self._max_body = max_body_bytes
        self._bodies = _Bodies(_BODIES_AT_ONCE * max_body_bytes)
        self._revision = (b"x-podium-revision", core.served.revision.encode("ascii", "replace"))
        base = f"/v2/models/{core.served.name}"
        # The two paths that nearly every request has, found without taking them apart.
        self._infer_paths = frozenset(
            path.encode() for path in (f"{base}/infer", f"{base}/versions/{core.served.version}/infer")
        )
        self._watchers: set[asyncio.Task[None]] = set()
        self._failures_logged = RateLimit(10)
        self.active = 0
        """Requests that have begun and are not answered."""
        self.last_request = time.monotonic()
        """When the last request began or ended."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.active += 1
        self.last_request = time.monotonic()
        try:
            if scope["raw_path"] in self._infer_paths and scope["method"] == "POST":
                await self._infer(scope, receive, send)
            else:
                await self._answer(scope, receive, send)
        finally:
            self.active -= 1
            self.last_request = time.monotonic()

    # Inference.

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        headers: Headers = [_JSON, self._revision]
        try:
            timeout, length = _read_headers(scope["headers"], headers)
            if length > self._max_body:
                raise errors.BodyTooLarge(self._max_body)
            with self._bodies.held(length) as held:
                content = await self._predict(receive, timeout, held)
            status = 200
        except errors.RequestError as error:
            status, content = self._refused(error, headers)
        except Exception as error:
            status, content = self._failed(error)
        self._metrics.count_request(status, time.monotonic() - started)
        if status != 499:
            await self._send(send, status, headers, content)

    async def _predict(self, receive: Receive, timeout: float | None, held: "_Held") -> bytes:
        message = await receive()
        if message.get("more_body") or message["type"] == "http.disconnect":
            body = await self._rest_of_body(message, receive, held)
        else:
            body = message["body"]
            if len(body) > self._max_body:
                raise errors.BodyTooLarge(self._max_body)
            held.grow_to(len(body))
        request = decode_request(body)
        del body, message
        job = self._core.submit(request, timeout)
        job.on_wait = functools.partial(self._watch, job, receive)
        response = self._core.respond(request, await job.future)
        try:
            return encode_response(response)
        except TypeError as error:
            raise errors.ModelFailed(error) from error

    async def _rest_of_body(self, message: Message, receive: Receive, held: "_Held") -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._core.request_timeout):
                while True:
                    if message["type"] == "http.disconnect":
                        raise errors.ClientGone("the client hung up before its body was complete")
                    body += message.get("body", b"")
                    if len(body) > self._max_body:
                        raise errors.BodyTooLarge(self._max_body)
                    held.grow_to(len(body))
                    if not message.get("more_body"):
                        return bytes(body)
                    message = await receive()
        except TimeoutError:
            raise errors.DeadlineExceeded("the deadline passed before the body was complete") from None

    def _watch(self, job: Job, receive: Receive) -> None:
        """Begin to listen for the client hanging up. Only for requests that wait: quick ones are spared the task."""
        task = asyncio.get_running_loop().create_task(self._abandon_when_gone(job, receive))
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)
        job.future.add_done_callback(lambda _: task.cancel())

    async def _abandon_when_gone(self, job: Job, receive: Receive) -> None:
        message = await receive()
        if message["type"] == "http.disconnect":
            self._core.abandon(job)

    # Everything else.

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = [_JSON, self._revision]
        try:
            _read_headers(scope["headers"], headers)
            parts = [unquote(part) for part in scope["raw_path"].decode("ascii", "replace").split("/")[1:]]
            place = self._place(parts)
            allowed = "POST" if place == "infer" else "GET"
            if scope["method"] != allowed:
                headers.append((b"allow", allowed.encode()))
                status, content = 405, orjson.dumps({"error": f"this path has {allowed} only"})
            elif place == "infer":
                await self._infer(scope, receive, send)
                return
            else:
                status, content = self._read(place, headers)
        except errors.RequestError as error:
            status, content = self._refused(error, headers)
        except Exception as error:
            status, content = self._failed(error)
        await self._send(send, status, headers, content)

    def _place(self, parts: list[str]) -> str:
        """Return what a path means. Raises UnknownPath, also for another model or version."""
        match parts:
            case ["v2"]:
                return "server"
            case ["v2", "health", "live"]:
                return "live"
            case ["v2", "health", "ready"]:
                return "ready"
            case ["metrics"]:
                return "metrics"
            case ["v2", "models", name, "versions", version, *rest]:
                self._core.require(name, version)
            case ["v2", "models", name, *rest]:
                self._core.require(name, None)
            case _:
                rest = ["unknown"]
        match rest:
            case []:
                return "model"
            case ["ready"]:
                return "model ready"
            case ["infer"]:
                return "infer"
        raise errors.UnknownPath("unknown path; known are /v2, /v2/health/{live,ready}, /v2/models/NAME[/versions/V]"
                                 "[/ready|/infer] and /metrics")  # fmt: skip

    def _read(self, place: str, headers: Headers) -> tuple[int, bytes]:
        ready = self._core.is_ready()
        match place:
            case "server":
                return 200, orjson.dumps(self._core.server_metadata())
            case "live":
                return 200, b'{"live":true}'
            case "ready":
                return 200 if ready else 503, orjson.dumps({"ready": ready, "phase": self._core.phase.value})
            case "model ready":
                return 200 if ready else 503, orjson.dumps({"name": self._core.served.name, "ready": ready})
            case "metrics":
                headers[0] = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
                return 200, self._metrics.text()
        return 200, orjson.dumps(self._core.model_metadata())

    # Answers.

    def _refused(self, error: errors.RequestError, headers: Headers) -> tuple[int, bytes]:
        if isinstance(error, errors.QueueFull):
            headers.append((b"retry-after", str(error.retry_after).encode()))
        if isinstance(error, errors.ModelFailed):
            self._log_failure("the model failed on a request", error.cause)
        return STATUSES[type(error)], orjson.dumps(error.as_body(), default=str)

    def _failed(self, error: Exception) -> tuple[int, bytes]:
        self._log_failure("internal error", error)
        return 500, b'{"error":"internal error of the model server"}'

    def _log_failure(self, message: str, error: BaseException) -> None:
        swallowed = self._failures_logged.allow()
        if swallowed is not None:
            extra = {
                "exception": type(error).__name__,
                "frames": frames(error.__traceback__),
                "swallowed": swallowed,
            }
            log.warning(message, extra=extra)

    async def _send(self, send: Send, status: int, headers: Headers, content: bytes) -> None:
        headers.append((b"content-length", str(len(content)).encode()))
        if self._core.phase is Phase.DRAINING:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _read_headers(sent: Iterable[tuple[bytes, bytes]], answer: Headers) -> tuple[float | None, int]:
    """Return (the caller's timeout in seconds or None, the announced length of the body); echo the request id.

    Raises InvalidInput for encodings of the body that are not read here.
    """
    timeout, length = None, 0
    for name, value in sent:
        if name == b"content-length":
            length = int(value)
        elif name == b"x-request-id":
            if _PRINTABLE.fullmatch(value):
                answer.append((name, value))
        elif name == b"x-envoy-expected-rq-timeout-ms":
            # Envoy tells how long it will wait; an answer after that would be a prediction for nobody.
            if value.isdigit() and 0 < len(value) < 10:
                timeout = int(value) / 1000 or None
        elif name == b"content-encoding":
            if value.strip().lower() != b"identity":
                raise errors.InvalidInput(
                    "content-encoding", "a body that is not compressed", "a content-encoding"
                )
        elif name == b"inference-header-content-length":
            raise errors.InvalidInput("inference-header-content-length", "a JSON body", "binary tensor data")
    return timeout, length
