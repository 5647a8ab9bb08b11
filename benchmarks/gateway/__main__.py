"""What the gateway costs a request, in one run: `python -m benchmarks.gateway`.

The full chain (token, split over two Deployments by a sticky key, limits per route and caller, a record per request)
beside a plain Envoy that passes everything through, the backend asked directly, a Deployment without a Route, and two
reverse proxies in Python. The backend is an Envoy that answers by itself. Then the chain without one part after the
other, and a real model server behind it. Exit status 1 when a goal is not met.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from benchmarks import report
from benchmarks.gateway import generators
from benchmarks.gateway.contestants import DIRECT, FULL, PLAIN, Cores, checked, started
from benchmarks.gateway.envoys import folder
from benchmarks.gateway.parts import CONNECTIONS, costs
from benchmarks.gateway.real import replica_rows
from benchmarks.gateway.rounds import Found, measured, rows

LEAST_SHARE, MOST_ADDED_MS = 0.85, 0.35
_LOOKS = 3
"""At each part of the chain, per round."""
_MANY = 64


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of one measurement (default: %(default)g)"
    )
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, _MANY], metavar="N")
    parser.add_argument("--quick", action="store_true", help="two rounds, without parts, replica and Python")
    parser.add_argument(
        "--only", choices=["ways", "parts", "replica"], nargs="+", default=["ways", "parts", "replica"]
    )
    parser.add_argument(
        "--own", action="store_true", help="ask with podium load, also where wrk is installed"
    )
    parser.add_argument("--json", type=Path, help="where the JSON goes")
    return parser.parse_args(arguments)


def goals_of(found: Found, connections: list[int]) -> list[dict[str, Any]]:
    """What was to be reached, and what was found. A round in which the generator was the bottleneck flatters."""
    made = []
    for count in connections:
        if count > 1:
            share = found.against(FULL, PLAIN, count, "per_second")
            made.append(
                {"goal": f"requests/s of plain Envoy's, {count} connections", "wanted": f">= {LEAST_SHARE}",
                 "found": round(share, 3), "met": share >= LEAST_SHARE}
            )  # fmt: skip
    if 1 in connections:
        added = found.against(FULL, DIRECT, 1, "p50_ms", minus=True)
        made.append(
            {"goal": "added p50 at one connection, ms", "wanted": f"<= {MOST_ADDED_MS}", "found": round(added, 3),
             "met": added <= MOST_ADDED_MS}
        )  # fmt: skip
    return made


def measure(
    options: argparse.Namespace, status: Status, console: Console
) -> tuple[list[dict[str, Any]], bool]:
    """Everything that was asked for, each table as soon as it is there; all rows, and whether the goals are met."""
    cores = Cores.found()
    everything: list[dict[str, Any]] = []
    met = True
    with folder() as place:
        generator = generators.Own(cores.asking) if options.own else generators.best(place, cores.asking)
        console.print(f"Cores: {cores}. Asked by {generator.name}, one request at a time per connection.")
        if generator.name != "wrk":
            console.print(
                "Without wrk the generator may be the bottleneck: see its column. (apt install wrk)"
            )
        parts = "parts" in options.only
        with started(cores, status.update, parts=parts, proxies=not options.quick) as field:
            checked([*field.contestants, *field.parts])
            effort = {"rounds": options.rounds, "seconds": options.seconds, "say": status.update}
            if "ways" in options.only:
                found = measured(generator, field.contestants, options.connections, **effort)
                ways = rows(found, field.contestants, options.connections)
                report.show("Ways to the backend", [_shown(row) for row in ways], console)
                goals = goals_of(found, options.connections)
                report.show("Goals", goals, console)
                everything += ways + goals
                met = all(goal["met"] for goal in goals)
            if parts:
                compared = [one for one in field.contestants if one.name in (PLAIN, FULL)]
                looks = _LOOKS * options.rounds
                found_costs = costs(
                    [*compared, *field.parts], FULL, cores.asking, looks=looks, say=status.update
                )
                report.show(f"The chain without one part, {CONNECTIONS} connections", found_costs, console)
                everything += found_costs
        if "replica" in options.only:
            real = replica_rows(
                cores, generator, status.update, rounds=options.rounds, seconds=options.seconds
            )
            report.show("A real model server behind it", [_shown(row) for row in real], console)
            everything += real
    return everything, met


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "rounds"}


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    options = options_of(arguments)
    if options.quick:
        options.rounds, options.only = min(options.rounds, 2), ["ways"]
    console = Console()
    with console.status("starting") as status:
        everything, met = measure(options, status, console)
    console.print(f"written to {report.write('gateway', everything, options.json)}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
