"""Keeps the server and the gateway agent of one machine running: `python -m podium.app up`.

Both are detached processes: when the supervisor dies they go on, and the next one adopts them. It restarts what
ended, with backoff. Started by `podium up`; calls `processes` only.
"""

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from podium.app.settings import Settings, private_folder
from podium.processes.identity import (
    TOKEN_VARIABLE,
    ProcessIdentity,
    identify,
    is_alive,
    read_identity,
    send_signal,
    wait_exit,
    write_identity,
)
from podium.processes.spawn import spawn_detached
from podium.resources.errors import PodiumError, Refused

_log = logging.getLogger("podium.supervisor")
_LOOK_SECONDS = 0.2
_LONGEST_BACKOFF = 10.0
PARTS = ("server", "gateway")


@dataclass
class _Part:
    """One process that is kept running."""

    name: str
    identity: ProcessIdentity | None = None
    started: float = 0.0
    failures: int = 0
    retry_at: float = 0.0


def identity_file(settings: Settings, name: str) -> Path:
    """Where the identity of `supervisor`, `server` or `gateway` stands."""
    return settings.run / f"{name}.json"


def running(settings: Settings, name: str) -> ProcessIdentity | None:
    """The process under this name if it is alive."""
    try:
        identity = read_identity(identity_file(settings, name))
    except PodiumError:
        return None
    return identity if identity is not None and is_alive(identity) else None


def prepare(settings: Settings) -> Settings:
    """Make the home folder, choose ports where 0 was asked for, and write the addresses for the CLI.

    A port that was chosen once is kept as long as it is free or ours, so that a restart keeps the addresses.
    """
    for folder in (settings.home, settings.run, settings.logs, settings.sockets):
        private_folder(folder)
    before = {}
    with contextlib.suppress(OSError, ValueError):
        before = json.loads(settings.connection_file.read_text())
    if settings.api_port == 0:
        settings = replace(settings, api_port=before.get("apiPort") or _free_port(settings.api_host))
    if settings.gateway_port == 0:
        settings = replace(
            settings, gateway_port=before.get("gatewayPort") or _free_port(settings.gateway_host)
        )
    content: dict[str, object] = {
        "url": settings.api_url,
        "gateway": settings.gateway_url,
        "apiPort": settings.api_port,
        "gatewayPort": settings.gateway_port,
    }
    files = {"url": settings.api_certificate, "gateway": settings.gateway_certificate}
    if any(files.values()):
        # Whoever may read this folder knows the very certificates, whatever names are in them.
        content["certificates"] = {key: str(one.chain) for key, one in files.items() if one is not None}
    if content != before:
        temporary = settings.connection_file.with_suffix(".new")
        temporary.write_text(json.dumps(content, indent=2) + "\n")
        temporary.chmod(0o600)
        temporary.replace(settings.connection_file)
    return settings


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Supervisor:
    """`run` returns after SIGTERM or SIGINT. On SIGTERM the parts go on (they are stopped by `podium down`)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._parts = [_Part(name) for name in PARTS]
        self._stop = threading.Event()

    def run(self) -> None:
        """Keep the parts running until told to stop. Raises Refused when another supervisor has this home."""
        with _exclusive(self._settings):
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._stop.set())
            while not self._stop.is_set():
                for part in self._parts:
                    self._look(part)
                self._stop.wait(_LOOK_SECONDS)

    def _look(self, part: _Part) -> None:
        if part.identity is not None and is_alive(part.identity):
            if part.failures and time.monotonic() - part.started > 30:
                part.failures = 0
            return
        if part.identity is None:
            part.identity = running(self._settings, part.name)
            if part.identity is not None:
                _log.info("adopted %s (pid %d)", part.name, part.identity.pid)
                part.started = time.monotonic()
                return
        elif not part.retry_at:
            wait = 0.0 if part.failures == 0 else min(_LONGEST_BACKOFF, 0.25 * 2**part.failures)
            part.failures += 1
            part.retry_at = time.monotonic() + wait
            _log.warning("%s (pid %d) ended; restarting in %.1f s", part.name, part.identity.pid, wait)
        if time.monotonic() < part.retry_at:
            return
        self._start(part)

    def _start(self, part: _Part) -> None:
        settings = self._settings
        argv = [sys.executable, "-m", "podium.app", part.name, *arguments(settings)]
        try:
            part.identity = spawn_detached(argv, env=dict(os.environ), log=settings.logs / f"{part.name}.log")
        except (OSError, PodiumError) as error:
            part.failures += 1
            part.retry_at = time.monotonic() + min(_LONGEST_BACKOFF, 0.25 * 2**part.failures)
            _log.error("%s could not be started: %s", part.name, error)
            return
        part.started, part.retry_at = time.monotonic(), 0.0
        write_identity(identity_file(settings, part.name), part.identity)
        _log.info("started %s (pid %d)", part.name, part.identity.pid)


def arguments(settings: Settings) -> list[str]:
    """The command line that gives a part the same settings."""
    words = [
        "--home", str(settings.home),
        "--api-host", settings.api_host, "--api-port", str(settings.api_port),
        "--gateway-host", settings.gateway_host, "--gateway-port", str(settings.gateway_port),
    ]  # fmt: skip
    for part, files in (("api", settings.api_certificate), ("gateway", settings.gateway_certificate)):
        if files is not None:
            words += [f"--{part}-tls-cert", str(files.chain), f"--{part}-tls-key", str(files.key)]
    return words


def record(settings: Settings, name: str) -> None:
    """This process writes down who it is. Parts do so themselves: a supervisor that dies between starting one and
    noting it would leave a process that nobody knows."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    identity = identify(os.getpid(), token) if token else None
    if identity is not None:
        write_identity(identity_file(settings, name), identity)


@contextlib.contextmanager
def _exclusive(settings: Settings) -> Iterator[None]:
    """One supervisor per home: a lock that ends with the process, and the identity for `podium down`."""
    with (settings.run / "supervisor.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(
                f"Podium is already running in {settings.home}",
                next_step="`podium status` shows it, `podium down` stops it; another --home runs a second one",
            ) from None
        record(settings, "supervisor")
        try:
            yield
        finally:
            identity_file(settings, "supervisor").unlink(missing_ok=True)


def stop(settings: Settings, name: str, *, timeout: float, number: signal.Signals = signal.SIGTERM) -> bool:
    """Ask one process to end and wait; SIGKILL at the end of the wait. True if it was running."""
    identity = running(settings, name)
    if identity is None:
        return False
    send_signal(identity, number)
    if not wait_exit(identity, timeout):
        _log.warning("%s (pid %d) did not end within %.0f s: killed", name, identity.pid, timeout)
        send_signal(identity, signal.SIGKILL)
        wait_exit(identity, 5.0)
    identity_file(settings, name).unlink(missing_ok=True)
    return True
