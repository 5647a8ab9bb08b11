"""Envoy as a process that outlives the agent: started, adopted, handed over in place, stopped.

Called by `agent` and `main`. Calls `processes` for identity and start, `admin` to see it serving. Which process is
ours is kept in the home's state file and is written *before* a start, with the token that the process will carry: an
agent that dies between the start and the next line leaves no stray behind that its successor would not find.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import orjson

from podium.gateway.admin import Admin
from podium.gateway.binary import Binary
from podium.gateway.orphan import spawn_orphan
from podium.gateway.render.bootstrap import bootstrap
from podium.gateway.settings import GatewaySettings, Layout
from podium.processes import (
    ExitWatcher,
    ProcessIdentity,
    identify,
    is_alive,
    new_token,
    terminate,
)
from podium.resources.durable import replace_file
from podium.resources.errors import Refused, Unavailable

log = logging.getLogger(__name__)

LOG_LEVELS = ("--log-level", "warning", "--component-log-level", "misc:error")
"""Of each declared answer in each route table Envoy would say that this part of its API may change still. The build is
pinned, and a refusal has to be found among the words."""
_START_SECONDS = 30.0
_POLL_SECONDS = 0.01
_QUIET_SECONDS, _LOOK_SECONDS = 0.5, 0.1
_CONNECT_SECONDS = 2.0
_ANNOUNCE_SECONDS = 1.0
_LOG_BYTES = 16 * 2**20
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - Envoy's own place
_MODE = "600"
_FLUSH_MS = "1000"


@dataclass(frozen=True)
class Incarnation:
    """One start of Envoy. `pid` and `start_ticks` are 0 from just before the start until it is identified. `start` is a
    hash of what it was started with."""

    token: str
    pid: int = 0
    start_ticks: int = 0
    version: str = ""
    hot_restart: str = ""
    base_id: int | None = None
    restart_epoch: int = 0
    start: str = ""

    @property
    def identity(self) -> ProcessIdentity | None:
        """The process, if it got as far as being identified."""
        return ProcessIdentity(self.pid, self.start_ticks, self.token) if self.pid else None

    @property
    def epoch(self) -> str:
        """Names this start: counters of two epochs are never subtracted from each other."""
        return f"{self.pid}-{self.start_ticks}"


class _NotListening(Unavailable):
    """Envoy is up, but its listener is not."""


class EnvoyProcess:
    """The one Envoy of a gateway. All methods are for the agent's event loop; one call at a time."""

    def __init__(self, settings: GatewaySettings, binary: Binary, admin: Admin) -> None:
        self._settings = settings
        self._layout: Layout = settings.layout
        self._binary = binary
        self._admin = admin
        self._watcher = ExitWatcher("envoy")
        self._current: Incarnation | None = None
        self._ended = asyncio.Event()
        self.restarts = 0
        """Times that it was started again after it had died, as seen by this agent."""

    @property
    def current(self) -> Incarnation | None:
        """The one that serves; None before `start` or `adopt`."""
        return self._current

    def outdated(self) -> bool:
        """Was the running one started from another build or configuration than one would be now?"""
        current = self._current
        return current is not None and (current.version, current.start) != (
            self._binary.version,
            self._start_hash(),
        )

    def alive(self) -> bool:
        """Does the current one run?"""
        identity = self._current.identity if self._current else None
        return identity is not None and is_alive(identity)

    def adopt(self) -> bool:
        """Take over the Envoy that an agent before this one started, if it still runs. The newest one wins; an older
        one of an unfinished handover ends by itself."""
        for known in reversed(self._read_state()):
            identity = known.identity or _find(known.token)
            if identity is not None and is_alive(identity):
                base_id = known.base_id or self._recorded_base_id()
                self._watch(
                    replace(known, pid=identity.pid, start_ticks=identity.start_ticks, base_id=base_id)
                )
                self._write_state(self._current)
                return True
        return False

    async def start(self) -> Incarnation:
        """Start Envoy from the files in place and wait until it serves. Raises Unavailable with its last words."""
        for known in self._read_state():
            _remove_shared_memory(known)
        self.trim_log()
        replace_file(self._layout.bootstrap, bootstrap(self._settings))
        self._layout.base_id.unlink(missing_ok=True)
        fresh = self._incarnation(base_id=None, restart_epoch=0)
        self._write_state(fresh)
        arguments = ["--use-dynamic-base-id", "--base-id-path", str(self._layout.base_id)]
        fresh = self._spawn(fresh, arguments)
        self._write_state(fresh)
        try:
            await self._until_live(fresh)
        except Unavailable:
            if fresh.identity is not None:
                await asyncio.to_thread(terminate, fresh.identity, 1.0)
            raise
        fresh = replace(fresh, base_id=self._recorded_base_id())
        self._watch(fresh)
        self._write_state(fresh)
        return fresh

    async def hand_over(self) -> Incarnation:
        """Replace the running Envoy by a new one in place (hot restart): sockets are passed on, requests under way
        end in the old one, which goes when `drain` is over. Raises Refused if the builds cannot, Unavailable with
        Envoy's words if the new one does not come up; the old one serves on in both cases."""
        old = self._current
        if old is None or not self.alive() or old.base_id is None:
            raise Refused("there is no running Envoy to hand over from")
        if old.hot_restart != self._binary.hot_restart:
            raise Refused(
                f"Envoy {old.version} cannot hand over to {self._binary.version}: their hot restart versions differ",
                next_step="stop the gateway and start it again at a quiet time",
            )
        replace_file(self._layout.bootstrap, bootstrap(self._settings))
        fresh = self._incarnation(base_id=old.base_id, restart_epoch=old.restart_epoch + 1)
        self._write_state(old, fresh)
        arguments = ["--base-id", str(fresh.base_id), "--restart-epoch", str(fresh.restart_epoch)]
        try:
            fresh = self._spawn(fresh, arguments)
            self._write_state(old, fresh)
            await self._until_live(fresh)
        except Unavailable:
            if fresh.identity is not None:
                await asyncio.to_thread(terminate, fresh.identity, 2.0)
            self._write_state(old)
            raise
        self._watch(fresh)
        self._write_state(fresh)
        return fresh

    async def takes_connections(self) -> bool:
        """Whether a new connection is taken. Envoy's admin interface goes on to list a listener that it has stopped."""
        for address, port in await self._admin.listening():
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    _, writer = await asyncio.open_connection(address, port)
            except (OSError, TimeoutError):
                return False
            writer.close()
        return True

    async def announce(self, seconds: float, hurry: asyncio.Event) -> None:
        """Say that this gateway is about to stop and serve on for so long, or until `hurry` is set, so that those who
        spread the clients send them elsewhere."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not hurry.is_set():
            # Said again and again: an Envoy that was started again meanwhile does not know of it.
            with contextlib.suppress(Unavailable):
                await self._admin.fail_health()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _ANNOUNCE_SECONDS)):
                    await hurry.wait()

    async def stop(self, drain: float) -> None:
        """Take no new connections, let requests under way end for up to `drain` seconds, then end Envoy."""
        incarnation = self._current
        self._current = None
        identity = incarnation.identity if incarnation else None
        if identity is not None and is_alive(identity):
            deadline = time.monotonic() + drain
            with contextlib.suppress(Unavailable):
                await self._admin.fail_health()
                await self._admin.stop_listening()
                await self._until_idle(deadline)
            await asyncio.to_thread(terminate, identity, 5.0)
        if incarnation is not None:
            _remove_shared_memory(incarnation)
        self._layout.state.unlink(missing_ok=True)

    async def ended(self) -> None:
        """Wait until the current one has ended."""
        await self._ended.wait()

    def close(self) -> None:
        """Stop watching; Envoy goes on."""
        self._watcher.close()

    def trim_log(self) -> None:
        """Keep one older log of at most 16 MiB. Envoy appends, so it goes on in the emptied file."""
        path = self._layout.log
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > _LOG_BYTES:
                replace_file(path.with_name(f"{path.name}.1"), path.read_bytes()[-_LOG_BYTES:])
                with path.open("r+b") as file:
                    file.truncate(0)

    def last_words(self, lines: int = 20) -> str:
        """The end of Envoy's log."""
        try:
            return "\n".join(self._layout.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    async def _until_idle(self, deadline: float) -> None:
        """Until nobody is connected any more, or nothing was under way or came for a while: a client with an idle
        connection may be about to use it, and learns that it ends only with its next answer."""
        before, since = await self._admin.clients(), time.monotonic()
        while before.connections:
            now = time.monotonic()
            if now > deadline:
                if before.active:
                    log.warning("requests were still under way at the end of the drain")
                return
            if not before.active and now - since > _QUIET_SECONDS:
                return
            await asyncio.sleep(_LOOK_SECONDS)
            found = await self._admin.clients()
            if found.active or found.requests != before.requests:
                since = time.monotonic()
            before = found

    def _recorded_base_id(self) -> int | None:
        try:
            return int(self._layout.base_id.read_text())
        except (FileNotFoundError, ValueError):
            return None

    async def _until_live(self, incarnation: Incarnation) -> None:
        deadline = time.monotonic() + _START_SECONDS
        identity = incarnation.identity
        while time.monotonic() < deadline:
            if identity is None or not is_alive(identity):
                raise Unavailable(f"Envoy ended while starting: {self.last_words(5)}")
            try:
                info = await self._admin.info()
                if info.state == "LIVE" and info.restart_epoch == incarnation.restart_epoch:
                    if not await self._admin.listening():
                        raise _NotListening(self.last_words(3))
                    return
            except _NotListening as error:
                raise Unavailable(
                    f"Envoy could not listen on {self._settings.host}:{self._settings.port}: {error.message}",
                    next_step="see what else listens there, or give the gateway another port",
                ) from error
            except Unavailable:
                # Not up yet.
                pass
            await asyncio.sleep(_POLL_SECONDS)
        raise Unavailable(f"Envoy did not serve within {_START_SECONDS:.0f} s: {self.last_words(5)}")

    def _incarnation(self, *, base_id: int | None, restart_epoch: int) -> Incarnation:
        return Incarnation(
            token=new_token(),
            version=self._binary.version,
            hot_restart=self._binary.hot_restart,
            base_id=base_id,
            restart_epoch=restart_epoch,
            start=self._start_hash(),
        )

    def _spawn(self, incarnation: Incarnation, arguments: list[str]) -> Incarnation:
        drain = max(1, round(self._settings.drain))
        workers = (
            [] if self._settings.concurrency is None else ["--concurrency", str(self._settings.concurrency)]
        )
        identity = spawn_orphan(
            [
                self._binary.path,
                *("-c", self._layout.bootstrap),
                *arguments,
                *("--socket-path", self._layout.restart_socket, "--socket-mode", _MODE),
                *("--drain-time-s", str(drain), "--drain-strategy", "immediate"),
                *("--parent-shutdown-time-s", str(drain + 2)),
                # Counters start at zero with every process: an epoch's differences are that process's own.
                "--skip-hot-restart-parent-stats",
                # The access record: how much of it a killed Envoy takes with it.
                *("--file-flush-interval-msec", _FLUSH_MS),
                *LOG_LEVELS,
                *workers,
            ],
            env={},
            log=self._layout.log,
            token=incarnation.token,
        )
        return replace(incarnation, pid=identity.pid, start_ticks=identity.start_ticks)

    def _watch(self, incarnation: Incarnation) -> None:
        self._current = incarnation
        self._ended = ended = asyncio.Event()
        identity = incarnation.identity
        if identity is None:
            raise Unavailable("Envoy was not identified")
        loop = asyncio.get_running_loop()

        def tell(_: ProcessIdentity) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ended.set)

        self._watcher.watch(identity, tell)

    def _read_state(self) -> list[Incarnation]:
        try:
            kept = orjson.loads(self._layout.state.read_bytes())
            return [_incarnation(one) for one in kept["incarnations"]]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            # It is written whole or not at all; whatever this is, no process can be told from it.
            log.warning("%s does not name an Envoy and is ignored: %s", self._layout.state, error)
            return []

    def _start_hash(self) -> str:
        return hashlib.sha256(bootstrap(self._settings)).hexdigest()[:24]

    def _write_state(self, *incarnations: Incarnation | None) -> None:
        known = [asdict(one) for one in incarnations if one is not None]
        replace_file(self._layout.state, orjson.dumps({"incarnations": known}))


def _incarnation(kept: dict[str, Any]) -> Incarnation:
    """From the state file; what another version of this code has added or left out does not matter."""
    known = {item.name for item in fields(Incarnation)}
    return Incarnation(**{name: value for name, value in kept.items() if name in known})


def _find(token: str) -> ProcessIdentity | None:
    """The process that carries this token, among all of this machine that may be read."""
    import psutil

    for pid in psutil.pids():
        with contextlib.suppress(PermissionError):
            identity = identify(pid, token)
            if identity is not None:
                return identity
    return None


def _remove_shared_memory(incarnation: Incarnation) -> None:
    """A killed Envoy leaves its shared memory; with dynamic base ids it would never be used again."""
    if incarnation.base_id is not None:
        (_SHARED_MEMORY / f"envoy_shared_memory_{incarnation.base_id * 10}").unlink(missing_ok=True)
