"""From Envoy's raw counters of one cluster to counts of client requests.

Called by the control plane on each scrape, before `windows`. Calls nothing but `evidence`.

Which counter means what was measured on Envoy 1.40; each formula stands beside its reason below.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from podium.analysis.evidence import Buckets, buckets_from_json, buckets_to_json

# The counters of one cluster (one arm, live traffic only) that are read. Envoy leaves unused ones out of its
# answer, so a name that is missing is zero. `upstream_rq_active` is a gauge.
ENVOY_COUNTERS = (
    "upstream_rq_total",
    "upstream_rq_completed",
    "upstream_rq_active",
    "upstream_rq_retry",
    "upstream_rq_retry_success",
    "upstream_rq_5xx",
    "upstream_rq_4xx",
    "upstream_rq_timeout",
    "upstream_rq_pending_failure_eject",
    "upstream_rq_pending_overflow",
    "upstream_rq_cancelled",
    "upstream_cx_none_healthy",
    "upstream_cx_connect_fail",
    "upstream_cx_destroy_remote_with_active_rq",
    "retry.upstream_rq_2xx",
)


@dataclass(frozen=True)
class Counters:
    """One arm's cumulative counts since one start of Envoy, as of one scrape.

    All fields but `resolved` and `gave_up` only ever grow within one start: a smaller one is a reset. Those two
    contain a gauge and are read while requests run, so they may waver by a few; `windows` allows for that.
    The meaning of each is that of the field in `ArmCounts`; `slow` is without the requests given up.
    """

    started: int = 0
    resolved: int = 0
    bad: int = 0
    saved: int = 0
    gave_up: int = 0
    refused: int = 0
    slow: int = 0
    connect_failures: int = 0
    latency_buckets: Buckets = ()

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` gives an equal object."""
        out: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        return out | {"latency_buckets": buckets_to_json(self.latency_buckets)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**{**values, "latency_buckets": buckets_from_json(values["latency_buckets"])})


def threshold_edge(edges: Iterable[float], threshold_ms: float) -> float:
    """The first finite bucket edge (milliseconds) at or above `threshold_ms`: where slow requests are counted.

    Raises ValueError when no finite edge is that high, since slowness over it can't be seen then.
    """
    finite = [edge for edge in edges if math.isfinite(edge)]
    above = [edge for edge in finite if edge >= threshold_ms]
    if not above:
        highest = f"the highest is {max(finite):g} ms" if finite else "there are none"
        raise ValueError(
            f"threshold_ms: no histogram bucket edge at or above {threshold_ms:g} ms ({highest}); "
            "lower the threshold or add an edge to the gateway's histogram settings"
        )
    return min(above)


def arm_counters(
    raw: Mapping[str, int],
    histogram: Buckets = (),
    *,
    threshold_ms: float | None = None,
    keep_buckets: bool = False,
) -> Counters:
    """Turn one cluster's Envoy counters and its `upstream_rq_time` histogram into `Counters`.

    raw: counter name (of `ENVOY_COUNTERS`, without the cluster's prefix) -> value; missing ones are zero.
    histogram: cumulative (upper edge in ms, requests), () before the first request.
    threshold_ms: requests above it are slow; None when latency isn't compared.
    keep_buckets: keep the whole histogram too (a quantile is compared or limited).
    Raises ValueError for an unknown counter, a negative value, or edges out of order.
    """
    _check(raw, histogram)
    count = {name: raw.get(name, 0) for name in ENVOY_COUNTERS}
    # upstream_rq_total counts the attempts that got a connection. Those that didn't are elsewhere: the connection
    # failed, the circuit breaker was full, the client left first, or there was no host. A retry is one attempt
    # more for the same request, so what is left are requests.
    attempts = (
        count["upstream_rq_total"]
        + count["upstream_rq_pending_failure_eject"]
        + count["upstream_rq_pending_overflow"]
        + count["upstream_rq_cancelled"]
        + count["upstream_cx_none_healthy"]
    )
    started = attempts - count["upstream_rq_retry"]
    # A request that its client gave up stands in the attempts only: it was neither completed nor is it active. So
    # does one that a Route's fallback took to another Deployment, whose cluster counts the retry: that one failed here.
    resolved = started - count["upstream_rq_active"]
    # A good answer is retried in a cascade only, and by the larger Deployment: the small one was not sure, no more.
    answered = count["upstream_rq_completed"] + count["retry.upstream_rq_2xx"]
    gave_up = resolved - answered
    # Once per request: the final answer was a 5xx (a route timeout is a 504), or a retry saved it. The retry
    # counters by status count attempts, and one request that fails four times would be four bets.
    bad = count["upstream_rq_5xx"] + count["upstream_rq_retry_success"]
    slow, kept = _latencies(histogram, count["upstream_rq_timeout"], threshold_ms)
    return Counters(
        started=started,
        resolved=resolved,
        bad=bad,
        saved=count["upstream_rq_retry_success"],
        gave_up=gave_up,
        refused=count["upstream_rq_4xx"],
        slow=slow,
        # Refused, cut under a running request, or nowhere to go: all are how a dead replica looks.
        connect_failures=count["upstream_cx_connect_fail"]
        + count["upstream_cx_destroy_remote_with_active_rq"]
        + count["upstream_cx_none_healthy"],
        latency_buckets=kept if keep_buckets else (),
    )


def _check(raw: Mapping[str, int], histogram: Buckets) -> None:
    """Raises ValueError for what no Envoy shows."""
    unknown = sorted(set(raw) - set(ENVOY_COUNTERS))
    if unknown:
        raise ValueError(f"unknown Envoy counter {unknown[0]!r}; known: {', '.join(ENVOY_COUNTERS)}")
    negative = sorted(name for name, value in raw.items() if value < 0)
    if negative:
        raise ValueError(f"{negative[0]}: a counter can't be negative ({raw[negative[0]]})")
    edges = [edge for edge, _ in histogram]
    if edges != sorted(set(edges)) or (edges and not math.isinf(edges[-1])):
        raise ValueError("histogram: edges must ascend and end with infinity")


def _latencies(histogram: Buckets, timeouts: int, threshold_ms: float | None) -> tuple[int, Buckets]:
    """Requests above the threshold (0 without one), and the whole histogram. A request that timed out is missing in
    Envoy's; it belongs above every edge."""
    if not histogram:
        return (0 if threshold_ms is None else timeouts), ()
    answered = histogram[-1][1]
    whole = (*histogram[:-1], (math.inf, answered + timeouts))
    if threshold_ms is None:
        return 0, whole
    within = dict(histogram)[threshold_edge((edge for edge, _ in histogram), threshold_ms)]
    return answered + timeouts - within, whole
