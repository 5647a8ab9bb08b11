"""From cumulative snapshots of the gateways to windows of counts, one per pair of scrapes.

Called by the control plane on each scrape (`observe`) or on a stored history (`windows_from_snapshots`), and to
keep stored evidence small (`compact`). Calls `counters` and `evidence`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from podium.analysis.counters import Counters
from podium.analysis.evidence import ArmCounts, Buckets, Window, add_counts

INCIDENT_SECONDS = 15.0
"""How long the aftermath of a failed connection is left out of the comparison, and how long it must be quiet
before the next failure is an incident of its own. Failures that go on longer count like any others."""

_MONOTONE = ("bad", "saved", "refused", "slow", "connect_failures")


@dataclass(frozen=True)
class Snapshot:
    """One gateway's cumulative counters at one moment.

    at: seconds since the epoch. gateway: its name. epoch: the identity of this start of Envoy (pid and start
    time, say): counters of two epochs are never subtracted. weight_bp: the candidate's weight that Envoy reports
    as loaded, in basis points (0..10000).
    """

    at: float
    gateway: str
    epoch: str
    weight_bp: int
    stable: Counters
    candidate: Counters

    def __post_init__(self) -> None:
        if not 0 <= self.weight_bp <= 10_000:
            raise ValueError(f"weight_bp: must be between 0 and 10000 basis points, not {self.weight_bp!r}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` gives an equal object."""
        out: dict[str, Any] = {"at": self.at, "gateway": self.gateway, "epoch": self.epoch}
        out |= {"weight_bp": self.weight_bp}
        return out | {"stable": self.stable.to_dict(), "candidate": self.candidate.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        arms = {arm: Counters.from_dict(values[arm]) for arm in ("stable", "candidate")}
        return cls(**{**values, **arms})


@dataclass(frozen=True)
class _GaveUp:
    """What is known of one arm's requests given up: recent readings, and how many are counted so far.

    The number is a difference of counters and a gauge that Envoy reads one after the other while requests run, so
    one reading may be a few too high. It counts once three readings in a row agree on it.
    """

    recent: tuple[int, ...]
    counted: int

    def read(self, value: int) -> tuple[int, "_GaveUp"]:
        """Take one more reading; return how many are newly certain, and the new memory."""
        recent = (*self.recent, value)[-3:]
        certain = max(min(recent), self.counted)
        return certain - self.counted, _GaveUp(recent, certain)


@dataclass(frozen=True)
class _GatewayMemory:
    """What must be remembered of one gateway between two scrapes."""

    last: Snapshot
    # (weight in basis points, when it was last seen loaded), oldest first, the current one last.
    weights: tuple[tuple[int, float], ...]
    shifted_at: float
    gave_up: tuple[_GaveUp, _GaveUp]
    incident_at: float | None = None
    failed_at: float | None = None


@dataclass(frozen=True)
class Memory:
    """What `observe` must remember between two scrapes; store it beside the windows (`to_dict`)."""

    gateways: Mapping[str, _GatewayMemory] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` gives an equal object."""
        return {
            name: {
                "last": memory.last.to_dict(),
                "weights": [list(pair) for pair in memory.weights],
                "shifted_at": memory.shifted_at,
                "gave_up": [[list(arm.recent), arm.counted] for arm in memory.gave_up],
                "incident_at": memory.incident_at,
                "failed_at": memory.failed_at,
            }
            for name, memory in self.gateways.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        gateways = {}
        for name, item in values.items():
            stable, candidate = (_GaveUp(tuple(recent), counted) for recent, counted in item["gave_up"])
            gateways[name] = _GatewayMemory(
                last=Snapshot.from_dict(item["last"]),
                weights=tuple((weight, seen) for weight, seen in item["weights"]),
                shifted_at=item["shifted_at"],
                gave_up=(stable, candidate),
                incident_at=item["incident_at"],
                failed_at=item["failed_at"],
            )
        return cls(gateways)


def _fresh(snapshot: Snapshot, before: _GatewayMemory | None) -> _GatewayMemory:
    """Start the differences again at `snapshot`; of what came before only times and weights are kept.

    A gateway that is seen for the first time may have been shifted just now, so its warm-up starts here.
    """
    wavering = tuple(_GaveUp((arm.gave_up,), arm.gave_up) for arm in (snapshot.stable, snapshot.candidate))
    gave_up = (wavering[0], wavering[1])
    if before is None:
        return _GatewayMemory(snapshot, ((snapshot.weight_bp, snapshot.at),), snapshot.at, gave_up)
    weights, shifted_at = _weights(before, snapshot, 0.0)
    return replace(before, last=snapshot, weights=weights, shifted_at=shifted_at, gave_up=gave_up)


def _weights(
    before: _GatewayMemory, snapshot: Snapshot, timeout_seconds: float
) -> tuple[tuple[tuple[int, float], ...], float]:
    """The weights that may still matter after `snapshot`, and the time of the last shift."""
    start = before.last.at
    # A request drawn under an old weight may be resolved up to one timeout after that weight was last loaded.
    # Its last sighting is before the flip, so the old one is kept as if it had lasted until this snapshot.
    seen = {weight: last for weight, last in before.weights if last + timeout_seconds > start}
    shifted_at = before.shifted_at
    if snapshot.weight_bp != before.last.weight_bp:
        seen[before.last.weight_bp] = snapshot.at
        shifted_at = snapshot.at
    seen[snapshot.weight_bp] = snapshot.at
    return tuple(sorted(seen.items(), key=lambda pair: pair[1])), shifted_at


def _was_reset(before: Counters, now: Counters) -> bool:
    """Whether a counter that can only grow has shrunk."""
    return any(getattr(now, name) < getattr(before, name) for name in _MONOTONE)


def _high_water(before: Counters, now: Counters) -> Counters:
    """`now`, with the two counts that waver kept from shrinking, so that no request is counted twice.

    A retry is counted before its attempt is, so a request in between is missing for a moment.
    """
    return replace(now, started=max(before.started, now.started), resolved=max(before.resolved, now.resolved))


def _bucket_difference(before: Buckets, now: Buckets) -> Buckets:
    """Cumulative buckets of the requests between two scrapes; a histogram that has just appeared began at zero."""
    if not before:
        return now
    old = dict(before)
    return tuple((edge, max(count - old.get(edge, 0), 0)) for edge, count in now)


def _difference(before: Counters, now: Counters, newly_given_up: int) -> ArmCounts:
    """One arm's counts between two scrapes of one start of Envoy."""
    return ArmCounts(
        started=now.started - before.started,
        total=now.resolved - before.resolved,
        bad=now.bad - before.bad,
        saved=now.saved - before.saved,
        gave_up=newly_given_up,
        refused=now.refused - before.refused,
        slow=now.slow - before.slow,
        connect_failures=now.connect_failures - before.connect_failures,
        latency_buckets=_bucket_difference(before.latency_buckets, now.latency_buckets),
    )


def _incident(
    before: _GatewayMemory, start: float, end: float, failed: bool
) -> tuple[float | None, float | None]:
    """The running incident's start and the time of the last failure, after a window from `start` to `end`."""
    if not failed:
        return before.incident_at, before.failed_at
    quiet = before.failed_at is None or start - before.failed_at >= INCIDENT_SECONDS
    return (start if quiet else before.incident_at), end


def observe(
    memory: Memory, snapshot: Snapshot, *, timeout_seconds: float, warmup_seconds: float
) -> tuple[Memory, Window | None]:
    """Take one snapshot; return the new memory and the window that it closes, if there is one.

    timeout_seconds: the route's timeout: so long after a flip requests drawn under both weights are resolved,
        and the larger share is assumed (`exact` is False then).
    warmup_seconds: windows that begin within this time after a shift are dropped.
    No window comes from the first snapshot of a gateway or of a start of Envoy, after a counter has shrunk (a
    reset), from a clock that went back, or during warm-up. The same snapshot again changes nothing.
    """
    before = memory.gateways.get(snapshot.gateway)

    def remember(new: _GatewayMemory) -> Memory:
        return Memory({**memory.gateways, snapshot.gateway: new})

    if before is not None and snapshot.at == before.last.at:
        return memory, None
    if before is None or snapshot.at < before.last.at:
        return remember(_fresh(snapshot, None)), None
    if (
        snapshot.epoch != before.last.epoch
        or _was_reset(before.last.stable, snapshot.stable)
        or _was_reset(before.last.candidate, snapshot.candidate)
    ):
        return remember(_fresh(snapshot, before)), None
    snapshot = replace(
        snapshot,
        stable=_high_water(before.last.stable, snapshot.stable),
        candidate=_high_water(before.last.candidate, snapshot.candidate),
    )
    start, end = before.last.at, snapshot.at
    weights, shifted_at = _weights(before, snapshot, timeout_seconds)
    gave_stable, stable_memory = before.gave_up[0].read(snapshot.stable.gave_up)
    gave_candidate, candidate_memory = before.gave_up[1].read(snapshot.candidate.gave_up)
    stable = _difference(before.last.stable, snapshot.stable, gave_stable)
    candidate = _difference(before.last.candidate, snapshot.candidate, gave_candidate)
    failed = stable.connect_failures + candidate.connect_failures > 0
    incident_at, failed_at = _incident(before, start, end, failed)
    new = _GatewayMemory(
        snapshot, weights, shifted_at, (stable_memory, candidate_memory), incident_at, failed_at
    )
    if warmup_seconds > 0 and start < shifted_at + warmup_seconds:
        return remember(new), None
    part_of_one = incident_at is not None and start < incident_at + INCIDENT_SECONDS
    window = Window(
        start=start,
        end=end,
        gateway=snapshot.gateway,
        rho=max(weight for weight, _ in weights) / 10_000,
        stable=stable,
        candidate=candidate,
        exact=len(weights) == 1,
        incident=incident_at if part_of_one else None,
    )
    return remember(new), window


def windows_from_snapshots(
    snapshots: Iterable[Snapshot], *, timeout_seconds: float, warmup_seconds: float
) -> list[Window]:
    """All windows of a history of snapshots, in the order of time; the same as `observe` on each in turn."""
    memory = Memory()
    windows = []
    for snapshot in sorted(snapshots, key=lambda item: (item.at, item.gateway)):
        memory, window = observe(
            memory, snapshot, timeout_seconds=timeout_seconds, warmup_seconds=warmup_seconds
        )
        if window is not None:
            windows.append(window)
    return windows


def compact(windows: Iterable[Window]) -> list[Window]:
    """Merge windows of equal share, exactness and incident: few windows, and the same verdict, always.

    A merged window's gateway is "*" when it covers several. Stored evidence stays small this way, and judging it
    takes the same time however long the rollout has lasted.
    """
    groups: dict[tuple[float, bool, float | None], list[Window]] = {}
    for window in windows:
        groups.setdefault((window.rho, window.exact, window.incident), []).append(window)
    merged = []
    for (rho, exact, incident), group in groups.items():
        gateways = {window.gateway for window in group}
        merged.append(
            Window(
                start=min(window.start for window in group),
                end=max(window.end for window in group),
                gateway=gateways.pop() if len(gateways) == 1 else "*",
                rho=rho,
                stable=add_counts(window.stable for window in group),
                candidate=add_counts(window.candidate for window in group),
                exact=exact,
                incident=incident,
            )
        )
    return sorted(merged, key=lambda window: (window.start, window.rho, window.exact))
