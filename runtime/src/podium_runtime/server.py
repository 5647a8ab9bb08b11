"""One replica's process: sockets, start, drain.

Called by `__main__`. HTTP is served first, so that liveness answers while the model loads; readiness follows loading
and warm-up. With `listen.hold` it is the other way round: a replica that a request started accepts that request when
it can answer it. SIGTERM drains: not ready any more, no new connections, everything received is answered with
`Connection: close`, then the process ends.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import stat
import sys
import time

from podium_runtime import recording
from podium_runtime.batching import Batcher
from podium_runtime.config import Config, Listen
from podium_runtime.core import Dataplane
from podium_runtime.errors import ConfigInvalid, NotReady
from podium_runtime.http.listener import HttpServer
from podium_runtime.http.waiting_line import take_over
from podium_runtime.jobs import Limits
from podium_runtime.loading import load, warm_up
from podium_runtime.metrics import Metrics
from podium_runtime.probing import probe_rows
from podium_runtime.watchdog import Watchdog

BACKLOG = 4096
# Requests of those who waited for the model that are let in at once, where a batch does not take more.
TAKEN_OVER_AT_ONCE = 8
# A connection that was silent for this long while draining is taken to have nothing under way.
QUIET_SECONDS = 0.5

log = logging.getLogger(__name__)


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
        metrics = Metrics(config.served)
        limits = Limits(
            max_rows=config.batch_max_size,
            max_delay=config.batch_max_delay_ms / 1000,
            max_waiting=config.queue_max_length,
            max_streams=config.max_streams,
        )
        self._batcher = Batcher(limits, metrics, loop)
        self._core = Dataplane(
            config.served, self._batcher, config.request_timeout_seconds, config.max_tensor_elements
        )
        self._recorder = recording.from_environment()
        self._http = HttpServer(self._core, metrics, config.max_body_bytes, self._recorder)
        metrics.ready = self._core.is_ready
        self._watchdog = Watchdog(
            self._batcher.caller,
            config.watchdog_seconds,
            lambda: loop.call_soon_threadsafe(self._core.hang),
        )
        self._batcher.on_death = self._watchdog.thread_died
        self._stop = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)

    async def run(self) -> bool:
        """Serve until SIGTERM and drain. Returns whether the model thread has ended too.

        Raises DigestMismatch or ModelUnusable when the model cannot be served.
        """
        assert self._config.listen is not None  # noqa: S101 - `serve` has asked
        server = None if self._config.listen.hold else await self._accept()
        self._http.watch(self._config.request_timeout_seconds)
        stopping = asyncio.create_task(self._stop.wait())
        opening = asyncio.create_task(self._open_held() if server is None else self._open())
        log.info("listening", extra={"address": _address(self._socket), "pid": os.getpid()})
        try:
            await asyncio.wait({stopping, opening}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done() and not stopping.done():
                opening.result()
                server = server or await self._accept()
                if self._config.watchdog_seconds:
                    self._watchdog.start()
                await stopping
            await self._drain(server)
        finally:
            self._watchdog.stop()
            opening.cancel()
            stopping.cancel()
            if server is not None:
                server.close()
            await self._http.close()
            if self._recorder is not None:
                self._recorder.close()
        return self._batcher.stop()

    async def _open_held(self) -> None:
        await self._open()
        most = max(TAKEN_OVER_AT_ONCE, 2 * self._config.batch_max_size)
        # Half of the queue is for who comes meanwhile, over connections whose first request is answered.
        half = max(1, self._config.queue_max_length // 2)
        waited = await take_over(self._socket, self._http, min(most, half))
        log.info("took over", extra={"connections": waited})

    async def _accept(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._http.accept, sock=self._socket, backlog=BACKLOG)

    async def _open(self) -> None:
        started = time.monotonic()
        loaded = await self._batcher.run(lambda: load(self._config))
        self._core.adopt(loaded.model, loaded.flavor, loaded.signature)
        loading = time.monotonic() - started
        await self._batcher.run(lambda: warm_up(self._config, loaded))
        if finding := await self._batcher.run(lambda: probe_rows(self._config, loaded)):
            self._core.settle_rows(finding.independent)
        # What is loaded stays: without this, every full garbage collection would walk over all of it under requests.
        gc.collect()
        gc.freeze()
        self._core.open()
        seconds = {"load_seconds": round(loading, 3), "total_seconds": round(time.monotonic() - started, 3)}
        log.info(
            "ready", extra={"revision": self._config.served.revision, "flavor": loaded.flavor, **seconds}
        )

    async def _drain(self, server: asyncio.Server | None) -> None:
        """Answer what was received, then return; after drainSeconds refuse what is left."""
        started = time.monotonic()
        self._core.drain()
        self._watchdog.stop()
        log.info(
            "draining",
            extra={"unanswered": self._batcher.unanswered(), "limit_seconds": self._config.drain_seconds},
        )
        if self._config.listen is not None and self._config.listen.uds is not None:
            # Without a path nobody new connects; whoever did already is accepted before the socket closes.
            with contextlib.suppress(OSError):
                os.unlink(self._config.listen.uds)
        await asyncio.sleep(0.01)
        if server is not None:
            server.close()
        deadline = started + self._config.drain_seconds
        while self._busy() and time.monotonic() < deadline:  # noqa: ASYNC110 - silence has no event
            await asyncio.sleep(0.01)
        left = self._batcher.refuse_all(NotReady("the replica stopped before the model answered"))
        if left:
            log.error("drain ended with requests unanswered", extra={"unanswered": left})
        log.info("drained", extra={"seconds": round(time.monotonic() - started, 3)})

    def _busy(self) -> bool:
        if self._http.active:
            return True
        quiet = time.monotonic() - self._http.last_request > QUIET_SECONDS
        return bool(self._http.connections) and not quiet


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
