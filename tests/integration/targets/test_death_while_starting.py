"""A server that dies by SIGKILL at any line of `start`: the next one starts the replica, and there is exactly one."""

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from podium.targets.port import ReplicaWish

from .conftest import Yard, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.chaos,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="replicas as processes need Linux"),
]

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


def server(yard: Yard, wish: ReplicaWish, at: int) -> "subprocess.CompletedProcess[str]":
    arguments = [str(yard.root), str(yard.sockets), pickle.dumps(wish).hex(), str(at)]
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


@pytest.mark.parametrize(
    ("dormant", "phase", "points"),
    [(False, "Ready", 12), (True, "Dormant", 8)],
    ids=["started", "put to sleep"],
)
def test_there_is_one_replica_wherever_the_first_server_died(
    yard: Yard, dormant: bool, phase: str, points: int
) -> None:
    def wish(name: str) -> ReplicaWish:
        return replace(yard.wish(name=name, uid=name), dormant=dormant)

    counted = server(yard, wish("counted"), 0)
    assert counted.returncode == 0, counted.stderr
    lines = int(counted.stdout)
    assert lines > 100
    target = yard.target()
    died = 0
    for point in range(1, points + 1):
        name = f"death-{point}"
        folder = yard.root / name / name
        done = server(yard, wish(name), max(1, lines * point // points))
        died += done.returncode == -signal.SIGKILL
        target.start(wish(name))
        yard.reaches(target, phase, name)
        # A second shim that found the first one's lock may take a moment to end.
        until(lambda folder=folder: processes_of(folder) == {"shim": 1, "replica": int(not dormant)})
        assert {one.phase for one in target.observe(name)} == {phase}
        target.stop(name, 0)
        yard.reaches(target, "Exited", name)
        target.forget(name)
        until(lambda folder=folder: processes_of(folder) == {"shim": 0, "replica": 0})
    # Waiting for the shim takes more lines on one day than on another, so the last points may be past the end.
    assert died >= points // 2
