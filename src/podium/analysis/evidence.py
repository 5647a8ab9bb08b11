"""What a verdict rests on: counts per window and arm, liveness, and the whole bundle that is stored.

Made by `windows` (from gateway snapshots) and by the control plane; read by `verdict`. Calls `settings` only.
Everything here turns into JSON and back without loss, since evidence is stored and replayed.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from podium.analysis.settings import AnalysisSettings

Buckets = tuple[tuple[float, int], ...]
"""(upper edge in milliseconds, requests at or below it), ascending; the last edge is infinity."""

EVIDENCE_FORMAT = 1


def buckets_to_json(buckets: Buckets) -> list[list[float | str]]:
    """Buckets as JSON: the infinite edge is written "+Inf", as Prometheus does."""
    return [["+Inf" if math.isinf(edge) else edge, count] for edge, count in buckets]


def buckets_from_json(values: Iterable[Iterable[Any]]) -> Buckets:
    """The inverse of `buckets_to_json`."""
    return tuple((math.inf if edge == "+Inf" else float(edge), int(count)) for edge, count in values)


@dataclass(frozen=True)
class ArmCounts:
    """One arm's requests in one window. All are counts of client requests, none of attempts.

    started: requests sent to the arm (what the random draw decided; used for the share alone).
    total: requests that were resolved: answered, failed or given up by the client.
    bad: 5xx answers (route timeouts too) and requests that succeeded only after a retry.
    saved: those among `bad` that a retry turned into a success: the client saw nothing.
    gave_up: the client left before an answer. Counted as failed and as slow, on top of `bad` and `slow`.
    refused: 4xx answers. slow: answered above the latency threshold, or timed out.
    connect_failures: connections refused, missing or cut under a request: attempts, signs of a dead replica.
    latency_buckets: cumulative counts, timeouts in the infinite bucket; empty when not kept.
    """

    started: int = 0
    total: int = 0
    bad: int = 0
    saved: int = 0
    gave_up: int = 0
    refused: int = 0
    slow: int = 0
    connect_failures: int = 0
    latency_buckets: Buckets = ()

    @property
    def failed(self) -> int:
        """Requests that failed in the client's eyes, or nearly: the events of the error rate."""
        return self.bad + self.gave_up

    @property
    def late(self) -> int:
        """Requests that took too long: the events of the slow rate."""
        return self.slow + self.gave_up

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; zero counts and empty buckets are left out."""
        out: dict[str, Any] = {}
        for name in COUNT_NAMES:
            if value := getattr(self, name):
                out[name] = value
        if self.latency_buckets:
            out["latency_buckets"] = buckets_to_json(self.latency_buckets)
        return out

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises ValueError for a name or a value that doesn't belong."""
        unknown = sorted(set(values) - set(COUNT_NAMES) - {"latency_buckets"})
        if unknown:
            raise ValueError(f"counts: unknown field {unknown[0]!r}; known: {', '.join(COUNT_NAMES)}")
        for name in COUNT_NAMES:
            value = values.get(name, 0)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"counts.{name}: must be a count (0, 1, 2, ...), not {value!r}")
        counts = {name: values.get(name, 0) for name in COUNT_NAMES}
        return cls(**counts, latency_buckets=buckets_from_json(values.get("latency_buckets", ())))


COUNT_NAMES = tuple(item.name for item in fields(ArmCounts) if item.name != "latency_buckets")


def add_buckets(parts: Iterable[Buckets]) -> Buckets:
    """The sum of cumulative buckets, edge by edge; empty parts count nothing.

    Raises ValueError when two parts have different edges, since they then can't be added.
    """
    kept = [part for part in parts if part]
    if not kept:
        return ()
    edges = tuple(edge for edge, _ in kept[0])
    for part in kept:
        if tuple(edge for edge, _ in part) != edges:
            raise ValueError("latency_buckets: windows with different bucket edges can't be added")
    counts = (sum(column) for column in zip(*(tuple(n for _, n in part) for part in kept), strict=True))
    return tuple(zip(edges, counts, strict=True))


