"""One HTTP request and its answer.

Made by `connection` as the request arrives, handed by `listener` to a skin, which calls `reply`, `refuse` or `begin`
exactly once, now or later.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import orjson

from podium_runtime import errors, recording
from podium_runtime.core import Phase
from podium_runtime.http.statuses import Compressed, status_of
from podium_runtime.jobs import Outputs
from podium_runtime.messages import InferRequest
from podium_runtime.raw import Buffer

if TYPE_CHECKING:
    from podium_runtime.http.connection import Connection

JSON = b"application/json"
TEXT = b"text/plain"
INTERNAL = b'{"error":"internal error of the model server"}'

_PRINTABLE = re.compile(rb"[\x21-\x7e]{1,128}")
# Version, trace, parent and flags of the W3C Trace Context recommendation; later versions may append fields.
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{1,64})?")


class Exchange:
    """One request, from its first byte to the last byte of its answer."""

    __slots__ = (
        "answered", "begun", "chunks", "complete", "connection", "discarding", "early", "head_done", "headers",
        "held", "http_1_0", "inference", "keep_alive", "method", "on_gone", "on_writable", "outputs", "size",
        "streaming", "target", "told",
    )  # fmt: skip

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.begun = time.monotonic()
        self.method = b""
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        """Names in lower case; the last one counts where one came twice."""
        self.chunks: list[bytes | bytearray] = []
        self.size = 0
        """Bytes of the body so far."""
        self.held = 0
        """Bytes of the body that count against the limit for all bodies."""
        self.head_done = False
        self.complete = False
        """Whether the whole request is here."""
        self.discarding = False
        """Whether the rest of the body is read only to get past it."""
        self.early: errors.RequestError | None = None
        """Why the request is refused before any skin sees it."""
        self.answered = False
        """Whether the answer is complete, or nobody is there to read one."""
        self.keep_alive = True
        self.http_1_0 = False
        """Whether it came as HTTP/1.0, where that makes a difference to the answer."""
        self.inference = False
        """Whether it counts in the metrics of inference requests."""
        self.streaming = False
        self.outputs: Outputs | None = None
        """What the model answered, where that is to be recorded."""
        self.told = b""
        """Header lines of the answer, whoever writes it."""
        self.on_gone: Callable[[], None] | None = None
        """Called when the client hangs up before the answer is complete."""
        self.on_writable: Callable[[], None] | None = None
        """Called when the client has taken most of what was written of a streamed answer."""

    # What came.

    def body(self) -> bytes | bytearray:
        """Return the body and let go of it."""
        chunks, self.chunks = self.chunks, []
        return chunks[0] if len(chunks) == 1 else bytearray().join(chunks)

    def body_aligned(self, place: int) -> memoryview:
        """Return the body and let go of it, with the byte at `place` on an address that suits any number.

        A body that came in several pieces has to be put together anyway: then arrays can share its memory.
        """
        chunks, self.chunks = self.chunks, []
        padding = -place % 16
        return memoryview(bytearray().join([bytes(padding), *chunks]))[padding:]

    def path(self) -> bytes:
        """Return the target without scheme, host and query."""
        path = self.target.partition(b"?")[0]
        if not path.startswith(b"/") and b"://" in path:
            path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
        return path

    def timeout(self) -> float | None:
        """Return the seconds that the proxy before us will wait, or None where it does not say."""
        value = self.headers.get(b"x-envoy-expected-rq-timeout-ms")
        # An answer after that would be a prediction for nobody.
        if value is not None and value.isdigit() and len(value) < 10:
            return int(value) / 1000 or None
        return None

    def public_name(self) -> str | None:
        """Return the name under which the gateway took the request in, where that is not the model's own."""
        name = self.headers.get(b"x-podium-route")
        return None if name is None else name.decode("latin-1")

    def tell(self, line: bytes, counted: str) -> None:
        """Add a line about an answer of a cascade, and count what it was."""
        self.told = line
        self.connection.listener.metrics.count_cascade(counted)

    def see(self, request: InferRequest, outputs: Outputs) -> None:
        """Take what the model answered, of which the client gets the wanted outputs, to be recorded if that is asked
        for."""
        if recording.HEADER in self.headers:
            wanted = request.outputs
            self.outputs = {name: outputs[name] for name in wanted if name in outputs} if wanted else outputs

    def require_plain_body(self) -> None:
        """Raise Compressed for an encoding of the body that is not read here."""
        encoding = self.headers.get(b"content-encoding")
        if encoding is not None and encoding.strip().lower() != b"identity":
            raise Compressed()

    def trace(self) -> dict[str, str]:
        """Return what ties this request to other systems' logs: `request_id` and `traceparent` where they came."""
        found = {}
        for name, pattern, key in (
            (b"x-request-id", _PRINTABLE, "request_id"),
            (b"traceparent", _TRACEPARENT, "traceparent"),
        ):
            value = self.headers.get(name)
            if value is not None and pattern.fullmatch(value):
                found[key] = value.decode("ascii")
        return found

    def log_failure(self, message: str, error: BaseException) -> None:
        """Log where an error came from, with what ties it to this request."""
        self.connection.listener.log_failure(message, error, self)

    # The answer.

    def reply(self, status: int, content: bytes, kind: bytes = JSON, extra: bytes = b"") -> None:
        """Answer with a whole body. `extra` are more header lines, each with its line end."""
        if self.answered:
            return
        length = b"content-length: %d\r\n\r\n" % len(content)
        head = self._head(status, kind, extra, length)
        self.connection.write(head if self.method == b"HEAD" else head + content)
        self._over(status)

    def reply_with(self, status: int, parts: Sequence[Buffer], kind: bytes, extra: bytes) -> None:
        """Answer with a body in pieces, which are written without being put together first."""
        if self.answered:
            return
        length = b"content-length: %d\r\n\r\n" % sum(map(len, parts))
        self.connection.write_all([self._head(status, kind, extra, length), *parts])
        self._over(status)

    def refuse(self, error: errors.RequestError, content: bytes | None = None) -> None:
        """Answer with an error; `content` is its body, None for the form of the Open Inference Protocol."""
        if self.answered:
            return
        extra = b""
        if isinstance(error, errors.QueueFull):
            extra = b"retry-after: %d\r\n" % error.retry_after
        if isinstance(error, errors.ModelFailed):
            self.log_failure("the model failed on a request", error.cause)
        if content is None:
            content = orjson.dumps(error.as_body(), default=str)
        self.reply(status_of(error), content, JSON, extra)

    def fail(self, error: BaseException) -> None:
        """Answer for an error of our own."""
        self.log_failure("internal error", error)
        self.reply(500, INTERNAL)

    def begin(self, status: int, kind: bytes) -> None:
        """Begin an answer of unknown length; `write` pieces of it, then `end` it."""
        if self.answered:
            return
        self.streaming = True
        if self.http_1_0:
            # Without chunks only the end of the connection says where the answer ends.
            self.keep_alive = False
            framing = b"\r\n"
        else:
            framing = b"transfer-encoding: chunked\r\n\r\n"
        self.connection.write(self._head(status, kind, b"cache-control: no-cache\r\n", framing))

    def write(self, content: bytes) -> bool:
        """Write a piece of a streamed answer; return whether more may follow at once.

        Where not, `on_writable` is called once when it may.
        """
        if self.answered:
            return False
        self.connection.write(content if self.http_1_0 else b"%x\r\n%b\r\n" % (len(content), content))
        return not self.connection.blocked

    def end(self, status: int) -> None:
        """End a streamed answer. `status` is what the metrics count."""
        if self.answered:
            return
        if not self.http_1_0:
            self.connection.write(b"0\r\n\r\n")
        self._over(status)

    def _head(self, status: int, kind: bytes, extra: bytes, framing: bytes) -> bytes:
        listener = self.connection.listener
        headers = self.headers
        value = headers.get(b"x-request-id")
        if value is not None and _PRINTABLE.fullmatch(value):
            extra += b"x-request-id: %b\r\n" % value
        value = headers.get(b"traceparent")
        if value is not None and _TRACEPARENT.fullmatch(value):
            extra += b"traceparent: %b\r\n" % value
        if self.told and status == 200:
            extra += self.told
        if listener.core.phase is Phase.DRAINING or not self.keep_alive:
            self.keep_alive = False
            extra += b"connection: close\r\n"
        elif b"connection" in headers and self.http_1_0:
            extra += b"connection: keep-alive\r\n"
        return listener.head(status, kind) + extra + framing

    def _over(self, status: int) -> None:
        now = time.monotonic()
        if self.inference:
            self.connection.listener.metrics.count_request(status, now - self.begun)
        self.connection.answered(self, now)
        if recording.HEADER in self.headers and self.inference:
            self._record(status, now - self.begun)

    def _record(self, status: int, seconds: float) -> None:
        outputs, self.outputs = self.outputs, None
        recorder = self.connection.listener.recorder
        if recorder is not None and (status != 200 or outputs is not None):
            recorder.add(self.headers, status, seconds, outputs if status == 200 else None)

    def lost(self) -> None:
        """The client hung up: nothing can be written any more."""
        if self.answered:
            return
        if self.inference:
            self.connection.listener.metrics.count_request(499, time.monotonic() - self.begun)
        on_gone = self.on_gone
        self.connection.listener.release(self)
        if on_gone is not None:
            on_gone()
