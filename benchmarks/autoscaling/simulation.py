"""Replicas under a load, second by second of a simulated clock, scaled by the real decision or by an oracle.

Called by `__main__`. Calls `podium.planning.autoscaling` and `podium.planning.load`: what the simulated gateway counts
goes the same way as what Envoy counts.

A replica answers one request after another; each request goes to the one of two replicas, drawn by chance, that has
less to do, as Envoy's LEAST_REQUEST does. A new replica is ready after a start delay; one that goes finishes what it
has. All of a request's time at a replica is processor time.
"""

import datetime
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.autoscaling.shapes import Rates
from podium.gateway.render.buckets import EDGES_MS
from podium.planning.autoscaling import LoadSeen, ReplicasSeen, begin, decide
from podium.planning.load import busy_shares, window_load
from podium.resources.scaling import Scaling

LOOK = 2
"""Seconds between two looks, and two reports."""
_BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Conditions:
    """What is the same for everybody. Seconds."""

    service: float = 0.1
    """One request, on average; lognormal, with half of it as standard deviation."""
    start_delay: float = 15.0
    limit: float = 0.5
    """A request that takes longer counts as too slow."""
    busy: float = 0.65
    """How busy an oracle's replicas may be: a little below where the 95th percentile of a queue of this kind would
    leave the limit."""
    seed: int = 3


class Reading(NamedTuple):
    """As the gateway reports it."""

    at: float
    requests: int
    active: int
    time_ms: float
    buckets: tuple[tuple[float, float], ...]
    gateway: str = "g"
    epoch: str = "e"
    revision: str = "r"
    role: str = "live"
    errors: int = 0
    refused: int = 0


class ProcessorTime(NamedTuple):
    """As the target reads it: of all replicas together, whose sum it is that matters."""

    at: float
    seconds: float
    processors: float = 1.0
    revision: str = "r"
    replica: str = "all"


@dataclass
class Outcome:
    """What came of one run. `wanted` and `ready`: at each look."""

    wanted: list[int] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    replica_seconds: float = 0.0
    latencies: Floats = field(default_factory=lambda: np.zeros(0))

    def too_slow(self, limit: float) -> float:
        """Share of the requests."""
        return float(np.mean(self.latencies > limit)) if len(self.latencies) else 0.0

    @property
    def turns(self) -> int:
        """How often growing turned into shrinking, or the other way round."""
        moves = [after - before for before, after in pairwise(self.wanted) if after != before]
        return sum((one > 0) != (two > 0) for one, two in pairwise(moves))

    @property
    def moves(self) -> int:
        """How often the number changed at all."""
        return sum(after != before for before, after in pairwise(self.wanted))


class Replicas:
    """`free_at`: when each ready one will have answered all that it has."""

    def __init__(self, conditions: Conditions, count: int) -> None:
        self._conditions = conditions
        self._chance = np.random.default_rng(conditions.seed)
        self.free_at = [0.0] * count
        self.starting: list[float] = []
        self._leaving: list[float] = []
        self._under_way: list[tuple[Floats, Floats]] = []
        self._at_work: list[tuple[float, float]] = []
        self._used = 0.0
        self.answered, self.time_ms = 0, 0.0
        self.counts = np.zeros(len(EDGES_MS))

    def want(self, count: int, now: float) -> None:
        """From now on so many."""
        there = len(self.free_at) + len(self.starting)
        self.starting += [now + self._conditions.start_delay] * max(0, count - there)
        for _ in range(max(0, there - count)):
            if self.starting:
                self.starting.pop()
            else:
                self._leaving.append(self.free_at.pop(self.free_at.index(min(self.free_at))))

    def set_ready(self, count: int, now: float) -> None:
        """So many are ready, whatever it took."""
        self.starting = []
        self.free_at += [now] * max(0, count - len(self.free_at))
        self.want(count, now)

    @property
    def running(self) -> int:
        """Processes."""
        return len(self.free_at) + len(self.starting) + len(self._leaving)

    def serve(self, rates: Floats, now: float) -> Floats:
        """The next seconds, one rate for each; the latencies of those who came then."""
        end = now + len(rates)
        self.free_at += [at for at in self.starting if at <= now]
        self.starting = [at for at in self.starting if at > now]
        self._leaving = [at for at in self._leaving if at > now]
        counts = self._chance.poisson(rates)
        arrivals = np.concatenate(
            [
                np.sort(self._chance.uniform(now + second, now + second + 1, n))
                for second, n in enumerate(counts)
            ]
        )
        finished = self._assign(arrivals)
        latencies: Floats = finished - arrivals
        self._under_way.append((finished, latencies))
        self._count(end)
        return latencies

    def processor_time(self, now: float) -> ProcessorTime:
        """What the replicas have used until now for requests; what they use to start is not looked at."""
        kept = [(begun, done) for begun, done in self._at_work if done > now]
        self._used += sum(done - begun for begun, done in self._at_work if done <= now)
        self._at_work = kept
        return ProcessorTime(now, self._used + sum(now - begun for begun, _ in kept if begun < now))

    def _assign(self, arrivals: Floats) -> Floats:
        total, sigma = len(arrivals), np.sqrt(np.log(1.25))
        services = self._conditions.service * np.exp(self._chance.normal(-(sigma**2) / 2, sigma, total))
        free = self.free_at or [min(self.starting)]
        ones = self._chance.integers(0, len(free), total).tolist()
        others = self._chance.integers(0, len(free), total).tolist()
        finished = []
        for at, service, one, other in zip(arrivals.tolist(), services.tolist(), ones, others, strict=True):
            place = one if free[one] <= free[other] else other
            begun = max(at, free[place])
            done = begun + service
            self._at_work.append((begun, done))
            free[place] = done
            finished.append(done)
        return np.asarray(finished, dtype=np.float64)

    def _count(self, end: float) -> None:
        """As Envoy does: by what is answered until then."""
        finished = np.concatenate([some for some, _ in self._under_way])
        latencies = np.concatenate([some for _, some in self._under_way])
        done = finished <= end
        answered = latencies[done] * 1000
        self.answered += len(answered)
        self.time_ms += float(answered.sum())
        self.counts += np.bincount(
            np.minimum(np.searchsorted(EDGES_MS, answered), len(EDGES_MS) - 1), minlength=len(EDGES_MS)
        )
        self._under_way = [(finished[~done], latencies[~done])]

    def reading(self, now: float, *, latencies: bool) -> Reading:
        """What a gateway would tell. latencies: with its histogram, which takes long to add up."""
        active = sum(len(some) for some, _ in self._under_way)
        if not latencies:
            return Reading(now, self.answered, active, self.time_ms, ())
        cumulative = np.cumsum(self.counts)
        beside = (self.counts > 0) | (np.append(self.counts[1:], 0) > 0)
        buckets = tuple(
            (float(edge), float(count))
            for edge, count, tells in zip(EDGES_MS, cumulative, beside, strict=True)
            if tells
        )
        return Reading(now, self.answered, active, self.time_ms, buckets)


