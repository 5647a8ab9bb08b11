"""The model server beside MLServer, in one run: `python -m benchmarks.runtime`.

One server process each, on one core; the client on another. Requests per second and latencies at 1, 16 and 64
connections in interleaved rounds; medians, and ratios to MLServer at its best (as it comes, or tuned for the section)
in the same round. Exit status 1 when a goal is not met.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.status import Status

from benchmarks import report
from benchmarks.runtime.contestants import MLSERVER, cores
from benchmarks.runtime.rounds import Bench, Effort
from benchmarks.runtime.sections import SECTIONS, Outcome

_SHOWN = (
    "server", "connections", "per_second", "p50_ms", "p99_ms", "times", "alone_ms", "beyond_alone_ms", "client_busy",
)  # fmt: skip


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of one measurement (default: %(default)g)"
    )
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64], metavar="N")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--json", type=Path, help="where the JSON goes")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, status: Status, console: Console) -> list[Outcome]:
    """All sections that were asked for; each is printed as soon as it is there."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="pbr-", dir="/tmp") as made:
        effort = Effort(options.rounds, options.seconds, options.connections)
        bench = Bench(Path(made), effort, cores(), status.update)
        console.print(f"Cores: server {bench.cores[0]}, client {bench.cores[1]}")
        for name in options.only:
            outcome = SECTIONS[name](bench)
            outcomes.append(outcome)
            tried = [{key: row[key] for key in row if key != "section"} for row in outcome.tuning]
            report.show(outcome.tuning[0]["section"], tried, console)
            shown = [{key: row[key] for key in _SHOWN if key in row} for row in outcome.rows]
            report.show(outcome.rows[0]["section"], shown, console)
    return outcomes


def main() -> int:
    """Entry point."""
    options = options_of()
    console = Console()
    if not (MLSERVER / "bin" / "python").exists():
        console.print("MLServer's environment is missing. Next: make bench-runtime makes it")
        return 2
    with console.status("training") as status:
        outcomes = measure(options, status, console)
    goals = [goal for outcome in outcomes for goal in outcome.goals]
    if goals:
        report.show("Goals", goals, console)
    everything = [row for outcome in outcomes for row in (*outcome.tuning, *outcome.rows)] + goals
    console.print(f"written to {report.write('runtime', everything, options.json)}")
    return 0 if all(goal["met"] for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
