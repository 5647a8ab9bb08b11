"""Interleaved rounds over several servers, and what their medians say.

Called by `sections`. In every round each server is measured once at every number of connections, one after the other,
so that whatever else the machine does meanwhile falls on all of them. Calls `load`.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.runtime.load import Target, alone, check, measure, write_requests
from benchmarks.runtime.models import Trained

OURS = "podium"


@dataclass(frozen=True)
class Effort:
    """How long it takes."""

    rounds: int
    seconds: float
    """Of one measurement."""
    connections: Sequence[int]


@dataclass(frozen=True)
class Bench:
    """What all sections share."""

    folder: Path
    effort: Effort
    cores: tuple[int | None, int | None]
    """The server's and the client's."""
    say: Callable[[str], object]


@dataclass(frozen=True)
class Entrant:
    """One way to be served: a row of the table."""

    name: str
    target: Target
    read: Callable[[bytes], list[int]]
    """Labels of a complete answer."""
    python: Path | None = None
    """Interpreter in which the model alone is timed; None: not timed."""


@dataclass
class Found:
    """Every measurement, in the order of the rounds."""

    runs: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)
    alone: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str, connections: int, key: str) -> float:
        """Over the rounds."""
        return float(statistics.median(run[key] for run in self.runs[name, connections]))

    def ratio(self, connections: int, others: Sequence[str]) -> float:
        """Our requests per second over those of the best of the others, in each round; the median over the rounds."""
        ours = [run["per_second"] for run in self.runs[OURS, connections]]
        best = [
            max(self.runs[name, connections][turn]["per_second"] for name in others)
            for turn in range(len(ours))
        ]
        return float(statistics.median(mine / theirs for mine, theirs in zip(ours, best, strict=True)))

    def beyond_alone(self, name: str) -> float:
        """p50 at one connection minus the model alone, in milliseconds; the median over the rounds."""
        pairs = zip(self.runs[name, 1], self.alone[name], strict=True)
        return float(statistics.median(run["p50_ms"] - itself for run, itself in pairs))


def run(
    bench: Bench,
    section: str,
    entrants: Sequence[Entrant],
    trained: Trained,
    expected: Sequence[Sequence[int]],
) -> Found:
    """Check every entrant's answers against `expected`, then measure all of them in rounds."""
    found, effort = Found(), bench.effort
    files: dict[str, Path] = {}
    for entrant in entrants:
        bench.say(f"{section}: checking {entrant.name}")
        check(entrant.target, entrant.read, expected)
        files[entrant.name] = write_requests(
            bench.folder / f"{section}-{len(files)}", entrant.target.requests
        )
    server_core, client_core = bench.cores
    for turn in range(effort.rounds):
        for entrant in entrants:
            if entrant.python is not None:
                bench.say(f"{section}: round {turn + 1} of {effort.rounds}, the model alone")
                taken = alone(trained, entrant.python, server_core, min(1.0, effort.seconds))
                found.alone.setdefault(entrant.name, []).append(taken)
        for connections in effort.connections:
            for entrant in entrants:
                bench.say(
                    f"{section}: round {turn + 1} of {effort.rounds}, {entrant.name}, {connections} connections"
                )
                result = measure(
                    entrant.target, files[entrant.name], client_core,
                    connections=connections, seconds=effort.seconds,
                )  # fmt: skip
                found.runs.setdefault((entrant.name, connections), []).append(result)
    return found


def rows(
    section: str, found: Found, entrants: Sequence[Entrant], effort: Effort, against: Sequence[str]
) -> list[dict[str, Any]]:
    """One row per entrant and number of connections; ours with its ratio to the best of `against`."""
    made = []
    for connections in effort.connections:
        for entrant in entrants:
            name = entrant.name
            row: dict[str, Any] = {"section": section, "server": name, "connections": connections}
            row |= {
                key: found.median(name, connections, key)
                for key in ("per_second", "p50_ms", "p99_ms", "busy")
            }
            row["client_busy"] = row.pop("busy")
            row["times"] = found.ratio(connections, against) if name == OURS and against else None
            if connections == 1 and name in found.alone:
                row["alone_ms"] = statistics.median(found.alone[name])
                row["beyond_alone_ms"] = found.beyond_alone(name)
            row["rounds"] = [round(run["per_second"], 1) for run in found.runs[name, connections]]
            made.append(row)
    return made
