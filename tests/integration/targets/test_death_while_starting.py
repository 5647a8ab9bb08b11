"""A server that dies by SIGKILL at any line of `start`: the next one starts the replica, and there is exactly one."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Yard, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.chaos,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="replicas as processes need Linux"),
]
POINTS = 12

# Dies before the line number argv[4] (counted over all lines of podium that run); 0: counts, and prints how many.
SERVER = """
import os, pickle, sys
from pathlib import Path
from podium.targets.process import ProcessTarget
target = ProcessTarget(Path(sys.argv[1]), Path(sys.argv[2]))
wish, at, lines = pickle.loads(bytes.fromhex(sys.argv[3])), int(sys.argv[4]), 0
def trace(frame, event, argument):
    global lines
    if "/podium/" not in frame.f_code.co_filename:
        return None
    if event == "line":
        lines += 1
        if lines == at:
            os.kill(os.getpid(), 9)
    return trace
sys.settrace(trace)
target.start(wish)
sys.settrace(None)
print(lines)
"""


def server(yard: Yard, name: str, at: int) -> "subprocess.CompletedProcess[str]":
    arguments = [
        str(yard.root),
        str(yard.sockets),
        pickle.dumps(yard.wish(name=name, uid=name)).hex(),
        str(at),
    ]
    return subprocess.run(
        [sys.executable, "-c", SERVER, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def processes_of(folder: Path) -> dict[str, int]:
    """How many shims and replicas run for a folder, orphans included."""
    found = {"shim": 0, "replica": 0}
    for name in os.listdir("/proc"):
        try:
            arguments = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0") if name.isdigit() else []
        except OSError:
            continue
        found["shim"] += os.fsencode(folder / "spec.json") in arguments
        found["replica"] += os.fsencode(folder / "config.json") in arguments
    return found


def test_there_is_one_replica_wherever_the_first_server_died(yard: Yard) -> None:
    counted = server(yard, "counted", 0)
    assert counted.returncode == 0, counted.stderr
    lines = int(counted.stdout)
    assert lines > 100
    target = yard.target()
    died = 0
    for point in range(1, POINTS + 1):
        name = f"death-{point}"
        folder = yard.root / name / name
        done = server(yard, name, max(1, lines * point // POINTS))
        died += done.returncode == -signal.SIGKILL
        target.start(yard.wish(name=name, uid=name))
        yard.reaches(target, "Ready", name)
        # A second shim that found the first one's lock may take a moment to end.
        until(lambda folder=folder: processes_of(folder) == {"shim": 1, "replica": 1})
        assert {one.phase for one in target.observe(name)} == {"Ready"}
        target.stop(name, 0)
        yard.reaches(target, "Exited", name)
        target.forget(name)
        until(lambda folder=folder: processes_of(folder) == {"shim": 0, "replica": 0})
    # Waiting for the shim takes more lines on one day than on another, so the last points may be past the end.
    assert died >= POINTS // 2
