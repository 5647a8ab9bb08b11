"""Runs a command, and fails if it leaves processes behind: tools/no_leftovers.py COMMAND [ARGUMENT...].

`make test` runs pytest under it. Podium's replicas, its server and Envoy are detached on purpose, so an ordinary look
at the children of pytest would miss them. This process makes itself the one that orphans are given to (Linux:
prctl, PR_SET_CHILD_SUBREAPER), collects their exit statuses as init would, and when the command has ended, names and
ends whatever is still there. Exit status: the command's own, or 1 when it was 0 and something was left.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

import psutil

_PR_SET_CHILD_SUBREAPER = 36
# Processes that a test has just told to end may take this long, in seconds, without being counted.
_GRACE = 5.0


def adopt_orphans() -> bool:
    """Ask the kernel to give orphaned descendants to this process. False where it cannot (not Linux)."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def run(command: list[str]) -> int:
    """Run `command` to its end, reaping orphans meanwhile; its exit status (128 + N when signal N ended it)."""
    child = subprocess.Popen(command)

    def pass_on(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    # Ctrl-C reaches the command through the terminal; this process has to live on to clean up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGHUP, pass_on)
    while True:
        # Not child.wait(): orphans that were given to this process have to be collected too.
        pid, status = os.waitpid(-1, 0)
        if pid == child.pid:
            code = os.waitstatus_to_exitcode(status)
            child.returncode = code
            return code if code >= 0 else 128 - code


def leftovers() -> list[psutil.Process]:
    """Living descendants, after a grace period for those that are about to end."""
    deadline = time.monotonic() + _GRACE
    while True:
        reap()
        alive = [process for process in psutil.Process().children(recursive=True) if is_alive(process)]
        if not alive or time.monotonic() > deadline:
            return alive
        psutil.wait_procs(alive, timeout=0.1)


def reap() -> None:
    """Collect every child that has ended, as init would."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def describe(process: psutil.Process) -> str:
    """One line: pid, command, and the test that started it (pytest puts its name into the environment)."""
    try:
        command = " ".join(process.cmdline())[:200] or process.name()
    except psutil.Error:
        command = "(gone)"
    try:
        test = process.environ().get("PYTEST_CURRENT_TEST", "not known")
    except (psutil.Error, OSError):
        test = "not known"
    return f"  pid {process.pid}: {command}\n      started during: {test}"


def main() -> int:
    """Entry point."""
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    watching = adopt_orphans()
    status = run(sys.argv[1:])
    if not watching:
        print("no_leftovers: only Linux can tell which processes were left behind; not checked")
        return status
    left = leftovers()
    if not left:
        return status
    # Its own line and on stderr, so that pytest's closing line stays what it is.
    print(f"no_leftovers: {len(left)} processes were left behind (now ended):", file=sys.stderr)
    for process in left:
        print(describe(process), file=sys.stderr)
    # Again and again: a supervisor that dies may have started another child just before.
    for _ in range(20):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)
        reap()
        left = psutil.Process().children(recursive=True)
        if not left:
            break
    return status or 1


if __name__ == "__main__":
    sys.exit(main())
