"""The replica's process and everything that it started: how much memory they hold, and ending them all.

Called by `supervise`. The shim is their subreaper: whoever of them loses its parent becomes the shim's own child, so
nobody gets away by forking twice. Calls /proc.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_COUNTED = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
_HAS_CHILDREN_FILE = Path(f"/proc/self/task/{os.getpid()}/children").exists()


def become_subreaper() -> None:
    """Orphaned descendants become children of this process. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), zero, zero, zero) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def children(pid: int) -> list[int]:
    """Direct children of a process, zombies included."""
    if not _HAS_CHILDREN_FILE:
        return _children_of_all().get(pid, [])
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += [int(word) for word in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def resident_data() -> int:
    """Bytes that this process' descendants hold and that only swap could take: anonymous, shared memory, swapped.

    Pages of files (a model that is mapped into memory, libraries) are not counted: the kernel drops them as it needs.
    Pages that a fork shares with its parent are counted for both.
    """
    return sum(_resident_data(pid) for pid in _descendants())


def kill_all(limit_seconds: float) -> bool:
    """SIGKILL every descendant and reap them. False if some are still there after the time.

    Only direct children are signalled: they cannot be reaped by anybody else, so their pids cannot be another's.
    Theirs become direct children when they die.
    """
    deadline = time.monotonic() + limit_seconds
    while mine := children(os.getpid()):
        for pid in mine:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        reap()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def reap() -> list[tuple[int, int]]:
    """Collect every child that has ended, as (pid, code); a negative code is the signal that ended it."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))


def _resident_data(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().split(b"\n")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_COUNTED))


def _descendants() -> list[int]:
    look_up = children if _HAS_CHILDREN_FILE else _from(_children_of_all())
    found: list[int] = []
    waiting = look_up(os.getpid())
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += look_up(pid)
    return found


def _from(families: dict[int, list[int]]) -> Callable[[int], list[int]]:
    return lambda pid: list(families.get(pid, []))


def _children_of_all() -> dict[int, list[int]]:
    """Parent to children, over the whole machine: for kernels without /proc/PID/task/TID/children."""
    families: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                stat = file.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parent = int(stat[stat.rindex(b")") + 2 :].split()[1])
        families.setdefault(parent, []).append(int(name))
    return families
