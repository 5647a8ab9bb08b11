"""How many requests fail while things are rolled out, killed and upgraded: `python -m benchmarks.availability`.

A real installation, one real model, a constant open-loop stream on the gateway. Every row must show 0 failed requests
but the last two, in which Envoy itself is killed: there the seconds until it answers again are what is asked for.
Exits 1 when a request failed that must not.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import disruptions, report, traffic_changes
from benchmarks.disruptions import Disruption
from benchmarks.world import World, world

RATE = 300.0
SCENARIOS: dict[str, Disruption] = {
    "rollout": disruptions.rollout,
    "abort in mid-rollout": disruptions.abort,
    "podium rollback": disruptions.rollback,
    "server killed in mid-rollout": disruptions.server_killed,
    "restart with a migration": disruptions.migration,
    "gateway agent killed": disruptions.agent_killed,
    "gateway upgraded in place": disruptions.gateway_upgrade,
    "supervisor, server, agent killed": disruptions.everything_killed,
    "scaled 1, 4, 1": traffic_changes.scaled,
    "Route changed": traffic_changes.route_changed,
    "token rotated": traffic_changes.token_rotated,
    "certificate renewed": traffic_changes.certificate_renewed,
    "slept and woken": traffic_changes.slept_and_woken,
    "second gateway restarted": traffic_changes.gateway_restarted,
    "model process killed, 1 of 2": disruptions.replica_killed,
    "shim killed, 1 of 2": disruptions.shim_killed,
    "Envoy killed": disruptions.envoy_killed,
    "Envoy killed, no server": disruptions.envoy_killed_alone,
}
FATAL = frozenset({disruptions.envoy_killed, disruptions.envoy_killed_alone})
"""Those in which requests fail, because what answers them is killed."""

SHOWN = ("while", "requests", "failed", "p50_ms", "p99_ms", "what")
"""Columns for people; the rest is in the JSON."""


def measure(world: World, names: list[str], rate: float, console: Console) -> list[dict[str, Any]]:
    """One row per scenario; one that does not come out right becomes a row that says so."""
    rows: list[dict[str, Any]] = []
    with console.status("first rollout") as status:
        world.settle("first")
        for name in names:
            status.update(name)
            two = "1 of 2" in name
            disruptions.scale(world, 2 if two else 1)
            try:
                seen = disruptions.under_load(world, SCENARIOS[name], rate=rate)
            except (AssertionError, TimeoutError) as error:
                rows.append({"while": name, "failed": None, "what": f"WRONG: {error}"[:500]})
                continue
            rows.append({**seen.row(name), "expected": "failures" if SCENARIOS[name] in FATAL else 0})
            if seen.failures:
                console.print(f"{name}: {seen.words}")
    return rows


def bad(row: dict[str, Any]) -> bool:
    """Did something go wrong that must not?"""
    return row["failed"] is None or (row["expected"] == 0 and row["failed"] > 0)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=RATE, help="requests per second (default: %(default)g)")
    parser.add_argument(
        "--only", action="append", choices=list(SCENARIOS), help="one scenario; may be repeated"
    )
    parser.add_argument("--json", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    console = Console()
    with console.status("setting up") as status, world(status.update) as made:
        status.stop()
        rows = measure(made, options.only or list(SCENARIOS), options.rate, console)
    shown = [{key: row.get(key) for key in SHOWN} for row in rows]
    report.show(f"Failed requests at {options.rate:g} requests/s", shown, console)
    console.print(f"written to {report.write('availability', rows, options.json)}")
    return 1 if any(bad(row) for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
