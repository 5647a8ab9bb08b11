"""Starts a confined process under a shim, and reads from its folder what became of it.

Called by `targets` (replicas) and by whoever runs a model's code once. Everything lies in one folder per process, so
that any server, also one that was started later, sees the same:

    spec.json   what to run (written last when the folder is made; a folder without it is not there yet)
    lock        held by the shim as long as it lives: two shims never run one folder
    state.json  what the shim says; its identity tells whether it still lives
    stop.json   somebody asked it to stop, with this grace
    log, log.1  output of the process; shim.log: of the shim itself, normally empty
    tmp/        the only place where the process may write

Calls `spawn`, `identity` and the shim as a program. Needs Linux.
"""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from podium.processes.identity import (
    TOKEN_VARIABLE,
    ProcessIdentity,
    environment_of,
    is_alive,
    send_signal,
    wait_exit,
)
from podium.processes.removal import remove_tree
from podium.processes.sandbox import Box, Limits
from podium.processes.shim.rotation import clean
from podium.processes.spawn import spawn_detached
from podium.resources.errors import IntegrityError, Refused, Unavailable

_SHIM = Path(__file__).resolve().parent / "shim"
_START_SECONDS = 20.0
_POLL_SECONDS = 0.003
_LAST_MOMENT_SECONDS = 2.0
SOCKET_PATH_BYTES = 107
"""sun_path holds 108 bytes with its closing NUL: unix(7)."""


@dataclass(frozen=True)
class Dormant:
    """Started by the first connection to its socket, which the shim listens on until then; no server is needed."""

    start_timeout: float
    """Seconds from the first connection until the program accepts it; past it, it is ended."""
    attempts: int = 3
    """Starts in a row that may end before anybody was accepted; connections wait through all of them."""
    final: tuple[int, ...] = ()
    """Exit codes after which another start would end alike."""
    question: str = "GET / HTTP/1.1\r\nHost: replica\r\nConnection: close\r\n\r\n"
    """Something that the program answers: how it is seen that it accepts while many wait."""


