"""What to measure next of a model version, and what to propose from the measurements. Pure.

Called by the app, which measures one replica. Three series: rows per request over one connection (what is a good
batch?), connections (how much does one replica carry?), and random arrivals at the rate that is to be proposed (does
it hold?). The last one is what counts: connections that wait for their answers slow themselves down, arrivals do not.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from podium.resources.profile import ProfilePoint, ProfileProposal
from podium.resources.quantities import format_duration, format_size
from podium.resources.shape import API_VERSION

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONNECTIONS = (1, 2, 4, 8, 16, 32, 64, 128)
CHECKS = 3
HEADROOM = 0.7
"""Share of the measured capacity that is proposed: queues grow without bound as the load nears all of it."""
_GAIN = 1.1
"""A doubling that gives less than this is no gain."""
_ENOUGH = 0.9
"""A batch that reaches this share of the best throughput is as good as the best: a smaller one answers sooner."""
_KEPT_UP = 0.95
_FEWEST_ANSWERS = 4
_STEP = 64 * 2**20
_SPARE = 128 * 2**20
_SPARE_SHARE = 1.3
_STARTUP_SECONDS = 120.0
"""A Deployment's own startup timeout."""


@dataclass(frozen=True)
class Budget:
    """Seconds for each measurement of a series, of `seconds` for all of them."""

    seconds: float

    @property
    def batch(self) -> float:
        """Of one point of the first series."""
        return 0.3 * self.seconds / len(ROWS)

    @property
    def load(self) -> float:
        """Of one point of the second series."""
        return 0.35 * self.seconds / len(CONNECTIONS)

    @property
    def reserved(self) -> float:
        """What is kept for the checks."""
        return 0.25 * self.seconds

    def check(self, left: float, done: int) -> float:
        """Of the next check, with `left` seconds until the end: the first one gets the most."""
        return left if done + 1 >= CHECKS else 0.6 * left


def next_rows(points: Sequence[ProfilePoint], p99_ms: float | None, seconds: float) -> int | None:
    """How many rows to put into each request next; None: enough is known. `seconds`: of one measurement."""
    if not points:
        return ROWS[0]
    last = points[-1]
    too_slow = p99_ms is not None and 2 * last.p99_ms > p99_ms
    if last.failed or too_slow or _too_few(last, seconds) or _levelled_off(points, _rows_per_second):
        return None
    return _following(ROWS, last.rows)


def choose_batch(points: Sequence[ProfilePoint], p99_ms: float | None) -> tuple[int, str]:
    """How many rows should go to the model in one call at most, and why.

    A request may find a batch under way, and then goes with the next: two batches must fit into the wished latency.
    """
    good = [point for point in points if not point.failed]
    fitting = [point for point in good if point.rows == 1 or p99_ms is None or 2 * point.p99_ms <= p99_ms]
    if not fitting:
        return 1, "batches of one row: larger ones failed"
    best = max(_rows_per_second(point) for point in fitting)
    chosen = next(point for point in fitting if _rows_per_second(point) >= _ENOUGH * best)
    single = fitting[0]
    if chosen.rows == 1 and len(fitting) == 1:
        return 1, "batches of one row: two larger ones would not fit into the wished latency"
    if chosen.rows == 1:
        return 1, "batches of one row: larger ones give no more rows per second"
    gain = _rows_per_second(chosen) / _rows_per_second(single) if single.p50_ms else 0.0
    words = f"batches of {chosen.rows} rows give {gain:.1f} times the rows per second of single ones"
    if p99_ms is not None and len(fitting) < len(good):
        words += ", and two of them fit into the wished latency"
    return chosen.rows, words


def next_connections(points: Sequence[ProfilePoint], p99_ms: float | None, seconds: float) -> int | None:
    """Over how many connections to ask next; None: enough is known."""
    if not points:
        return CONNECTIONS[0]
    last = points[-1]
    too_slow = p99_ms is not None and last.p99_ms > 2 * p99_ms
    if last.failed or too_slow or _too_few(last, seconds) or _levelled_off(points, _requests_per_second):
        return None
    return _following(CONNECTIONS, last.connections)


def capacity(points: Sequence[ProfilePoint], p99_ms: float | None) -> ProfilePoint | None:
    """The measurement with the most requests per second that kept the latency without a failure; None: none did."""
    fitting = [
        point
        for point in points
        if not point.failed and point.requests and (p99_ms is None or point.p99_ms <= p99_ms)
    ]
    return max(fitting, key=_requests_per_second, default=None)


def next_check(
    checks: Sequence[ProfilePoint], load: Sequence[ProfilePoint], p99_ms: float | None
) -> float | None:
    """The rate to try at random arrivals; None: the last one held, or too many did not."""
    most = capacity(load, p99_ms)
    if most is None or len(checks) >= CHECKS or (checks and holds(checks[-1], p99_ms)):
        return None
    return HEADROOM * (checks[-1].rate or 0.0) if checks else HEADROOM * most.per_second


def holds(check: ProfilePoint, p99_ms: float | None) -> bool:
    """Did the replica keep up with that rate, without a failure, and the latency too?"""
    kept_up = check.per_second >= _KEPT_UP * (check.rate or 0.0) or check.requests >= _expected(check)
    return not check.failed and check.requests > 0 and kept_up and (p99_ms is None or check.p99_ms <= p99_ms)


