"""A long steady load on one replica, then SIGTERM under it: `python -m benchmarks.runtime.soak`.

The load is 70 % of the capacity that was measured just before, on a Unix socket, as replicas have. Shows the replica's
memory over time, p99 per minute (per tenth of a shorter run) from the moment each request was due, and what became of
the requests under way when the replica was told to stop. `steady` states which requests count. Exit status 1 when
memory grows, p99 does not hold, or a request was lost.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report
from benchmarks.runtime import contestants, models
from benchmarks.runtime.contestants import ROOT, Server
from benchmarks.runtime.load import Target, measure, plan, write_requests
from benchmarks.runtime.sections import INFER

SHARE = 0.7
GROWTH = 8 * 2**20
"""Bytes that the replica may be larger at the end than after the first tenth: what allocators keep."""
P99_TIMES = 1.5
"""A window's p99 may be so many times the median of all windows', or so many milliseconds above it if that is more."""
P99_SLACK_MS = 1.0
NEVER_TAKEN = 0
"""Connections opened after the signal that ended without a byte: a replica takes what waits at its Unix socket."""
_CONNECTIONS = 64
_AFTER = 30.0


@dataclass
class Soak:
    """What was measured."""

    capacity: float
    rate: float
    stream: dict[str, Any]
    """What `steady` says."""
    told_to_stop: float
    """Seconds on the monotonic clock, which all processes share."""
    exit_code: int | None = None
    memory: list[int] = field(default_factory=list)
    """Bytes resident, every half second."""

    @property
    def growth(self) -> int:
        """Bytes from the end of the first tenth to the end."""
        return self.memory[-1] - self.memory[len(self.memory) // 10]

    @property
    def lost(self) -> list[dict[str, Any]]:
        """Requests that were sent and not answered."""
        return [one for one in self.stream["lost"] if not self._never_taken(one)]

    @property
    def never_taken(self) -> int:
        """Connections that were opened after the signal and closed without a byte."""
        return len(self.stream["lost"]) - len(self.lost)

    def _never_taken(self, one: dict[str, Any]) -> bool:
        return one["opened"] > self.told_to_stop and not one["partly"]

    def goals(self) -> list[dict[str, Any]]:
        """What was wanted, and whether it holds."""
        p99 = [window["p99_ms"] for window in self.stream["windows"]]
        most = max(P99_TIMES * statistics.median(p99), statistics.median(p99) + P99_SLACK_MS)
        unanswered = len(self.lost) + self.stream["failed"]
        return [
            _at_most("memory grows by, MiB", self.growth / 2**20, GROWTH / 2**20),
            _at_most("worst window's p99, ms", max(p99), most),
            _at_most("failed or unanswered requests", unanswered, 0),
            _at_most("connections never taken after SIGTERM", self.never_taken, NEVER_TAKEN),
            {
                "goal": "exit status after SIGTERM", "wanted": "0",
                "found": self.exit_code, "met": self.exit_code == 0,
            },
        ]  # fmt: skip

    @property
    def noise(self) -> tuple[float, float, float]:
        """p99 of the best, the median and the worst window, ms: what a window differs from another by."""
        p99 = sorted(window["p99_ms"] for window in self.stream["windows"])
        return p99[0], statistics.median(p99), p99[-1]


def _at_most(words: str, found: float, most: float) -> dict[str, Any]:
    return {"goal": words, "wanted": f"at most {most:.3g}", "found": found, "met": found <= most}


def soak(
    seconds: float, windows: int, say: Callable[[str], object], ending: signal.Signals = signal.SIGTERM
) -> Soak:
    """Measure capacity, load the replica for `seconds`, end it under load."""
    with tempfile.TemporaryDirectory(prefix="pbs-", dir="/tmp") as made:
        folder = Path(made)
        trained = models.pipeline(folder)
        server_core, client_core = contestants.cores()
        with contestants.podium(trained, server_core, uds=True) as server:
            bodies = [models.json_body(trained, trained.rows[row : row + 1]) for row in range(256)]
            requests = [models.http_request("replica", INFER, body) for body in bodies]
            target = Target("http", server.http, requests)
            file = write_requests(folder / "requests", requests)
            say("measuring capacity")
            capacity = statistics.median(
                measure(target, file, client_core, connections=_CONNECTIONS, seconds=min(3.0, seconds / 6))[
                    "per_second"
                ]
                for _ in range(3)
            )
            wish = plan(target, file, client_core) | {
                "rate": SHARE * capacity, "connections": _CONNECTIONS, "seconds": seconds + _AFTER,
                "windows": windows, "span": seconds, "ending": ending,
            }  # fmt: skip
            return _load(server, wish, Soak(capacity, SHARE * capacity, {}, 0.0), say)


def _load(server: Server, wish: dict[str, Any], found: Soak, say: Callable[[str], object]) -> Soak:
    stream = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.runtime.steady"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert stream.stdin is not None
        stream.stdin.write(json.dumps(wish).encode())
        stream.stdin.close()
        stream.stdin = None
        end = time.monotonic() + wish["span"]
        while (now := time.monotonic()) < end and stream.poll() is None:
            found.memory.append(resident(server.process.pid))
            say(f"{found.rate:.0f} requests/s, {end - now:.0f} s to go, {found.memory[-1] / 2**20:.1f} MiB")
            time.sleep(min(0.5, end - now))
        say("ending it under load")
        found.told_to_stop = time.monotonic()
        server.process.send_signal(wish["ending"])
        output, _ = stream.communicate(timeout=_AFTER + 30)
        found.stream = json.loads(output)
        found.exit_code = server.process.wait(_AFTER)
    finally:
        stream.kill()
        stream.wait()
    return found


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise ProcessLookupError(pid)


def rows(found: Soak) -> list[dict[str, Any]]:
    """One per window."""
    made = []
    windows = found.stream["windows"]
    for number, window in enumerate(windows):
        sizes = found.memory[
            number * len(found.memory) // len(windows) : (number + 1) * len(found.memory) // len(windows)
        ]
        made.append({"window": number + 1, **window, "memory_mib": max(sizes, default=0) / 2**20})
    return made


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="(default: %(default)g)")
    parser.add_argument("--json", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    console = Console()
    windows = max(10, round(options.seconds / 60))
    with console.status("starting") as status:
        found = soak(options.seconds, windows, status.update)
    report.show(f"{found.rate:.0f} requests/s, {SHARE:.0%} of {found.capacity:.0f}", rows(found), console)
    goals = found.goals()
    report.show("Goals", goals, console)
    stream = found.stream
    console.print("p99 of windows, ms: best {:.2f}, median {:.2f}, worst {:.2f}".format(*found.noise))
    console.print(
        f"after SIGTERM: {len(found.lost)} lost, {stream['failed']} failed, {stream['refused']} connections refused, "
        f"{found.never_taken} never taken; client busy {stream['busy']:.0%}"
    )
    summary = {
        "capacity": found.capacity, "rate": found.rate, "client_busy": stream["busy"], "lost": found.lost,
        "refused": stream["refused"], "never_taken": found.never_taken, "p99_ms_over_windows": found.noise,
    }  # fmt: skip
    console.print(f"written to {report.write('soak', [*rows(found), *goals, summary], options.json)}")
    return 0 if all(goal["met"] for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
