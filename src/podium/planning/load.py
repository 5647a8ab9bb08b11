"""What replicas had to do in the last seconds: rates, concurrency and latency from the gateways' cumulative counters,
and how busy they were from their cumulative processor times.

Called by `control.scaling` and the API's traffic view with rows of the store. Pure.

Counters are cumulative since a start of Envoy (its `epoch`), so two readings of one cluster by one gateway in one epoch
make a difference, and nothing else does: a reading that is lost or delivered twice changes no sum, and a restarted
Envoy starts over. What several gateways count is added up.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

_SLOW_SECONDS = 1.0
"""Requests that take longer than about the time between two readings are counted better by looking than by what has
ended."""


class Reading(Protocol):
    """Counters of one cluster (one revision in one role) as one gateway read them."""

    @property
    def gateway(self) -> str: ...
    @property
    def epoch(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def at(self) -> float:
        """Seconds since 1970, by the server's clock."""

    @property
    def requests(self) -> int:
        """Answered, whatever the answer was."""

    @property
    def errors(self) -> int:
        """Of those, 5xx: also what Envoy answered where no replica could."""

    @property
    def refused(self) -> int:
        """Of those, 429."""

    @property
    def active(self) -> int:
        """Requests under way or waiting for a connection at that moment."""

    @property
    def time_ms(self) -> float:
        """Sum of how long the answered ones took."""

    @property
    def buckets(self) -> Sequence[Sequence[float]]:
        """(upper edge in ms, answered within it), ascending and cumulative. An edge that is missing has the count of
        the one before."""


class ProcessorReading(Protocol):
    """Processor time of one replica as its target read it, from when on it was ready."""

    @property
    def revision(self) -> str: ...
    @property
    def replica(self) -> str: ...
    @property
    def at(self) -> float:
        """Seconds since 1970."""

    @property
    def seconds(self) -> float:
        """Of processor time since the replica's start."""

    @property
    def processors(self) -> float:
        """How many it is meant to have."""


