"""How much processor time a process and everything that it started have used. Reads /proc; needs Linux.

Called by `targets`, for replicas whose number follows it.
"""

import contextlib
import os
from pathlib import Path

from podium.processes.identity import ProcessIdentity, is_alive
from podium.processes.shim.family import children

_TICKS = os.sysconf("SC_CLK_TCK")
_PARENT, _TIMES = 1, slice(11, 15)
"""Fields of proc_pid_stat(5) after the name: ppid; utime, stime, cutime and cstime in clock ticks."""


def processor_seconds(identity: ProcessIdentity) -> float | None:
    """Seconds of processor time since the start of exactly this process, of it and all its descendants, in user and
    kernel; None if it is gone.

    A descendant that has ended is in the figure of whoever waited for it. One that ends during the look may be missing
    in it: who compares two looks must take the highest figure that there was.
    """
    if not is_alive(identity):
        return None
    ticks = 0
    waiting: list[tuple[int, int | None]] = [(identity.pid, None)]
    while waiting:
        pid, parent = waiting.pop()
        found = _stat(pid)
        # Its pid may have been handed out again since its parent named it.
        if found is None or (parent is not None and found[0] != parent):
            continue
        ticks += found[1]
        waiting += [(child, pid) for child in children(pid)]
    return ticks / _TICKS


def _stat(pid: int) -> tuple[int, int] | None:
    """Parent, and ticks of the process and of those that it waited for; also of a zombie, whose own are not its
    parent's yet."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        stat = Path(f"/proc/{pid:d}/stat").read_bytes()
        fields = stat[stat.rindex(b")") + 2 :].split()
        return int(fields[_PARENT]), sum(int(field) for field in fields[_TIMES])
    return None
