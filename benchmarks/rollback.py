"""From the verdict to the last request that was started on the bad revision: `python -m benchmarks.rollback`.

A candidate that really fails (no imputer; a quarter of the requests lack a measurement) is rolled out again and again
and taken back by the analysis each time, with 1 Deployment and with 1,000 (999 of them without replicas). Client and
server are on one machine and go by one clock. A request counts as started before its connection is even chosen.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from benchmarks import report
from benchmarks.declared import declare
from benchmarks.world import NAME, World, world
from podium.demo.load import Answers, quantile
from podium.resources.kinds import Rollout

RATE = 300.0
GOAL_MS = 250.0
# The step never ends by itself: the errors end the rollout.
SETTINGS = {"strategy": {"type": "canary", "steps": [{"weight": 50, "requests": 1_000_000}]}}


@dataclass(frozen=True)
class TakenBack:
    """One rollback. Times in seconds since the epoch."""

    candidate: str
    opened: float
    verdict: float
    loaded: float
    """When the server knew that the gateway had loaded it."""


def roll_back_often(world: World, times: int, rate: float, say: Any) -> tuple[list[TakenBack], Answers]:
    """Roll the failing version out `times` times under load, each time until the analysis has taken it back."""
    found: list[TakenBack] = []
    with world.load(rate) as load:
        number = world.deployment().status.rollout_count
        for turn in range(times):
            say(f"rollback {turn + 1} of {times}")
            opened = time.time()
            if not world.deployment().status.rejected:
                world.apply("failing", **SETTINGS)
            else:
                world.installation.client.rollout(NAME, "retry")
            number += 1
            found.append(_taken_back(world.rollout_ends(number, 180.0), opened))
            # Its replicas go only when its last requests are over; the next turn starts from the same state.
            world.settled()
        load.wait_until(lambda answers: bool(answers.since(found[-1].loaded + 1)), 60)
    return found, load.answers


def _taken_back(ended: Rollout, opened: float) -> TakenBack:
    status = ended.status
    if status.phase != "RolledBack" or "error rate" not in status.message.replace("_", " "):
        raise RuntimeError(f"not what was to be measured: {status.phase}, {status.message}")
    assert status.verdict_at is not None and status.finished_at is not None
    return TakenBack(
        ended.spec.candidate_revision, opened, status.verdict_at.timestamp(), status.finished_at.timestamp()
    )


def last_bad(turns: list[TakenBack], answers: Answers) -> list[float]:
    """For each turn: seconds from the verdict to the last request started that the bad revision answered."""
    ends = [turn.opened for turn in turns[1:]] + [float("inf")]
    seconds = []
    for turn, end in zip(turns, ends, strict=True):
        bad = [
            row.started
            for row in answers.rows
            if row.revision == turn.candidate and turn.opened <= row.started < end
        ]
        if not bad:
            raise RuntimeError("no request reached the candidate")
        seconds.append(max(bad) - turn.verdict)
    return seconds


def row(deployments: int, turns: list[TakenBack], answers: Answers) -> dict[str, Any]:
    """What is reported of one series, in milliseconds."""
    bad = [1000 * max(0.0, seconds) for seconds in last_bad(turns, answers)]
    told = [1000 * (turn.loaded - turn.verdict) for turn in turns]
    return {
        "deployments": deployments,
        "rollbacks": len(turns),
        "requests": len(answers.rows),
        "last_bad_p50_ms": quantile(bad, 0.5),
        "last_bad_worst_ms": max(bad),
        "goal_ms": GOAL_MS,
        "reported_loaded_p50_ms": quantile(told, 0.5),
        "reported_loaded_worst_ms": max(told),
        "lost_requests": sum(answer.failed and not answer.revision for answer in answers.rows),
        "all_ms": bad,
    }


def measure(made: World, status: Status, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both series."""
    made.settle("first")
    rows = [row(1, *roll_back_often(made, options.rollbacks, options.rate, status.update))]
    if options.deployments > 1:
        declare(made, options.deployments - 1, status.update)
        rows.append(
            row(options.deployments, *roll_back_often(made, options.rollbacks, options.rate, status.update))
        )
    return rows


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollbacks", type=int, default=20, help="per series (default: %(default)s)")
    parser.add_argument(
        "--deployments", type=int, default=1000, help="in the second series (default: %(default)s)"
    )
    parser.add_argument("--rate", type=float, default=RATE, help="requests per second (default: %(default)g)")
    parser.add_argument("--json", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    console = Console()
    with console.status("setting up") as status, world(status.update) as made:
        rows = measure(made, status, options)
    shown = [{key: value for key, value in row.items() if key != "all_ms"} for row in rows]
    report.show("From the verdict to the last request started on the bad revision", shown, console)
    console.print(f"written to {report.write('rollback', rows, options.json)}")
    return 1 if any(row["last_bad_worst_ms"] >= GOAL_MS or row["lost_requests"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
