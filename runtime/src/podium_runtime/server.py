"""One replica's process: sockets, start, drain.

Called by `__main__`. HTTP is served first, so that liveness answers while the model loads; readiness follows loading
and warm-up. SIGTERM drains: not ready any more, no new connections, everything received is answered with `Connection:
close`, then the process ends.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Generator
from types import FrameType
from typing import Any

import uvicorn

from podium_runtime.batching import Batcher, Limits
from podium_runtime.config import Config, Listen
from podium_runtime.core import Dataplane
from podium_runtime.errors import ConfigInvalid, NotReady
from podium_runtime.http import HttpApp
from podium_runtime.loading import load, warm_up
from podium_runtime.metrics import Metrics

BACKLOG = 4096
# Longer than any proxy keeps its idle connections, so that it is never this side that closes one under a new request.
KEEP_ALIVE_SECONDS = 4 * 3600
# A connection that was silent for this long while draining is taken to have nothing under way.
QUIET_SECONDS = 0.5

log = logging.getLogger(__name__)


class _Uvicorn(uvicorn.Server):
    """uvicorn without its own signal handling, which would end the process by the signal instead of with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        raise AssertionError("signals are handled by Replica")


def open_socket(listen: Listen) -> socket.socket:
    """Return a listening socket: the inherited one, or a new one.

    An inherited descriptor is used as it is: no other socket is ever created then, as the sandbox may forbid it.
    Raises ConfigInvalid when it is not a listening stream socket, or the address cannot be taken.
    """
    try:
        if listen.fd is not None:
            # fileno= asks the kernel for family and type instead of assuming them.
            sock = socket.socket(fileno=listen.fd)
            if sock.type != socket.SOCK_STREAM or not sock.getsockopt(
                socket.SOL_SOCKET, socket.SO_ACCEPTCONN
            ):
                raise ConfigInvalid(f"listen.fd: descriptor {listen.fd} is not a listening stream socket")
        elif listen.uds is not None:
            sock = _unix_socket(listen.uds)
        else:
            sock = socket.create_server((listen.host or "", listen.port or 0), backlog=BACKLOG)
    except OSError as error:
        raise ConfigInvalid(f"listen: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


def _unix_socket(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ConfigInvalid("listen.uds: the path exists and is not a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            else:
                raise ConfigInvalid("listen.uds: another process listens there")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    sock.listen(BACKLOG)
    return sock


class Replica:
    """One process's life, from the first answer to the last."""

    def __init__(self, config: Config, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._config = config
        self._socket = sock
        self._metrics = Metrics(config.served)
        limits = Limits(config.batch_max_size, config.batch_max_delay_ms / 1000, config.queue_max_length)
        self._batcher = Batcher(limits, self._metrics, loop)
        self._core = Dataplane(config.served, self._batcher, config.request_timeout_seconds)
        self._app = HttpApp(self._core, self._metrics, config.max_body_bytes)
        self._metrics.ready = self._core.is_ready
        settings: dict[str, Any] = {
            "http": "httptools",
            "ws": "none",
            "lifespan": "off",
            "interface": "asgi3",
        }
        quiet: dict[str, Any] = {
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "date_header": False,
        }
        self._http = _Uvicorn(
            uvicorn.Config(
                self._app, **settings, **quiet,
                proxy_headers=False, backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=1,
            )
        )  # fmt: skip
        self._stop = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)

    async def run(self) -> bool:
        """Serve until SIGTERM and drain. Returns whether the model thread has ended too.

        Raises DigestMismatch or ModelUnusable when the model cannot be served.
        """
        serving = asyncio.create_task(self._http.serve(sockets=[self._socket]))
        stopping = asyncio.create_task(self._stop.wait())
        opening = asyncio.create_task(self._open())
        log.info("listening", extra={"address": _address(self._socket), "pid": os.getpid()})
        try:
            await asyncio.wait({serving, stopping, opening}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done() and not stopping.done():
                opening.result()
                await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                await self._drain()
        finally:
            self._http.should_exit = True
            opening.cancel()
            stopping.cancel()
            await asyncio.wait({serving})
        serving.result()
        return self._batcher.stop()

    async def _open(self) -> None:
        started = time.monotonic()
        loaded = await self._batcher.run(lambda: load(self._config))
        self._core.adopt(loaded.model, loaded.flavor, loaded.signature)
        loading = time.monotonic() - started
        await self._batcher.run(lambda: warm_up(self._config, loaded))
        self._core.open()
        seconds = {"load_seconds": round(loading, 3), "total_seconds": round(time.monotonic() - started, 3)}
        log.info(
            "ready", extra={"revision": self._config.served.revision, "flavor": loaded.flavor, **seconds}
        )

    async def _drain(self) -> None:
        """Answer what was received, then return; after drainSeconds refuse what is left."""
        started = time.monotonic()
        self._core.drain()
        log.info(
            "draining",
            extra={"unanswered": self._batcher.unanswered(), "limit_seconds": self._config.drain_seconds},
        )
        if self._config.listen is not None and self._config.listen.uds is not None:
            # Without a path nobody new connects; whoever did already is accepted before the socket closes.
            with contextlib.suppress(OSError):
                os.unlink(self._config.listen.uds)
        await asyncio.sleep(0.01)
        for server in self._http.servers:
            server.close()
        deadline = started + self._config.drain_seconds
        while self._busy() and time.monotonic() < deadline:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        left = self._batcher.refuse_all(NotReady("the replica stopped before the model answered"))
        if left:
            log.error("drain ended with requests unanswered", extra={"unanswered": left})
            await asyncio.sleep(0.05)
        log.info("drained", extra={"seconds": round(time.monotonic() - started, 3)})

    def _busy(self) -> bool:
        if self._app.active:
            return True
        quiet = time.monotonic() - self._app.last_request > QUIET_SECONDS
        return bool(self._http.server_state.connections) and not quiet


def _address(sock: socket.socket) -> str:
    name = sock.getsockname()
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)


async def _run(config: Config, sock: socket.socket) -> bool:
    return await Replica(config, sock).run()


def serve(config: Config) -> None:
    """Serve one replica until SIGTERM; returns once drained. Raises StartupFault when it cannot serve."""
    if config.listen is None:
        raise ConfigInvalid("listen: expected where to listen, got nothing")
    sock = open_socket(config.listen)
    factory = None
    if sys.implementation.name == "cpython":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        idle = runner.run(_run(config, sock))
    if not idle:
        # The model still computes in its thread: ending normally would tear the interpreter down under it.
        logging.shutdown()
        sys.stderr.flush()
        os._exit(0)