@dataclass(frozen=True)
class WindowLoad:
    """Sums over one window of `seconds`."""

    seconds: float
    requests: float = 0.0
    """Answered ones."""
    arrived: float = 0.0
    """Answered or not."""
    errors: float = 0.0
    refused: float = 0.0
    concurrency: float = 0.0
    """Requests under way, on average."""
    busy: float = 0.0
    """Shares of their processors that the replicas used, on average, added up: 1.5 is one that uses all that it is
    meant to have and one that uses half. 0 where that is not measured."""
    histogram: Mapping[float, float] = field(default_factory=dict)
    """Upper edge in ms -> requests between the edge before and this one."""

    @property
    def requests_per_second(self) -> float:
        """Answered ones."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    @property
    def arrivals_per_second(self) -> float:
        """Those too that nobody has answered yet: more than replicas can do shows only here."""
        return self.arrived / self.seconds if self.seconds > 0 else 0.0

    @property
    def error_share(self) -> float | None:
        """Of the requests; None without any."""
        return min(1.0, self.errors / self.requests) if self.requests > 0 else None

    @property
    def refused_share(self) -> float | None:
        """Of the requests; None without any."""
        return min(1.0, self.refused / self.requests) if self.requests > 0 else None

    def quantile(self, share: float) -> float | None:
        """Latency in seconds that this share of requests stayed within, linear between the histogram's edges; None
        without requests."""
        total = sum(self.histogram.values())
        if total <= 0:
            return None
        below, lower = 0.0, 0.0
        for edge in sorted(self.histogram):
            count = self.histogram[edge]
            if count > 0 and below + count >= share * total - 1e-9:
                part = max(0.0, share * total - below) / count
                return (lower + part * (edge - lower)) / 1000
            below, lower = below + count, edge
        return lower / 1000

    def __add__(self, other: "WindowLoad") -> "WindowLoad":
        """Both together: two clusters or two gateways in windows of the same length."""
        edges = {*self.histogram, *other.histogram}
        return WindowLoad(
            seconds=max(self.seconds, other.seconds),
            requests=self.requests + other.requests,
            arrived=self.arrived + other.arrived,
            errors=self.errors + other.errors,
            refused=self.refused + other.refused,
            concurrency=self.concurrency + other.concurrency,
            busy=self.busy + other.busy,
            histogram={
                edge: self.histogram.get(edge, 0.0) + other.histogram.get(edge, 0.0) for edge in edges
            },
        )


def window_load(readings: Iterable[Reading], seconds: float, ends: Mapping[str, float]) -> WindowLoad:
    """The load in the last `seconds`, over all revisions and gateways of `readings`.

    ends: gateway -> when it last reported its counters at all (a quiet cluster is not in a report): its window ends
    there. What a gateway counted that is not in `ends` is left out.
    """
    series: dict[tuple[str, str, str, str], list[Reading]] = defaultdict(list)
    for reading in readings:
        if reading.gateway in ends:
            series[reading.gateway, reading.epoch, reading.revision, reading.role].append(reading)
    total = WindowLoad(seconds)
    for (gateway, *_), some in series.items():
        some.sort(key=lambda reading: reading.at)
        total += _series_load(some, ends[gateway] - seconds, ends[gateway])
    return total


def busy_shares(readings: Iterable[ProcessorReading], seconds: float, end: float) -> float:
    """`WindowLoad.busy` of the `seconds` before `end`.

    What a replica used before its first reading is left out: it was not ready yet, and loading keeps processors busy.
    """
    series: dict[tuple[str, str], list[ProcessorReading]] = defaultdict(list)
    for reading in readings:
        series[reading.revision, reading.replica].append(reading)
    total = 0.0
    for some in series.values():
        some.sort(key=lambda reading: reading.at)
        # What a process used that ended just then can be missing in one reading and be there in the next.
        reached = some[0].seconds
        for before, after in pairwise(some):
            used = max(0.0, after.seconds - reached)
            reached = max(reached, after.seconds)
            total += used * share_within(before, after, end - seconds, end) / after.processors
    return total / seconds


class _Timed(Protocol):
    @property
    def at(self) -> float: ...


def share_within(before: _Timed, after: _Timed, start: float, end: float) -> float:
    """How much of what two readings differ by belongs to the time from `start` to `end`, 0 to 1: between two readings
    everything happened evenly."""
    overlap = min(after.at, end) - max(before.at, start)
    span = after.at - before.at
    return overlap / span if overlap > 0 and span > 0 else 0.0


def _series_load(readings: Sequence[Reading], start: float, end: float) -> WindowLoad:
    """One cluster as one gateway counted it. Between two readings everything happened evenly."""
    sums = dict.fromkeys(("requests", "errors", "refused", "time_ms"), 0.0)
    histogram: dict[float, float] = defaultdict(float)
    under_way = joined = 0.0
    whole: tuple[Reading, Reading] | None = None
    seen = [reading.active for reading in readings if start <= reading.at <= end]
    for before, after in pairwise(readings):
        share = share_within(before, after, start, end)
        if share == 0:
            continue
        for name in sums:
            sums[name] += share * max(0.0, getattr(after, name) - getattr(before, name))
        if share == 1:
            whole = (before if whole is None else whole[0], after)
        else:
            for edge, count in _counted(before, after).items():
                histogram[edge] += share * count
        under_way += share * (after.at - before.at) * (before.active + after.active) / 2
        joined += share * (after.active - before.active)
    if whole is not None:
        # Whatever lies between two readings within the window is their difference, and so is all of it together.
        for edge, count in _counted(*whole).items():
            histogram[edge] += count
    if readings and readings[-1].active and start <= readings[-1].at < end:
        # Its next reading is still to come: a cluster with requests under way is in every report.
        under_way += (end - readings[-1].at) * readings[-1].active
    seconds = end - start
    return WindowLoad(
        seconds=seconds,
        requests=sums["requests"],
        arrived=max(0.0, sums["requests"] + joined),
        errors=sums["errors"],
        refused=sums["refused"],
        concurrency=_concurrency(sums["requests"], sums["time_ms"] / 1000, under_way, seconds, seen),
        histogram=dict(histogram),
    )


def _concurrency(
    requests: float, request_seconds: float, under_way: float, seconds: float, seen: Sequence[int]
) -> float:
    """By Little's law (requests/s x mean time) where requests are short: exact, while a look every two seconds at
    something that changes every few milliseconds is a dice. Where they are long, or none ends, what was seen under way
    at each look; and never less than what was under way at every single look."""
    if requests > 0 and request_seconds / requests < _SLOW_SECONDS:
        least = min(seen) if len(seen) >= 3 else 0
        return max(request_seconds / seconds, float(least))
    return under_way / seconds


def _counted(before: Reading, after: Reading) -> dict[float, float]:
    """Upper edge -> requests that came between two readings."""
    earlier = {float(edge): count for edge, count in before.buckets}
    later = {float(edge): count for edge, count in after.buckets}
    counts: dict[float, float] = {}
    old = new = reached = 0.0
    for edge in sorted({*earlier, *later}):
        old, new = earlier.get(edge, old), later.get(edge, new)
        counts[edge] = max(0.0, new - old - reached)
        reached = max(reached, new - old)
    return counts
