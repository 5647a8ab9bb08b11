"""Scaling: how many replicas a Deployment may have and what that number follows; and what the autoscaler knows.

Data and validation only. `resources.deployment` has both as fields; `planning.autoscaling` decides by them.
"""

import datetime
import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from podium.resources.quantities import Duration
from podium.resources.shape import Spec, Status

MOST_REPLICAS = 1000
LONGEST_WINDOW = 600.0
"""Seconds. The server keeps what the gateways counted for a little longer than this."""

MOST_PROCESSOR_PERCENT = 95.0
"""More than this of what a replica has cannot be told from all of it."""

TargetName = Literal["concurrency", "requestsPerSecond", "p95", "cpu"]
_NAMES = ("concurrency", "requests_per_second", "p95", "cpu")


class ScalingTarget(Spec):
    """What each replica is to have: exactly one of the four."""

    concurrency: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Requests under way per replica, on average over the window; those that wait in the replica's queue count."""
    requests_per_second: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Per replica, refused ones included."""
    p95: Annotated[Duration, Field(ge=0.001, le=600)] | None = None
    """Latency as the gateway sees it. More replicas shorten the wait for one, never the model's own time: where nothing
    waits, none is added, whatever the latency."""
    cpu: Annotated[float, Field(ge=1, le=MOST_PROCESSOR_PERCENT)] | None = None
    """Percent of `resources.cpus` processors (of the machine's, if it has fewer) that a replica keeps busy, on average
    over the window, with all that it started. A model that computes in one thread of four never gets beyond 25."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "ScalingTarget":
        given = [name for name in _NAMES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("expected exactly one of concurrency, requestsPerSecond, p95 and cpu")
        return self

    @property
    def name(self) -> TargetName:
        """Which of them it is, as it is written."""
        if self.concurrency is not None:
            return "concurrency"
        if self.p95 is not None:
            return "p95"
        return "cpu" if self.cpu is not None else "requestsPerSecond"

    @property
    def value(self) -> float:
        """Requests, requests/s, seconds or percent, per replica."""
        return self.concurrency or self.requests_per_second or self.p95 or self.cpu or 0.0


class Scaling(Spec):
    """Replicas follow the load. Windows and thresholds are those of Knative's KPA unless another source is named."""

    min: Annotated[int, Field(ge=0, le=MOST_REPLICAS)] = 1
    """0: without requests nobody runs; the first request is held until a replica is up."""
    max: Annotated[int, Field(ge=1, le=MOST_REPLICAS)]
    target: ScalingTarget = Field(default_factory=lambda: ScalingTarget(concurrency=1))
    tolerance: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """A deviation from the target up to this share changes nothing (0.1 in Kubernetes' HPA)."""
    stable_window: Annotated[Duration, Field(ge=5, le=LONGEST_WINDOW)] = 60.0
    """Over which the load is averaged."""
    panic_window: Annotated[Duration, Field(ge=2, le=LONGEST_WINDOW)] = 6.0
    """A second, short average: a surge is seen in it first."""
    panic_threshold: Annotated[float, Field(ge=1.1, le=10)] = 2.0
    """Panic begins when the short average asks for this many times the replicas that are ready. It only ever adds
    replicas, and ends a stable window after the last time that this was so."""
    scale_down_delay: Annotated[Duration, Field(le=6 * 3600)] = 300.0
    """Replicas go only when none of the wishes of this time wanted more (as in Kubernetes' HPA)."""
    scale_to_zero_after: Annotated[Duration, Field(ge=5, le=30 * 86400)] = 300.0
    """With `min` 0: how long no request may have been under way before the last replica goes."""
    warm: Annotated[int, Field(ge=0, le=100)] = 0
    """Replicas beyond those that serve that are loaded and ready, but get no requests until they are needed."""
    max_replica_hours_per_day: Annotated[float, Field(gt=0, le=24 * MOST_REPLICAS)] | None = None
    """Per UTC day, replicas of every revision together, warm ones included. Once it is used up the Deployment stays at
    `min` (at 1 where `min` is 0 and requests come) until the next day begins, and its status says so. An apply refuses
    less than `min` takes in a day."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Scaling":
        if self.min > self.max:
            raise ValueError(f"min: expected at most max ({self.max})")
        if self.panic_window > self.stable_window:
            raise ValueError("panicWindow: expected at most stableWindow")
        cpu = self.target.cpu
        if cpu is not None and cpu * (1 + self.tolerance) > MOST_PROCESSOR_PERCENT:
            most = math.floor(MOST_PROCESSOR_PERCENT / (1 + self.tolerance))
            raise ValueError(
                f"target.cpu: expected at most {most} with tolerance {self.tolerance:g}: replicas that are busy all "
                "the time would not be too busy"
            )
        return self

    @property
    def least_replica_hours(self) -> float:
        """Of a whole day, whatever the load is."""
        return 24.0 * self.min

    def within(self, replicas: int) -> int:
        """The nearest number that is allowed."""
        return max(self.min, min(self.max, replicas))


class Peak(Status):
    """The highest wish of a stretch of time."""

    at: datetime.datetime
    wanted: int


class ScalingStatus(Status):
    """What the autoscaler decided, why, and what it has to remember. Written when a decision changes, and about twice a
    minute otherwise: between those it is a little older than the truth."""

    desired: int = 0
    """Replicas that each revision which serves is to have; 0: asleep."""
    reason: str = ""
    limited: str = ""
    """What holds `desired` back from what the load asks for; empty if nothing."""
    measured: float | None = None
    """By the stable window, over all replicas: requests under way, requests/s, seconds, or percent of one replica's
    processor time, as the target is. None without a measurement."""
    panic_since: datetime.datetime | None = None
    panic_seen_at: datetime.datetime | None = None
    """When the short window last asked for so much."""
    last_scaled_at: datetime.datetime | None = None
    kept_since: bool = False
    """Since then the target was kept for once: so many replicas can do it."""
    last_active_at: datetime.datetime | None = None
    """When a request was last seen under way, or a sleeping replica was woken by one."""
    watched_since: datetime.datetime | None = None
    """From when on the load was seen without a gap: nothing shrinks before a whole stable window."""
    seen_at: datetime.datetime | None = None
    """The last look."""
    peaks: list[Peak] = Field(default_factory=list)
    """Oldest first, descending: the highest wishes of `scaleDownDelay`."""
    capacity: float | None = None
    """For concurrency and p95: requests/s per replica at which it had to grow in the last hour. Shrinking stops short
    of it."""
    capacity_at: datetime.datetime | None = None
    capacity_revision: str | None = None
    day: datetime.date | None = None
    """UTC."""
    replica_hours: float = 0.0
    """Of that day."""