def add_counts(parts: Iterable[ArmCounts]) -> ArmCounts:
    """The sum of one arm's counts over several windows."""
    held = list(parts)
    sums = {name: sum([getattr(part, name) for part in held]) for name in COUNT_NAMES}
    return ArmCounts(**sums, latency_buckets=add_buckets(part.latency_buckets for part in held))


@dataclass(frozen=True)
class Window:
    """The requests of both arms between two scrapes of one gateway (or of several windows merged).

    start, end: seconds since the epoch.
    rho: the candidate's share (0..1) that was in force; after a flip the larger of the two for one timeout.
    exact: False while requests drawn under two shares may be mixed. Such windows may count against the
        candidate (the larger share makes that safe), never for it.
    incident: the start (seconds since the epoch) of an incident that this window is part of: connections to a
        replica failed. What happens in the first `INCIDENT_SECONDS` of one says that a replica died, nothing
        about the model's answers, and is not compared.
    """

    start: float
    end: float
    gateway: str
    rho: float
    stable: ArmCounts
    candidate: ArmCounts
    exact: bool = True
    incident: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho: must be a share between 0 and 1, not {self.rho!r}")
        if not self.start <= self.end:
            raise ValueError(f"end: a window can't end ({self.end}) before it starts ({self.start})")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` gives an equal object."""
        out: dict[str, Any] = {name: getattr(self, name) for name in ("start", "end", "gateway", "rho")}
        out |= {"exact": self.exact, "incident": self.incident}
        return out | {"stable": self.stable.to_dict(), "candidate": self.candidate.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises ValueError naming what is missing or wrong."""
        names = [item.name for item in fields(cls)]
        missing = [name for name in names[:6] if name not in values]
        unknown = sorted(set(values) - set(names))
        if missing or unknown:
            raise ValueError(f"window: missing {missing}, unknown {unknown}; known: {', '.join(names)}")
        arms = {arm: ArmCounts.from_dict(values[arm]) for arm in ("stable", "candidate")}
        return cls(**{**values, **arms})


@dataclass(frozen=True)
class Liveness:
    """Whether the candidate is alive, as the control plane sees it.

    ready: replicas that are ready; wanted: replicas that should be; detail: why not, in words (one line).
    """

    ready: int
    wanted: int
    detail: str = ""


@dataclass(frozen=True)
class Evidence:
    """Everything that one call of `judge` was given. Stored with the verdict; `replay` judges it again.

    weight: the candidate's weight in percent (0..100). step_complete: the step's duration or request count is
    reached. step_cap_reached: the step may not wait any longer.
    """

    windows: tuple[Window, ...]
    settings: AnalysisSettings
    weight: float
    step_complete: bool
    step_cap_reached: bool
    liveness: Liveness

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` gives an equal object."""
        return {
            "format": EVIDENCE_FORMAT,
            "weight": self.weight,
            "step_complete": self.step_complete,
            "step_cap_reached": self.step_cap_reached,
            "liveness": {name: getattr(self.liveness, name) for name in ("ready", "wanted", "detail")},
            "settings": self.settings.to_dict(),
            "windows": [window.to_dict() for window in self.windows],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises ValueError when the format is another one or a part is missing."""
        if values.get("format") != EVIDENCE_FORMAT:
            got = values.get("format")
            raise ValueError(f"format: this version reads evidence of format {EVIDENCE_FORMAT}, not {got!r}")
        names = [item.name for item in fields(cls)]
        missing = [name for name in names if name not in values]
        if missing:
            raise ValueError(f"evidence: {', '.join(missing)} missing")
        return cls(
            windows=tuple(Window.from_dict(window) for window in values["windows"]),
            settings=AnalysisSettings.from_dict(values["settings"]),
            weight=values["weight"],
            step_complete=values["step_complete"],
            step_cap_reached=values["step_cap_reached"],
            liveness=Liveness(**values["liveness"]),
        )
