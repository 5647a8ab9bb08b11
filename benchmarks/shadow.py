"""What a shadow costs its champion, and whether every copy is found: `python -m benchmarks.shadow`.

A real gateway, two replicas of one model. Three Routes to the champion take turns in short rounds at one rate: one with
a shadow that gets a copy of every request, and two without, whose difference is the noise. Then the champion alone is
asked as fast as it answers, with and without records. Exits 1 when a copied request is not found on both sides, or when
the two sides do not agree on everything. A shadow computes too: the champion has a core to itself (where there are two)
and all others share the next.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console

from benchmarks import report
from benchmarks.agents import Gateway, Objects, deployed, routed
from benchmarks.runtime.contestants import NAME, Server, cores, podium
from benchmarks.runtime.models import Trained, json_body, pipeline
from podium.analysis.answers import Answer, read_answer
from podium.analysis.pairing import Pairing
from podium.load.driver import Driver, Job
from podium.load.generator import Found
from podium.load.requests import request_bytes
from podium.targets.port import RecordMark
from podium.targets.process import records

WITH, WITHOUT, AGAIN = "with a shadow", "without", "without, again"
ROUTES = {WITH: "shadowed", WITHOUT: "plain", AGAIN: "control"}
_SETTLE = 0.3
_FOUND_SECONDS = 30.0


@contextlib.contextmanager
def recording(folder: Path) -> Iterator[None]:
    """What is started within writes its records below that folder."""
    os.environ["PODIUM_RECORDS"] = str(folder / records.FOLDER)
    try:
        yield
    finally:
        del os.environ["PODIUM_RECORDS"]


class Side:
    """The records of one replica, read as the server does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mark: RecordMark | None = None
        self.answers: list[Answer] = []
        self.lost = 0

    def read(self) -> None:
        """What came since."""
        more = True
        while more:
            found = records.read(self._folder, "replica", self._mark)
            self._mark, more = found.mark, found.more
            self.lost += found.lost
            self.answers += [answer for line in found.lines if (answer := read_answer(line)) is not None]


def others() -> list[int]:
    """The core of all but the champion; none where there is one only."""
    core = cores()[1]
    return [] if core is None else [core]


def bodies(trained: Trained) -> list[bytes]:
    """Requests of one row."""
    return [json_body(trained, trained.rows[place : place + 1]) for place in range(50)]