@dataclass(frozen=True)
class Program:
    """What to run and how. Its working folder and TMPDIR is `private_folder` of its folder."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    box: Box
    limits: Limits
    socket: Path | None = None
    """A Unix socket to listen on, handed over as descriptor 3."""
    dormant: Dormant | None = None
    """Start it when somebody connects to `socket`, which must be set. None: at once."""
    grace: float = 20.0
    """Seconds from SIGTERM to SIGKILL where a stop names none."""
    timeout: float | None = None
    """Seconds after which it is ended; None: never."""
    capture_stdout: int = 0
    """Bytes of standard output to keep apart from the log; 0: it goes to the log."""
    log_bytes: int = 10 * 2**20
    log_files: int = 3
    """Older logs that are kept beside the newest."""


@dataclass(frozen=True)
class Observed:
    """One process as its shim describes it. `shim` lives as long as `phase` is not `exited`."""

    phase: Literal["dormant", "waking", "starting", "running", "stopping", "exited"]
    """`dormant`: listens, its program is not started. `waking`: it is, by a connection that waits to be accepted."""
    shim: ProcessIdentity
    pid: int | None
    started_at: datetime
    """Of one that was dormant: when it was woken."""
    sandbox: str
    """The level reached, empty before it is known."""
    sandbox_missing: tuple[str, ...]
    """Why it is not more, in words."""
    exit_code: int | None
    """Negative: the signal that ended it. None: it runs, or it never ran, or its shim was killed."""
    reason: str
    """How it ended, in words; empty while it runs."""
    log_tail: tuple[str, ...]
    woken: bool = False
    """It was dormant once, and a connection started it."""


def private_folder(folder: Path) -> Path:
    """Where the process of this folder may write."""
    return folder / "tmp"


def prepare(folder: Path, program: Program) -> None:
    """Make the folder and write the spec. Nothing is started. Doing it again before the start replaces the spec.

    Raises Refused where the system is not Linux or the socket's path is too long, and OSError (a full disk).
    """
    if program.dormant is not None and program.socket is None:
        raise ValueError("dormant: a program that starts with its first connection needs a socket")
    if sys.platform != "linux":
        raise Refused(
            f"confined processes need Linux, this is {sys.platform}", next_step="run the server on Linux"
        )
    if program.socket is not None and len(os.fsencode(program.socket)) > SOCKET_PATH_BYTES:
        raise Refused(
            f"{program.socket}: a Unix socket's path holds at most {SOCKET_PATH_BYTES} bytes",
            next_step="set a shorter folder for sockets",
        )
    private_folder(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    (folder / "lock").touch(mode=0o600)
    _write_json(folder / "spec.json", _document(folder, program))


def launch(folder: Path) -> Observed:
    """Start the shim of a prepared folder, or find that it was started before; returns when it has said something.

    May be called again at any time, from any process, also after a death in the middle: the process runs once.
    Raises Unavailable when the shim did not come up; its words are in the message.
    """
    deadline = time.monotonic() + _START_SECONDS
    if (seen := observe(folder)) is not None:
        return seen
    shim = spawn_detached(
        [sys.executable, "-I", "-S", _SHIM, folder / "spec.json"], env={}, log=folder / "shim.log", cwd=folder
    )
    while (seen := observe(folder)) is None:
        # One that found the lock taken ends at once; then another's state is about to appear.
        if (
            not is_alive(shim) and observe(folder) is None and not _is_locked(folder)
        ) or time.monotonic() > deadline:
            send_signal(shim, signal.SIGKILL)
            words = _last_lines(folder / "shim.log", 3)
            raise Unavailable(
                f"the shim in {folder.name} did not start: {' '.join(words) or 'it said nothing'}"
            )
        time.sleep(_POLL_SECONDS)
    return seen


def observe(folder: Path) -> Observed | None:
    """What the process of this folder does now; None if it was never started. Raises IntegrityError on a bad file."""
    try:
        kept = json.loads((folder / "state.json").read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise IntegrityError(f"{folder / 'state.json'}: expected JSON: {error}") from error
    try:
        return _observed(folder, kept)
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{folder / 'state.json'}: expected the state of a process: {error!r}"
        ) from error


def stop(folder: Path, grace: float, why: str = "") -> None:
    """Ask it to end: SIGTERM, and SIGKILL after `grace` seconds, both by the shim. Returns at once; may be repeated.

    Asked again with a shorter grace, the shorter one counts; with a longer one, nothing happens. One that has not
    been started will not be. `why` becomes the reason of its end, where the caller has a better one than "stopped".
    """
    asked = _asked_to_stop(folder)
    if asked is None or grace < asked["grace"]:
        _write_json(folder / "stop.json", {"grace": grace, "why": why or (asked or {}).get("why", "")})
    seen = observe(folder)
    if seen is not None and seen.phase == "stopping" and asked is not None and grace >= asked["grace"]:
        return
    if seen is not None and seen.phase != "exited":
        send_signal(seen.shim, signal.SIGTERM)


def stop_was_asked(folder: Path) -> bool:
    """Did somebody call `stop`?"""
    return _asked_to_stop(folder) is not None


def remove(folder: Path) -> None:
    """Remove the folder of a process that has ended or was never started. Raises Refused while its shim lives."""
    try:
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        with contextlib.suppress(FileNotFoundError):
            remove_tree(folder)
        return
    try:
        # With the lock held no shim can begin in a folder that is being removed.
        if not _take(handle, _LAST_MOMENT_SECONDS):
            raise Refused(f"{folder.name} still runs", next_step="stop it first")
        with contextlib.suppress(FileNotFoundError):  # somebody else removed it meanwhile
            remove_tree(folder)
    finally:
        os.close(handle)


def _take(handle: int, seconds: float) -> bool:
    """Lock a file, waiting a moment: a shim that was started twice holds the lock until it sees that it has no work."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


def read_log(folder: Path, lines: int) -> list[str]:
    """The last `lines` lines of its output, oldest first, over all files of the log."""
    found: list[str] = []
    number = 0
    while len(found) < lines:
        path = folder / (f"log.{number}" if number else "log")
        if number and not path.exists():
            break  # while files are renamed the newest may be missing for a moment, but not the one before
        found = _last_lines(path, lines - len(found)) + found
        number += 1
    return found


def kill_left_over(token: str) -> int:
    """End what a process left behind when its shim was killed from outside; returns how many were found.

    A shim that lives ends them itself. They are known by the token in their environment.
    """
    found = 0
    for pid in _carriers(token):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            handle = os.pidfd_open(pid)
            try:
                if pid in _carriers(token, only=pid):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    found += 1
            finally:
                os.close(handle)
    return found


@dataclass(frozen=True)
class Finished:
    """How a run that was waited for ended. `stdout` is what it printed, up to `capture_stdout` bytes."""

    exit_code: int | None
    reason: str
    stdout: bytes
    log_tail: tuple[str, ...]
    sandbox: str
    sandbox_missing: tuple[str, ...]


