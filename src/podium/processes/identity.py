"""Which process is meant, when the one who asks may have been restarted since it was started.

A pid alone is worth nothing: the kernel hands it out again. A process is the same one only if its pid, its
start time and a random token that was put into its environment (or argument list) all match. Called by
`spawn`, `exits`, `targets` and `gateway`; calls /proc, pidfds where the kernel has them, and psutil where
there is no /proc.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from podium.resources.durable import replace_file
from podium.resources.errors import IntegrityError

# The variable's name. A token identifies a process, it opens nothing.
TOKEN_VARIABLE = "PODIUM_PROCESS_TOKEN"  # noqa: S105
_HAS_PROC = Path("/proc/self/stat").exists()
_HAS_PIDFD = hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")
_POLL_SECONDS = 0.02
_ENDING, _KERNEL_THREAD = 0x4, 0x200000
"""PF_EXITING and PF_KTHREAD among the flags of /proc/PID/stat (the kernel's include/linux/sched.h)."""
_LOOKS = 100


class _Stat(NamedTuple):
    state: bytes
    flags: int
    start_ticks: int


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, for ever. `start_ticks` is in clock ticks since boot (1/100 s since 1970 without /proc)."""

    pid: int
    start_ticks: int
    token: str


def new_token() -> str:
    """A token for one process: 128 random bits as 32 hex digits."""
    return secrets.token_hex(16)


def identify(pid: int, token: str) -> ProcessIdentity | None:
    """The identity of the process that has this pid now, if it runs and carries `token`; else None."""
    started = _start_ticks(pid)
    if started is None:
        return None
    carries = _carries(pid, token)
    if carries is None and environment_of(pid):
        carries = _carries(pid, token)
    if not carries:
        return None
    return ProcessIdentity(pid, started, token)


def is_alive(identity: ProcessIdentity) -> bool:
    """Does exactly this process still run? A zombie does not; a stranger with the same pid is not it.

    A process whose environment may not be read and whose arguments do not show the token is not trusted:
    False.
    """
    if _start_ticks(identity.pid) != identity.start_ticks:
        return False
    carries = _carries(identity.pid, identity.token)
    # In the middle of an exec, pid and start are all that it shows. So does one that is about to be a zombie.
    return carries if carries is not None else _start_ticks(identity.pid, ending=True) == identity.start_ticks


def environment_of(pid: int) -> bytes:
    """The environment that a process was given; of one in the middle of an exec, after that (for up to 0.1 s). Empty
    where it has none, as a kernel thread, or may not be read."""
    for _ in range(_LOOKS):
        found = b""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            found = Path(f"/proc/{pid:d}/environ").read_bytes()
            if not found and not _stat(pid).flags & (_ENDING | _KERNEL_THREAD):
                time.sleep(0.001)
                continue
        return found
    return b""


def send_signal(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; False if it is gone. A reused pid is never hit."""
    if not _HAS_PIDFD:
        if not is_alive(identity):
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, number)
            return True
        return False
    handle = open_pidfd(identity)
    if handle is None:
        return False
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def open_pidfd(identity: ProcessIdentity) -> int | None:
    """A pidfd (the caller closes it) that is surely this process, or None if it is gone.

    Opened first and checked afterwards: a descriptor stays with the process that it was opened for, so a
    match after the opening proves that no stranger with a reused pid is behind it.
    """
    try:
        handle = os.pidfd_open(identity.pid)
    except (ProcessLookupError, ValueError, OverflowError):
        return None
    if is_alive(identity):
        return handle
    os.close(handle)
    return None


def wait_exit(identity: ProcessIdentity, timeout: float) -> bool:
    """Wait up to `timeout` seconds for this process to end. True: it has ended."""
    if not _HAS_PIDFD:
        deadline = time.monotonic() + timeout
        while is_alive(identity):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True
    handle = open_pidfd(identity)
    if handle is None:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(max(0, int(timeout * 1000))))
    finally:
        os.close(handle)


def terminate(identity: ProcessIdentity, grace: float) -> bool:
    """SIGTERM, and SIGKILL if it still runs after `grace` seconds; returns when it has ended.

    True: it went by itself (or was gone already). False: it had to be killed.
    """
    if not send_signal(identity, signal.SIGTERM) or wait_exit(identity, grace):
        return True
    send_signal(identity, signal.SIGKILL)
    # SIGKILL cannot be caught, but a process in uninterruptible sleep dies late; nobody should hang for it.
    wait_exit(identity, 10.0)
    return False


def write_identity(path: Path, identity: ProcessIdentity) -> None:
    """Keep an identity in a file that only the owner reads: whole or not at all, and safe against a power cut."""
    replace_file(path, json.dumps(asdict(identity)).encode(), several_writers=True)


def read_identity(path: Path) -> ProcessIdentity | None:
    """The identity kept in a file; None without one. Raises IntegrityError if the file holds something else."""
    try:
        kept = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise IntegrityError(f"{path}: expected the identity of a process as JSON: {error}") from error
    match kept:
        case {"pid": int(pid), "start_ticks": int(ticks), "token": str(token)} if pid > 0 and token:
            return ProcessIdentity(pid, ticks, token)
    raise IntegrityError(f"{path}: expected pid, start_ticks and token of a process")


def _start_ticks(pid: int, *, ending: bool = False) -> int | None:
    """When the process with this pid started; None if there is none, or only a zombie that nobody has reaped yet, and
    with `ending` also if it is about to be one."""
    if not _HAS_PROC:
        return _start_ticks_without_proc(pid)
    try:
        seen = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if seen.state in (b"Z", b"X") or (ending and seen.flags & _ENDING) else seen.start_ticks


def _stat(pid: int) -> _Stat:
    stat = Path(f"/proc/{pid:d}/stat").read_bytes()
    # proc_pid_stat(5): the second field is the name in parentheses and may hold anything, also ") ".
    fields = stat[stat.rindex(b")") + 2 :].split()
    return _Stat(fields[0], int(fields[6]), int(fields[19]))


def _carries(pid: int, token: str) -> bool | None:
    """None: it does not show. While the kernel maps a new program (exec), a process has no environment to see, nor has
    one that ends. Without /proc that cannot be told from False."""
    if not token:
        return False
    if not _HAS_PROC:
        return _carries_without_proc(pid, token)
    wanted, environment, arguments = token.encode(), None, b""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        environment = Path(f"/proc/{pid:d}/environ").read_bytes()
    if f"{TOKEN_VARIABLE}={token}".encode() in (environment or b"").split(b"\0"):
        return True
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        arguments = Path(f"/proc/{pid:d}/cmdline").read_bytes()
    if any(wanted in argument for argument in arguments.split(b"\0")):
        return True
    return None if environment == b"" else False


def _start_ticks_without_proc(pid: int) -> int | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 100)
    except psutil.NoSuchProcess:
        return None


def _carries_without_proc(pid: int, token: str) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        return process.environ().get(TOKEN_VARIABLE) == token or any(
            token in part for part in process.cmdline()
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