async def through_the_gateway(
    options: argparse.Namespace, trained: Trained, sockets: tuple[str, str], sides: tuple[Side, Side]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Latency by way, in rounds that take turns, and how many copies were found."""
    champion, shadow = sockets
    objects = Objects()
    version = await objects.put(
        [
            *deployed("champion", [f"unix:{champion}"]),
            *deployed("copied", [f"unix:{shadow}"]),
            routed("shadowed", {"rules": [{"to": "champion", "shadow": [{"deployment": "copied"}]}]}),
            routed("plain", {"rules": [{"to": "champion"}]}),
            routed("control", {"rules": [{"to": "champion"}]}),
        ]
    )
    gateway = Gateway(objects, "shadow")
    rounds: dict[str, list[Found]] = {way: [] for way in ROUTES}
    try:
        await gateway.start()
        await gateway.loaded(version)
        place = {"address": "127.0.0.1", "port": gateway.settings.port, "tls": None}
        with Driver(cores=others()) as driver:
            for number in range(options.rounds):
                ways = list(ROUTES)
                for way in ways[number % 3 :] + ways[: number % 3]:
                    path = f"/v2/models/{ROUTES[way]}/infer"
                    job = Job(
                        place=place,
                        requests=[request_bytes(path, "bench", body=body) for body in bodies(trained)],
                        connections=options.connections,
                        seconds=options.seconds,
                        settle=_SETTLE,
                        rate=options.rate,
                        random=True,
                    )
                    rounds[way].append(await asyncio.to_thread(driver.run, job))
    finally:
        await gateway.stop()
    rows = [latency_row(way, rounds) for way in ROUTES]
    return rows, found_of(sum(found.sent for found in rounds[WITH]), sides)


def latency_row(way: str, rounds: dict[str, list[Found]]) -> dict[str, Any]:
    """Medians over the rounds, and of the ratio to the round without a shadow beside it."""
    row: dict[str, Any] = {"way": way, "requests": sum(found.answered for found in rounds[way])}
    row["failed"] = sum(found.failed for found in rounds[way])
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        mine = [found.latencies.quantile(share) for found in rounds[way]]
        plain = [found.latencies.quantile(share) for found in rounds[WITHOUT]]
        ratios = [one / other for one, other in zip(mine, plain, strict=True)]
        row[f"{name}_ms"] = 1000 * median(mine)
        row[f"{name}_ratio"] = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return row


def found_of(sent: int, sides: tuple[Side, Side]) -> dict[str, Any]:
    """How many of the copied requests both sides have, and how many agree."""
    deadline = time.monotonic() + _FOUND_SECONDS
    while True:
        for side in sides:
            side.read()
        if min(len(side.answers) for side in sides) >= sent or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    champion, shadow = sides
    pairing = Pairing()
    pairing.take({"champion": champion.answers}, shadow.answers, {})
    [found] = pairing.comparisons("default", "shadow")
    agreement = min((output.mean for output in found.per_output), default=0.0)
    return {"copied": sent, "found_on_both": found.pairs, "agreement": agreement}


def alone(options: argparse.Namespace, trained: Trained, champion: Server) -> list[dict[str, Any]]:
    """The champion as fast as it answers, with and without records: requests/s, and processor time per request, which
    others on the machine disturb less."""
    path = f"/v2/models/{NAME}/infer"
    marks = {
        "without records": (),
        "with records": (("x-podium-record", "true"), ("x-request-id", "the-same")),
    }
    rounds: dict[str, list[tuple[float, float]]] = {way: [] for way in marks}
    process = psutil.Process(champion.process.pid)
    with Driver(cores=others()) as driver:
        for number in range(2 * options.rounds):
            for way in list(marks) if number % 2 else reversed(list(marks)):
                requests = [
                    request_bytes(path, "bench", headers=marks[way], body=body) for body in bodies(trained)
                ]
                job = Job(
                    place={"unix": champion.http}, requests=requests, connections=8,
                    seconds=options.seconds / 2,
                )  # fmt: skip
                before = process.cpu_times()
                found = driver.run(job)
                after = process.cpu_times()
                used = after.user + after.system - before.user - before.system
                rounds[way].append((found.answered / found.seconds, 1e6 * used / found.sent))
    plain = rounds["without records"]
    rows = []
    for way, mine in rounds.items():
        row: dict[str, Any] = {"way": way}
        for place, name in enumerate(("requests_per_second", "processor_us")):
            ratios = [one[place] / other[place] for one, other in zip(mine, plain, strict=True)]
            row[name] = median(one[place] for one in mine)
            row[f"{name}_ratio"] = f"{median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append(row)
    return rows


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="(default: %(default)d)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round (default: %(default)g)")
    parser.add_argument("--rate", type=float, default=100.0, help="requests/s (default: %(default)g)")
    parser.add_argument("--connections", type=int, default=4, help="(default: %(default)d)")
    parser.add_argument("--json", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="pbs-", dir="/tmp") as made, contextlib.ExitStack() as held:
        place = Path(made)
        trained = pipeline(place)
        servers: list[Server] = []
        for side, core in zip(("champion", "shadow"), cores(), strict=True):
            (place / side).mkdir()
            with recording(place / side):
                servers.append(held.enter_context(podium(trained, core, uds=True)))
        sides = (Side(place / "champion"), Side(place / "shadow"))
        with console.status("asking through the gateway"):
            rows, found = asyncio.run(
                through_the_gateway(options, trained, (servers[0].http, servers[1].http), sides)
            )
        with console.status("asking the champion alone"):
            more = alone(options, trained, servers[0])
    report.show(f"The champion's latency at {options.rate:g} requests/s", rows, console)
    report.show("Copies", [found], console)
    report.show("What records cost a replica", more, console)
    console.print(f"written to {report.write('shadow', [*rows, found, *more], options.json)}")
    good = found["copied"] == found["found_on_both"] and found["agreement"] == 1.0
    return 0 if good and not any(row["failed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