def autoscaled(rates: Rates, scaling: Scaling, conditions: Conditions) -> Outcome:
    """As Podium's autoscaler would have it, from the first second on."""
    outcome, replicas = Outcome(), Replicas(conditions, scaling.within(1))
    status = begin(scaling, 1, _BEGIN)
    readings: deque[Reading] = deque(maxlen=int(scaling.stable_window) // LOOK + 3)
    short = int(scaling.panic_window) // LOOK + 2
    told, metered = scaling.target.p95 is not None, scaling.target.cpu is not None
    times: deque[ProcessorTime] = deque([replicas.processor_time(0.0)], maxlen=readings.maxlen)
    readings.append(replicas.reading(0.0, latencies=told))
    latencies = []
    for now in range(0, len(rates) - len(rates) % LOOK, LOOK):
        latencies.append(replicas.serve(rates[now : now + LOOK], now))
        end = now + LOOK
        readings.append(replicas.reading(end, latencies=told))
        ends = {"g": float(end)}
        seen = LoadSeen(
            window_load(readings, scaling.stable_window, ends),
            window_load(list(readings)[-short:], scaling.panic_window, ends),
        )
        times.append(replicas.processor_time(end))
        if metered:
            seen = _metered(seen, times, end)
        there = ReplicasSeen(len(replicas.free_at), replicas.running, "r")
        decision = decide(scaling, status, seen, there, _BEGIN + datetime.timedelta(seconds=end))
        status = decision.status
        replicas.want(status.desired, end)
        outcome.wanted.append(status.desired)
        outcome.ready.append(len(replicas.free_at))
        outcome.replica_seconds += LOOK * replicas.running
    outcome.latencies = np.concatenate(latencies)
    return outcome


def _metered(seen: LoadSeen, times: Iterable[ProcessorTime], now: float) -> LoadSeen:
    return replace(
        seen,
        stable=replace(seen.stable, busy=busy_shares(times, seen.stable.seconds, now)),
        panic=replace(seen.panic, busy=busy_shares(times, seen.panic.seconds, now)),
    )


def oracle(rates: Rates, scaling: Scaling, conditions: Conditions) -> Outcome:
    """Knows every rate that will come, and starts what it will need just in time: not a moment earlier, and none is
    kept. It does not know when single requests come, so it leaves its replicas some rest."""
    outcome, replicas = Outcome(), Replicas(conditions, 1)
    ahead = int(conditions.start_delay)
    needed = np.ceil(rates * conditions.service / conditions.busy).astype(int)
    needed = np.clip(needed, max(1, scaling.min), scaling.max)
    latencies = []
    for now in range(0, len(rates) - len(rates) % LOOK, LOOK):
        ready = int(needed[now : now + LOOK].max())
        replicas.set_ready(ready, now)
        latencies.append(replicas.serve(rates[now : now + LOOK], now))
        outcome.wanted.append(ready)
        outcome.ready.append(ready)
        # Whoever will be ready then is starting now, and costs as much as one that is.
        outcome.replica_seconds += LOOK * int(needed[now : now + LOOK + ahead].max())
    outcome.latencies = np.concatenate(latencies)
    return outcome