def _expected(check: ProfilePoint) -> float:
    """The fewest arrivals that chance gives in that time: three standard deviations of a Poisson count."""
    mean = (check.rate or 0.0) * check.seconds
    return mean - 3 * math.sqrt(mean)


def memory_for(peak: int) -> int:
    """A limit for a replica that held `peak` bytes at most: 30 % and 128 MiB more, in steps of 64 MiB."""
    return math.ceil((_SPARE_SHARE * peak + _SPARE) / _STEP) * _STEP


@dataclass(frozen=True)
class Measured:
    """All that a proposal rests on."""

    model: str
    version: str
    cpus: int
    batches: Sequence[ProfilePoint]
    load: Sequence[ProfilePoint]
    checks: Sequence[ProfilePoint]
    memory_peak: int
    start_seconds: float
    cores: int


def propose(measured: Measured, rate: float | None, p99_ms: float | None) -> ProfileProposal:
    """Replicas, batch and memory for `rate` requests per second within `p99_ms`, with the reasons in sentences."""
    max_batch, batch_words = choose_batch(measured.batches, p99_ms)
    memory = memory_for(measured.memory_peak)
    reasons = [
        batch_words,
        f"memory {format_size(memory)}: the replica held {measured.memory_peak / 2**20:.0f} MiB at most; "
        "30 % and 128 MiB are spare",
    ]
    held = next((check for check in reversed(measured.checks) if holds(check, p99_ms)), None)
    if held is None or held.rate is None:
        reasons.append(_why_not(measured, p99_ms))
        return ProfileProposal(cpus=measured.cpus, memory=memory, max_batch=max_batch, reasons=reasons)
    replicas = 1 if rate is None else max(1, math.ceil(rate / held.rate))
    reasons.append(
        f"one replica carried {_number(held.rate)} requests/s at random moments: "
        f"p99 {held.p99_ms:.1f} ms over {held.requests} requests"
    )
    if rate is not None:
        reasons.append(
            f"{replicas} replica{'s' if replicas > 1 else ''} for {_number(rate)} requests/s: "
            f"{_number(rate / replicas)} for each"
        )
    needed = replicas * measured.cpus
    if needed > measured.cores:
        reasons.append(f"they need {needed} processors; this machine has {measured.cores}")
    return ProfileProposal(
        replicas=replicas, cpus=measured.cpus, memory=memory, max_batch=max_batch,
        sustained=held.rate, p99_ms=held.p99_ms, reasons=reasons,
        deployment=_deployment(measured, replicas, memory, max_batch),
    )  # fmt: skip


def _why_not(measured: Measured, p99_ms: float | None) -> str:
    single = next((point for point in measured.load if point.requests), None)
    if single is None:
        return "no request over a single connection was answered in the time that there was: raise the budget"
    if any(point.failed for point in (*measured.load, *measured.checks)) and not capacity(
        measured.load, p99_ms
    ):
        return "requests failed even over a single connection"
    if p99_ms is not None and single.p99_ms > p99_ms:
        return (
            f"a request that is alone takes {single.p99_ms:.1f} ms (p99), more than the wished {p99_ms:g} ms: "
            "no number of replicas mends that"
        )
    if not measured.checks:
        return "there was no time left to try a rate: raise the budget"
    last = measured.checks[-1]
    return (
        f"not even {_number(last.rate or 0)} requests/s at random moments held (p99 {last.p99_ms:.1f} ms, "
        f"{_number(last.per_second)} answered a second): the machine may be busy with other things"
    )


def _deployment(measured: Measured, replicas: int, memory: int, max_batch: int) -> dict[str, object]:
    runtime: dict[str, object] = {"maxBatch": max_batch}
    if 2 * measured.start_seconds > _STARTUP_SECONDS:
        runtime["startupTimeout"] = format_duration(float(math.ceil(2 * measured.start_seconds)))
    return {
        "apiVersion": API_VERSION,
        "kind": "Deployment",
        "metadata": {"name": measured.model},
        "spec": {
            "model": {"name": measured.model, "version": measured.version},
            "replicas": replicas,
            "resources": {"memory": format_size(memory), "cpus": measured.cpus},
            "runtime": runtime,
        },
    }


def _following(series: Sequence[int], value: int) -> int | None:
    return next((item for item in series if item > value), None)


def _too_few(point: ProfilePoint, seconds: float) -> bool:
    """The next point, at perhaps twice the latency, would see too few answers to say anything."""
    return point.requests == 0 or 2 * point.p50_ms * _FEWEST_ANSWERS > 1000 * seconds


def _levelled_off(points: Sequence[ProfilePoint], throughput: Callable[[ProfilePoint], float]) -> bool:
    """Two doublings in a row without a gain."""
    if len(points) < 3:
        return False
    before, *later = (throughput(point) for point in points[-3:])
    return all(value < _GAIN * before for value in later)


def _rows_per_second(point: ProfilePoint) -> float:
    """Over one connection, by the median: one slow answer among few must not decide about the batch."""
    return 1000 * point.rows / point.p50_ms if point.p50_ms else 0.0


def _requests_per_second(point: ProfilePoint) -> float:
    return point.per_second


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
