"""How well replicas follow a load, by simulation: `python -m benchmarks.autoscaling`.

For each load shape and each kind of target: the share of requests over the latency limit, replica-seconds beside those
of an oracle (which knows the load to come, and has the same start delay) and of a fixed number that is enough for the
peak, and how often the number turned round. Each is played with several seeds, none of which is the one that the rules
were made with (3): the median of a figure is shown, and the worst. The same seeds give the same figures. Pictures, of
the first seed, go beside the JSON.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report
from benchmarks.autoscaling.picture import Panel, svg
from benchmarks.autoscaling.shapes import SHAPES
from benchmarks.autoscaling.simulation import Conditions, autoscaled, oracle
from podium.resources.scaling import Scaling

TARGETS: dict[str, dict[str, Any]] = {
    "concurrency": {"concurrency": 1},
    "requestsPerSecond": {"requestsPerSecond": 6},
    "p95": {"p95": "300ms"},
    "cpu": {"cpu": 60},
}
SEEDS = (101, 102, 103, 104, 105)
_FIGURES = ("too_slow", "oracle_too_slow", "replica_hours", "to_oracle", "to_fixed", "turns", "moves")
_WORST = ("too_slow", "to_oracle", "turns")
Played = dict[str, tuple[dict[str, Any], Panel]]
"""By target: the figures of one run, and its picture."""


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--target", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--max", type=int, default=20, help="replicas (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where the JSON goes; the pictures go beside it")
    return parser.parse_args(arguments)


def play(shape: str, seed: int, targets: Sequence[str], most: int) -> Played:
    """One shape with one seed, for every kind of target."""
    conditions, rates, played = Conditions(seed=seed), SHAPES[shape](seed=seed), {}
    best = oracle(rates, Scaling(max=most), conditions)
    for target in targets:
        scaling = Scaling.model_validate({"max": most, "target": TARGETS[target]})
        ours = autoscaled(rates, scaling, conditions)
        row = {
            "requests": len(ours.latencies),
            "too_slow": ours.too_slow(conditions.limit),
            "oracle_too_slow": best.too_slow(conditions.limit),
            "replica_hours": ours.replica_seconds / 3600,
            "to_oracle": ours.replica_seconds / best.replica_seconds,
            "to_fixed": ours.replica_seconds / (max(best.wanted) * len(rates)),
            "turns": ours.turns,
            "moves": ours.moves,
        }
        words = (
            f"{row['too_slow']:.2%} over {conditions.limit * 1000:.0f} ms; {row['to_oracle']:.2f} x the oracle's "
            f"replica-seconds; {row['turns']} turns"
        )
        played[target] = row, (shape, words, rates, ours, best)
    return played


def summary(target: str, shape: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the runs with one seed each: the median of each figure, and the worst of those that matter most."""
    row: dict[str, Any] = {"target": target, "shape": shape, "seeds": len(runs)}
    for figure in _FIGURES:
        values = [run[figure] for run in runs]
        row[figure] = statistics.median(values)
        if figure in _WORST:
            row[f"{figure}_worst"] = max(values)
    return row


def main(arguments: list[str] | None = None) -> None:
    """Play, print, write."""
    options, console, began = options_of(arguments), Console(), time.monotonic()
    runs = list(itertools.product(options.shape, options.seeds))
    with ProcessPoolExecutor(report.cores()) as pool:
        waiting = [pool.submit(play, *run, options.target, options.max) for run in runs]
        played = dict(zip(runs, (one.result() for one in waiting), strict=True))
    rows = [
        summary(target, shape, [played[shape, seed][target][0] for seed in options.seeds])
        for target, shape in itertools.product(options.target, options.shape)
    ]
    shown = ("target", "shape", *(name for figure in _WORST for name in (figure, f"{figure}_worst")))
    report.show("Autoscaling", [{name: row[name] for name in shown} for row in rows], console)
    path = report.write("autoscaling", rows, options.json)
    for target in options.target:
        panels = [played[shape, options.seeds[0]][target][1] for shape in options.shape]
        picture = path.with_name(f"autoscaling-{target}.svg")
        title = f"Autoscaling by {target} ({TARGETS[target][target]} per replica), seed {options.seeds[0]}"
        picture.write_text(svg(title, panels), encoding="utf-8")
        console.print(f"{picture}")
    console.print(f"{len(runs) * len(options.target)} runs, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
