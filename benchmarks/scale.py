"""What 1,000 Deployments cost that are declared and serve nothing: `python -m benchmarks.scale`.

Seconds per apply over HTTP, what the gateway answers for them, memory and idle CPU of each process, and the time from
the commit of a weight to Envoy's acknowledgement of it, with 1 and with all of them.
"""

import argparse
import datetime
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.status import Status

from benchmarks import report
from benchmarks.declared import declare, version
from benchmarks.disruptions import other
from benchmarks.world import NAME, World, until, world
from podium.demo.load import quantile
from podium.resources.kinds import KINDS, Rollout
from podium.resources.rollout import FINAL_PHASES

PARTS = ("server", "gateway", "envoy", "supervisor")
MIB = 2**20
SAMPLE = 50
WRITERS = 2


def flips(world: World, times: int, say: Any) -> list[float]:
    """Seconds from the commit of a weight (as the server wrote it) to the server's knowing that Envoy has loaded it.

    One canary whose steps go by time, without analysis; each step is one flip. What is timed are the server's own
    records: the change that wrote the weight, and the decision's `loaded`.
    """
    steps = [{"weight": weight, "duration": "1s"} for weight in range(1, times + 1)]
    settings = {
        "strategy": {"type": "canary", "steps": steps, "keepOld": "0s"},
        "analysis": {"enabled": False},
    }
    number = world.deployment().status.rollout_count + 1
    seen: dict[int, float] = {}
    found: list[float] = []
    say(f"{times} flips of weights")
    client = world.installation.client
    after = version(world)
    world.apply(other(world), **settings)
    for event in client.watch(["Rollout"], after=after):
        if event.object is None:
            continue
        rollout: Rollout = KINDS["Rollout"].parse(event.object)
        if rollout.metadata.name != f"{NAME}-{number}":
            continue
        status, at = rollout.status, rollout.metadata.updated_at
        assert isinstance(at, datetime.datetime)
        if status.weight and not status.loaded:
            seen.setdefault(status.weight, at.timestamp())
        elif status.weight in seen and status.step_started_at is not None:
            found.append(status.step_started_at.timestamp() - seen.pop(status.weight))
        if status.phase in FINAL_PHASES:
            break
    world.settled()
    return found


def answers(world: World, count: int) -> dict[str, int]:
    """What the gateway says for a sample of the idle Deployments: how many said 503, with a problem that says why."""
    good = 0
    headers = {"authorization": f"Bearer {world.installation.token}"}
    numbers = sorted({round(step * (count - 1) / (SAMPLE - 1)) for step in range(SAMPLE)})
    with httpx.Client(base_url=world.installation.gateway, headers=headers, trust_env=False) as client:
        for number in numbers:
            got = client.post(f"/v2/models/idle-{number}/infer", content=world.bodies[0])
            problem = got.json() if "json" in got.headers.get("content-type", "") else {}
            right = got.status_code == problem.get("status") == httpx.codes.SERVICE_UNAVAILABLE
            good += (
                right
                and "no replicas" in problem.get("detail", "")
                and problem.get("deployment") == f"idle-{number}"
            )
    return {"asked": len(numbers), "answered_503_with_reason": good}


def resources(world: World, seconds: float) -> dict[str, float]:
    """Resident memory of each process, and the CPU it took in `seconds` in which nothing was asked of it."""
    processes = {part: psutil.Process(world.pid(part)) for part in PARTS}
    before = {part: _cpu(process) for part, process in processes.items()}
    began = time.monotonic()
    time.sleep(seconds)  # what is measured
    passed = time.monotonic() - began
    found: dict[str, float] = {}
    for part, process in processes.items():
        found[f"{part}_mib"] = process.memory_info().rss / MIB
        found[f"{part}_idle_cpu_percent"] = 100 * (_cpu(process) - before[part]) / passed
    return found


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def quiet(world: World, limit: float = 120.0) -> None:
    """Until the server has nothing due, so that idle is idle."""
    url = f"{world.installation.addresses()['url']}/metrics"

    def idle() -> bool:
        text = httpx.get(
            url, timeout=10, headers={"authorization": f"Bearer {world.installation.token}"}
        ).text
        lag = [
            float(line.split()[1])
            for line in text.splitlines()
            if line.startswith("podium_work_lag_seconds ")
        ]
        return bool(lag) and lag[0] < 0.1

    until(idle, limit, lambda: "the server does not come to rest", pause=0.5)


def measure(made: World, status: Status, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for one Deployment, one for all."""
    made.settle("first")
    rows = [_row(made, 1, [], status, options)]
    times = declare(made, options.deployments, status.update, writers=WRITERS)
    row = _row(made, options.deployments, times, status, options)
    return [*rows, {**row, **answers(made, options.deployments)}]


def _row(
    made: World, count: int, times: list[float], status: Status, options: argparse.Namespace
) -> dict[str, Any]:
    quiet(made)
    status.update(f"idle for {options.idle:g} s with {count} Deployments")
    used = resources(made, options.idle)
    flipped = [1000 * seconds for seconds in flips(made, options.flips, status.update)]
    return {
        "deployments": count,
        "writers_at_once": WRITERS if times else None,
        "apply_p50_ms": 1000 * quantile(times, 0.5) if times else None,
        "apply_p99_ms": 1000 * quantile(times, 0.99) if times else None,
        "flips": len(flipped),
        "flip_p50_ms": quantile(flipped, 0.5),
        "flip_worst_ms": max(flipped),
        **used,
    }


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=1000, help="default: %(default)s")
    parser.add_argument(
        "--flips", type=int, default=20, help="flips of weights per row (default: %(default)s)"
    )
    parser.add_argument("--idle", type=float, default=20.0, help="seconds to look at (default: %(default)g)")
    parser.add_argument("--json", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    console = Console()
    with console.status("setting up") as status, world(status.update) as made:
        rows = measure(made, status, options)
    table = [
        {
            "figure": key.replace("_", " "),
            **{f"{row['deployments']:,} Deployments": row.get(key) for row in rows},
        }
        for key in dict.fromkeys(key for row in rows for key in row)
    ]
    report.show("Deployments without replicas", table, console)
    console.print(f"written to {report.write('scale', rows, options.json)}")
    last = rows[-1]
    return 0 if last["asked"] == last["answered_503_with_reason"] else 1


if __name__ == "__main__":
    sys.exit(main())
