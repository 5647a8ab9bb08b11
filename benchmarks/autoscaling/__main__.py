"""How well replicas follow a load, by simulation: `python -m benchmarks.autoscaling`.

For each load shape and each kind of target: the share of requests over the latency limit, replica-seconds beside those
of an oracle (which knows the load to come, and has the same start delay) and of a fixed number that is enough for the
peak, and how often the number turned round. The same seed gives the same figures. Pictures go beside the JSON.
"""

import argparse
import time
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
}


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--target", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--max", type=int, default=20, help="replicas (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where the JSON goes; the pictures go beside it")
    return parser.parse_args(arguments)


def play(target: str, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[Panel]]:
    """All shapes with one kind of target."""
    conditions = Conditions(seed=options.seed)
    scaling = Scaling.model_validate({"max": options.max, "target": TARGETS[target]})
    rows, panels = [], []
    for shape in options.shape:
        rates = SHAPES[shape]()
        ours, best = autoscaled(rates, scaling, conditions), oracle(rates, scaling, conditions)
        fixed = max(best.wanted) * len(rates)
        row = {
            "target": target,
            "shape": shape,
            "requests": len(ours.latencies),
            "too_slow": ours.too_slow(conditions.limit),
            "oracle_too_slow": best.too_slow(conditions.limit),
            "replica_hours": ours.replica_seconds / 3600,
            "to_oracle": ours.replica_seconds / best.replica_seconds,
            "to_fixed": ours.replica_seconds / fixed,
            "turns": ours.turns,
            "moves": ours.moves,
        }
        words = (
            f"{row['too_slow']:.2%} over {conditions.limit * 1000:.0f} ms; {row['to_oracle']:.2f} x the oracle's "
            f"replica-seconds; {row['turns']} turns"
        )
        rows.append(row)
        panels.append((shape, words, rates, ours, best))
    return rows, panels


def main(arguments: list[str] | None = None) -> None:
    """Play, print, write."""
    options, console, began = options_of(arguments), Console(), time.monotonic()
    rows: list[dict[str, Any]] = []
    pictures: dict[str, str] = {}
    with ProcessPoolExecutor(report.cores()) as pool:
        played = list(pool.map(play, options.target, [options] * len(options.target)))
    for target, (some, panels) in zip(options.target, played, strict=True):
        rows += some
        pictures[target] = svg(f"Autoscaling by {target} ({TARGETS[target][target]} per replica)", panels)
    report.show("Autoscaling", rows, console)
    target_file = report.write("autoscaling", rows, options.json)
    for name, picture in pictures.items():
        path = target_file.with_name(f"autoscaling-{name}.svg")
        path.write_text(picture, encoding="utf-8")
        console.print(f"{path}")
    console.print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
