"""Interleaved rounds, and what their medians say. Called by `__main__`.

In every round each contestant is measured once at every number of connections, one after the other, so that whatever
else the machine does falls on all of them; a ratio is taken within each round, and the median of those is told.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gateway.contestants import DIRECT, PLAIN, Contestant
from benchmarks.gateway.generators import Figures, Generator, NothingAnswered
from benchmarks.gateway.parts import processor_seconds


@dataclass(frozen=True)
class Run:
    """One measurement. `cpu_us`: processor time of the contestant per request, in microseconds."""

    per_second: float
    p50_ms: float
    p99_ms: float
    busy: float
    cpu_us: float


@dataclass
class Found:
    """Every measurement, by contestant and connections, in the order of the rounds."""

    runs: dict[tuple[str, int], list[Run]] = field(default_factory=dict)

    def median(self, name: str, connections: int, key: str) -> float:
        """Over the rounds."""
        return statistics.median(float(getattr(run, key)) for run in self.runs[name, connections])

    def against(self, name: str, other: str, connections: int, key: str, *, minus: bool = False) -> float:
        """Ratio (or difference) to another contestant within each round; the median over the rounds."""
        pairs = zip(self.runs[name, connections], self.runs[other, connections], strict=True)
        both = ((float(getattr(mine, key)), float(getattr(theirs, key))) for mine, theirs in pairs)
        return statistics.median(mine - theirs if minus else mine / theirs for mine, theirs in both)


def measured(
    generator: Generator,
    contestants: Sequence[Contestant],
    connections: Sequence[int],
    *,
    rounds: int,
    seconds: float,
    say: Callable[[str], object],
) -> Found:
    """All rounds. Raises Unavailable where a request failed."""
    found = Found()
    for turn in range(rounds):
        for count in connections:
            # Turned around in every other round: nobody is always behind the same one.
            for one in contestants if turn % 2 == 0 else list(reversed(contestants)):
                say(f"round {turn + 1} of {rounds}: {one.name}, {count} connections")
                before = processor_seconds(one.pid)
                figures = _asked(generator, one, count, seconds)
                cpu = (processor_seconds(one.pid) - before) / figures.requests * 1e6
                run = Run(figures.per_second, figures.p50_ms, figures.p99_ms, figures.busy, cpu)
                found.runs.setdefault((one.name, count), []).append(run)
    return found


def _asked(generator: Generator, one: Contestant, connections: int, seconds: float) -> Figures:
    """A run in which nothing was answered at all is one in which the machine stood still: once more."""
    try:
        return generator.measure(one.asked, connections, seconds)
    except NothingAnswered:
        return generator.measure(one.asked, connections, seconds)


def rows(found: Found, contestants: Sequence[Contestant], connections: Sequence[int]) -> list[dict[str, Any]]:
    """One row per contestant and number of connections."""
    made = []
    for count in connections:
        for one in contestants:
            row: dict[str, Any] = {"way": one.name, "connections": count}
            row |= {key: found.median(one.name, count, key) for key in ("per_second", "p50_ms", "p99_ms")}
            row["of_plain"] = found.against(one.name, PLAIN, count, "per_second")
            if count == 1:
                for key in ("p50_ms", "p99_ms"):
                    row[f"added_{key}"] = found.against(one.name, DIRECT, count, key, minus=True)
            row["cpu_us"] = found.median(one.name, count, "cpu_us")
            row["generator_busy"] = found.median(one.name, count, "busy")
            row["rounds"] = [round(run.per_second) for run in found.runs[one.name, count]]
            made.append(row)
    return made
