"""What all connections of a replica share: routes, limits, counts, and the end of slow clients.

Made by `server`, which also accepts the connections. Knows which skin answers which path, nothing of what it answers.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from urllib.parse import unquote

import orjson

from podium_runtime import errors
from podium_runtime.core import ANY_NAME, Dataplane
from podium_runtime.http import grpc_bridge, kserve_v1, mlflow, v2
from podium_runtime.http.connection import Connection
from podium_runtime.http.exchange import JSON, Exchange
from podium_runtime.http.routes import Handler, Route, Skin
from podium_runtime.http.statuses import REASONS
from podium_runtime.logs import RateLimit, frames
from podium_runtime.metrics import Metrics
from podium_runtime.recording import Recorder

# All bodies held at once may take this many times the limit for one: a queue of large ones must not fill the memory.
_BODIES_AT_ONCE = 8
# Longer than any proxy keeps its idle connections, so that it is never this side that closes one under a new request.
KEEP_ALIVE_SECONDS = 4 * 3600

log = logging.getLogger(__name__)


class HttpServer:
    """The connections of one replica and what they share. Used from one event loop."""

    def __init__(
        self, core: Dataplane, metrics: Metrics, max_body: int, recorder: Recorder | None = None
    ) -> None:
        self.core = core
        self.metrics = metrics
        self.max_body = max_body
        """Bytes of one body."""
        self.recorder = recorder
        """None: nobody wants records of this replica's answers."""
        self.room = _BODIES_AT_ONCE * max_body
        """Bytes that bodies without an answer may still take."""
        self.connections: set[Connection] = set()
        self.active = 0
        """Requests that have begun to arrive and are not answered."""
        self.last_request = time.monotonic()
        """When the last request began or ended."""
        self._revision = core.served.revision.encode("ascii", "replace")
        self._heads: dict[tuple[int, bytes], bytes] = {}
        self._failures_logged = RateLimit(10)
        guests: tuple[Skin, ...] = (mlflow.Scoring(core), kserve_v1.Predicting(core))
        self._skins: tuple[Skin, ...] = (
            v2.OpenInference(core, metrics),
            *guests,
            grpc_bridge.Bridge(core),
            _BelowModel(core, guests),
        )
        self._exact: dict[tuple[bytes, bytes], Handler] = {
            (method.encode(), path.encode()): handler
            for skin in self._skins
            for path, (method, handler) in skin.exact()
        }
        self._sweeper: asyncio.TimerHandle | None = None
        metrics.connections = lambda: len(self.connections)

    def accept(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self)

    def dispatch(self, exchange: Exchange) -> None:
        """Have a complete request answered."""
        try:
            try:
                handler = self._exact.get((exchange.method, exchange.target))
                if handler is None:
                    handler = self._find(exchange)
                handler(exchange)
            except errors.RequestError as error:
                exchange.refuse(error)
        except Exception as error:
            # Of a skin, or of the refusal itself, which may name things of the model's that cannot be written.
            exchange.fail(error)

    def refuse(self, exchange: Exchange, error: errors.RequestError) -> None:
        """Answer a request that no skin gets to see, in the form that its caller understands."""
        if grpc_bridge.is_call(exchange):
            grpc_bridge.refuse(exchange, error)
        else:
            exchange.refuse(error)

    def _find(self, exchange: Exchange) -> Handler:
        """Return what answers a request. Raises UnknownPath."""
        parts = [unquote(part) for part in exchange.path().decode("ascii", "replace").split("/")[1:]]
        for skin in self._skins:
            found = skin.find(parts)
            if found is None:
                continue
            method, handler = found
            asked = exchange.method.decode("ascii", "replace")
            if asked == method or (asked == "HEAD" and method == "GET"):
                return handler
            return _only(method)
        raise errors.UnknownPath(
            "unknown path; known are /v2, /v2/health/{live,ready}, /v2/models/NAME[/versions/V]"
            "[/ready|/infer|/generate_stream], /v1/models[/NAME[:predict]], /invocations, /ping, /health, "
            "/version (these also below /v2/models/NAME) and /metrics"
        )

    # What connections and exchanges need.

    def head(self, status: int, kind: bytes) -> bytes:
        """Return the beginning of an answer: status line, content type, revision."""
        found = self._heads.get((status, kind))
        if found is None:
            reason = REASONS.get(status, b"Unknown")
            found = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\nx-podium-revision: %b\r\n" % (
                status, reason, kind, self._revision,
            )  # fmt: skip
            self._heads[status, kind] = found
        return found

    def give_back(self, exchange: Exchange) -> None:
        """Take back what a request's body held of the memory for bodies."""
        self.room += exchange.held
        exchange.held = 0

    def release(self, exchange: Exchange) -> None:
        """Note that a request is answered, or will never be."""
        exchange.answered = True
        # A request that waits and its job hold each other: let go, so that no garbage collection is needed for it.
        exchange.on_gone = exchange.on_writable = None
        self.active -= 1
        self.room += exchange.held
        exchange.held = 0

    def log_failure(self, message: str, error: BaseException, exchange: Exchange | None) -> None:
        """Log where an error came from, at most ten times a second; never its message, which may carry inputs."""
        swallowed = self._failures_logged.allow()
        if swallowed is not None:
            extra = {
                "exception": type(error).__name__,
                "frames": frames(error.__traceback__),
                "swallowed": swallowed,
                **(exchange.trace() if exchange is not None else {}),
            }
            log.warning(message, extra=extra)

    # Life.

    def watch(self, timeout: float) -> None:
        """Begin to cut clients that take `timeout` seconds to send a request, or take nothing for as long."""
        loop = asyncio.get_running_loop()

        def sweep() -> None:
            now = time.monotonic()
            for connection in list(self.connections):
                connection.check(now, timeout, KEEP_ALIVE_SECONDS)
            self._sweeper = loop.call_later(min(1.0, timeout / 2), sweep)

        sweep()

    async def close(self) -> None:
        """End all connections: what was written goes out, for a second at most."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self.connections):
            connection.close()
        until = time.monotonic() + 1
        while self.connections and time.monotonic() < until:  # noqa: ASYNC110 - each ends by itself, without an event
            await asyncio.sleep(0.005)
        for connection in list(self.connections):
            connection.abort()


class _BelowModel:
    """Other protocols below the model's own path, which is how a gateway in front of many models tells them apart.

    /v2/models/NAME/invocations, /v2/models/NAME/v1/models/NAME:predict: a client is given /v2/models/NAME as its base.
    """

    def __init__(self, core: Dataplane, guests: tuple[Skin, ...]) -> None:
        self._core = core
        self._guests = guests

    def exact(self) -> Iterable[tuple[str, Route]]:
        bases = [f"/v2/models/{name}" for name in (self._core.served.name, ANY_NAME)]
        return [
            (base + path, route) for guest in self._guests for path, route in guest.exact() for base in bases
        ]

    def find(self, parts: list[str]) -> Route | None:
        match parts:
            case ["v2", "models", name, "versions", version, *rest] if rest:
                self._core.require(name, version)
            case ["v2", "models", name, *rest] if rest:
                self._core.require(name, None)
            case _:
                return None
        return next((found for guest in self._guests if (found := guest.find(rest)) is not None), None)


def _only(method: str) -> Handler:
    def answer(exchange: Exchange) -> None:
        content = orjson.dumps({"error": f"this path has {method} only"})
        exchange.reply(405, content, JSON, b"allow: %b\r\n" % method.encode())

    return answer
