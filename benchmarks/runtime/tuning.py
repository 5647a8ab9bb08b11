"""What is tried to make MLServer fast, and which of it is fastest for a section's model and protocol.

Called by `sections`, which shows every candidate's figures. Calls `contestants` and `load`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.runtime import contestants
from benchmarks.runtime.contestants import Server, Tuning
from benchmarks.runtime.load import Target, measure, write_requests
from benchmarks.runtime.models import Trained
from benchmarks.runtime.rounds import Bench

AS_IT_COMES = Tuning("mlserver")
_NAME = "mlserver tuned"
GRID = (
    Tuning(_NAME, workers=0, quiet=True),
    Tuning(_NAME, workers=1, quiet=True),
    Tuning(_NAME, 16, 0.001, workers=0, quiet=True),
    Tuning(_NAME, 64, 0.001, workers=0, quiet=True),
    Tuning(_NAME, 64, 0.005, workers=0, quiet=True),
    Tuning(_NAME, 64, 0.001, workers=1, quiet=True),
)
"""Without its adaptive batching and with it, in the main process and in one beside it; no log line per request."""
_SECONDS = 2.0


@dataclass(frozen=True)
class Tuned:
    """The settings with which MLServer answers most, and one row per candidate."""

    best: Tuning
    rows: list[dict[str, Any]]


def tune(
    bench: Bench,
    section: str,
    trained: Trained,
    target_of: Callable[[Server], Target],
    connections: Sequence[int] = (16, 64),
) -> Tuned:
    """Short runs of every candidate; the best has the largest product of requests per second."""
    made, scores = [], []
    for number, tuning in enumerate(GRID):
        bench.say(f"{section}: tuning MLServer, {number + 1} of {len(GRID)}")
        row: dict[str, Any] = {
            "section": f"{section}: tuning MLServer", "max_batch_size": tuning.batch_size,
            "max_batch_time_ms": 1000 * tuning.batch_seconds, "parallel_workers": tuning.workers,
        }  # fmt: skip
        score = 1.0
        with contestants.mlserver(trained, bench.cores[0], tuning) as server:
            target = target_of(server)
            file = write_requests(
                bench.folder / f"tune-{section}-{number}".replace("/", "-"), target.requests
            )
            for count in connections:
                found = measure(
                    target, file, bench.cores[1],
                    connections=count, seconds=min(_SECONDS, bench.effort.seconds),
                )  # fmt: skip
                row[f"per_second_{count}"] = found["per_second"]
                score *= found["per_second"]
        made.append(row)
        scores.append((score, number))
    best = max(scores)[1]
    return Tuned(GRID[best], [{**row, "chosen": number == best} for number, row in enumerate(made)])