def run_once(folder: Path, program: Program) -> Finished:
    """Run a program in its box to its end, or to `program.timeout`, which must be set. `folder` must not exist yet.

    The folder stays, for what the program wrote; `remove` takes it away. Raises Unavailable when it did not start.
    """
    if program.timeout is None:
        raise ValueError("timeout: a run that is waited for needs one")
    prepare(folder, program)
    seen = launch(folder)
    # The shim ends it in time, and then has its own 40 s to clean up and to write the state.
    wait_exit(seen.shim, program.timeout + 45.0)
    ended = observe(folder)
    if ended is None or ended.phase != "exited":
        raise Unavailable(f"the shim in {folder.name} did not come to an end")
    captured = folder / "stdout"
    return Finished(
        exit_code=ended.exit_code,
        reason=ended.reason,
        stdout=captured.read_bytes() if captured.exists() else b"",
        log_tail=ended.log_tail,
        sandbox=ended.sandbox,
        sandbox_missing=ended.sandbox_missing,
    )


def _document(folder: Path, program: Program) -> dict[str, Any]:
    private = str(private_folder(folder))
    return {
        "argv": list(program.argv),
        "env": dict(program.env),
        "cwd": private,
        "socket": None if program.socket is None else str(program.socket),
        "dormant": program.dormant and _dormant_document(program.dormant),
        "grace": program.grace,
        "timeout": program.timeout,
        "captureStdout": program.capture_stdout,
        "log": {"maxBytes": program.log_bytes, "keep": program.log_files},
        "limits": {
            "memory": program.limits.memory,
            "openFiles": program.limits.open_files,
            "niceness": program.limits.niceness,
            "cpus": list(program.limits.cpus),
        },
        "box": {
            "require": program.box.require,
            "read": [str(path) for path in program.box.read],
            "run": [str(path) for path in program.box.run],
            "write": [private],
            "connectPorts": list(program.box.connect_ports),
            "bindPorts": list(program.box.bind_ports),
        },
    }


def _dormant_document(dormant: Dormant) -> dict[str, Any]:
    return {
        "startTimeout": dormant.start_timeout, "attempts": dormant.attempts, "final": list(dormant.final),
        "question": dormant.question,
    }  # fmt: skip


def _observed(folder: Path, kept: dict[str, Any]) -> Observed:
    shim = ProcessIdentity(**kept["shim"])
    sandbox = kept["sandbox"] or {"level": "", "missing": []}
    ended = kept["exit"] or {"code": None, "reason": ""}
    phase, tail = kept["phase"], kept["logTail"]
    if phase != "exited" and not is_alive(shim):
        again = json.loads((folder / "state.json").read_bytes())
        if again["phase"] == "exited":  # it ended between the two looks
            return _observed(folder, again)
        phase, tail = "exited", read_log(folder, 40)
        ended = {"code": None, "reason": "its shim was killed, and it died with it"}
    return Observed(
        phase=phase,
        shim=shim,
        pid=kept["pid"],
        started_at=datetime.fromisoformat(kept["startedAt"]),
        sandbox=sandbox["level"],
        sandbox_missing=tuple(sandbox["missing"]),
        exit_code=ended["code"],
        reason=ended["reason"],
        log_tail=tuple(tail),
        woken=kept.get("woken", False),  # shims of an earlier Podium do not say
    )


def _asked_to_stop(folder: Path) -> dict[str, Any] | None:
    try:
        asked = json.loads((folder / "stop.json").read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise IntegrityError(f"{folder / 'stop.json'}: expected JSON: {error}") from error
    return {"grace": float(asked["grace"]), "why": str(asked["why"])}


def _is_locked(folder: Path) -> bool:
    with open(folder / "lock", "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _carriers(token: str, only: int | None = None) -> Iterator[int]:
    wanted = f"{TOKEN_VARIABLE}={token}".encode()
    names = [str(only)] if only is not None else [name for name in os.listdir("/proc") if name.isdigit()]
    for name in names:
        if wanted in environment_of(int(name)).split(b"\0"):
            yield int(name)


def _last_lines(path: Path, lines: int, width: int = 2000) -> list[str]:
    """The last lines of a file without reading more of it than they can take."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - lines * width))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [clean(line[:width]) for line in text.splitlines()[-lines:]] if lines > 0 else []


def _write_json(path: Path, document: dict[str, Any]) -> None:
    """Whole or not at all, private. Not forced to the disk: no process survives the loss of power either."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(document, file)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
