"""Thousands of Deployments, each with a Route: `python -m benchmarks.routes`.

One real gateway (agent and Envoy) without replicas behind it. Per size: bytes of the configuration, seconds to render
it, seconds until Envoy shows it as loaded, Envoy's memory, and how long until other weights of one Route (a shift), and
another rule of one Route, are in force.
A Route here is a sticky split of two Deployments with a rule before it, a limit per caller and a declared answer.
"""

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks import report
from benchmarks.agents import Gateway, Objects, deployed, routed
from podium.gateway.fleet import Fleet
from podium.gateway.loader import rendered
from podium.gateway.settings import CLUSTERS, ROUTES
from podium.resources.kinds import AnyResource

SIZES = (1_000, 10_000)
_CHANGES = 10


def _route(number: int, size: int, share: int, tier: str = "gold") -> AnyResource:
    own, next_ = f"d{number:05d}", f"d{(number + 1) % size:05d}"
    return routed(
        f"r{number:05d}",
        {
            "rules": [
                {"match": {"headers": {"x-tier": tier}}, "to": own},
                {
                    "to": [
                        {"deployment": own, "weight": 100 - share},
                        {"deployment": next_, "weight": share},
                    ],
                    "sticky": {"header": "x-user"},
                    "fallback": {"answer": {"body": {"outputs": []}}},
                },
            ],
            "limits": {"perCaller": {"requests": 100}},
        },
    )


async def measure(size: int, say: Any) -> dict[str, Any]:
    """One row."""
    objects = Objects()
    made: list[AnyResource] = []
    for number in range(size):
        made += deployed(
            f"d{number:05d}", [f"unix:/nowhere/d{number:05d}-{place}.sock" for place in range(2)]
        )
        made.append(_route(number, size, 10))
    say(f"{size:,}: rendering")
    fleet = Fleet()
    fleet.reset(made, 1)
    wishes = [fleet.wish(key) for key in fleet.keys]
    began = time.perf_counter()
    for wish in wishes:
        if wish is not None:
            rendered(wish)
    render = time.perf_counter() - began
    gateway = Gateway(objects, "bench")
    try:
        version = await objects.put(made)
        say(f"{size:,}: loading")
        began = time.monotonic()
        await gateway.start()
        loaded = await gateway.loaded(version, 600) - began
        layout = gateway.settings.layout
        sizes = {kind: layout.document(kind).stat().st_size for kind in (CLUSTERS, ROUTES)}
        envoy = gateway.agent.envoy.current
        memory = psutil.Process(envoy.pid).memory_info().rss if envoy else 0
        shifts: list[float] = []
        changes: list[float] = []
        for change in range(_CHANGES):
            say(f"{size:,}: change {change + 1} of {_CHANGES}")
            for kind, other in (
                (shifts, _route(change, size, 20)),
                (changes, _route(change, size, 20, "none")),
            ):
                began = time.monotonic()
                changed = await objects.put([other])
                kind.append(await gateway.loaded(changed) - began)
    finally:
        await gateway.stop()
    return {
        "deployments": size,
        "routes": size,
        "clusters_mib": sizes[CLUSTERS] / 2**20,
        "route_table_mib": sizes[ROUTES] / 2**20,
        "render_seconds": render,
        "loaded_seconds": loaded,
        "envoy_mib": memory / 2**20,
        "shift_p50_ms": 1000 * statistics.median(shifts),
        "shift_worst_ms": 1000 * max(shifts),
        "rule_p50_ms": 1000 * statistics.median(changes),
        "rule_worst_ms": 1000 * max(changes),
    }


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, action="append", help="may be repeated (default: 1000 and 10000)")
    parser.add_argument("--json", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    console = Console()
    rows = []
    with console.status("") as status:
        for size in options.size or SIZES:
            rows.append(asyncio.run(measure(size, status.update)))
    report.show("Deployments with Routes", rows, console)
    console.print(f"written to {report.write('routes', rows, options.json)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
