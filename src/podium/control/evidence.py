"""From the samples that gateways sent to what a rollout is judged by. Keeps what was read, so that a look is cheap.

Called by `control.rollouts`. After a restart everything is read again from the store: the samples are the truth.
"""

import logging
import math
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from podium.analysis import (
    ENVOY_COUNTERS,
    Buckets,
    Counters,
    Memory,
    Snapshot,
    Window,
    arm_counters,
    compact,
    observe,
)
from podium.planning.looks import Trial, warmup_seconds
from podium.planning.routing import beside_baseline
from podium.resources.kinds import Revision, Rollout
from podium.resources.rollout import COPIES, has_baseline
from podium.store import SampleRow, Store

_log = logging.getLogger("podium.control.evidence")
_PAGE = 2000


@dataclass
class _Stream:
    """Samples that follow each other: the counters of one pair of clusters."""

    memory: Memory = field(default_factory=Memory)
    windows: list[Window] = field(default_factory=list)


@dataclass
class _Read:
    """One rollout's evidence so far."""

    last_id: int = 0
    live: _Stream = field(default_factory=_Stream)
    copies: _Stream = field(default_factory=_Stream)
    requests: Counter[int] = field(default_factory=Counter)
    """Of the candidate, by its weight in basis points: beside a baseline all weights make one share."""


class EvidenceReader:
    """Reads each sample once. Thread-safe; a rollout is read by one thread at a time (its lease)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, _Read] = {}
        self._lock = threading.Lock()

    def trial(self, rollout: Rollout, candidate: Revision | None, wanted: int) -> Trial:
        """All windows of this rollout up to now, merged, and the candidate's liveness."""
        uid = rollout.uid
        with self._lock:
            read = self._read.setdefault(uid, _Read())
        settings = rollout.spec.settings
        warmup = warmup_seconds(settings)
        baseline = has_baseline(rollout.spec)
        latency = settings.analysis.latency
        threshold = latency.threshold * 1000 if latency is not None else None
        timeout = candidate.spec.runtime.request_timeout if candidate is not None else 30.0
        while rows := self._store.samples(uid, after_id=read.last_id, limit=_PAGE):
            for row in rows:
                stream = read.copies if row.epoch.endswith(COPIES) else read.live
                try:
                    snapshot = snapshot_of(row, threshold)
                    if baseline and stream is read.live:
                        snapshot = replace(snapshot, weight_bp=beside_baseline(row.weight_bp))
                except (TypeError, ValueError) as error:
                    # What cannot be read must never keep a rollout from being aborted or judged by the rest.
                    _log.warning("sample %d of gateway %s is left out: %s", row.id, row.gateway, error)
                    continue
                stream.memory, window = observe(
                    stream.memory, snapshot, timeout_seconds=timeout, warmup_seconds=warmup
                )
                if window is not None:
                    stream.windows.append(window)
                    if stream is read.live:
                        read.requests[row.weight_bp] += window.candidate.total
            for stream in (read.live, read.copies):
                stream.windows = compact(stream.windows)
            read.last_id = rows[-1].id
            if len(rows) < _PAGE:
                break
        return Trial(
            windows=tuple(read.live.windows),
            copies=tuple(read.copies.windows),
            by_weight=dict(read.requests) if baseline else None,
            candidate_ready=candidate.status.ready_replicas if candidate is not None else 0,
            candidate_wanted=wanted,
            candidate_detail=candidate.status.message.partition("\n")[0]
            if candidate is not None
            else "it is gone",
        )

    def forget(self, uid: str) -> None:
        """The rollout has ended."""
        with self._lock:
            self._read.pop(uid, None)


def snapshot_of(row: SampleRow, threshold_ms: float | None) -> Snapshot:
    """A stored sample as the analysis reads it."""
    return Snapshot(
        at=row.at,
        gateway=row.gateway,
        epoch=row.epoch,
        weight_bp=row.weight_bp,
        stable=_counters(row.stable, threshold_ms),
        candidate=_counters(row.candidate, threshold_ms),
    )


def _counters(raw: dict[str, Any], threshold_ms: float | None) -> Counters:
    histogram: Buckets = tuple(
        (math.inf if edge in ("+Inf", None) else float(edge), int(count))
        for edge, count in raw.get("buckets", ())
    )
    if histogram and not math.isinf(histogram[-1][0]):
        histogram = (*histogram, (math.inf, histogram[-1][1]))
    known = {name: int(value) for name, value in raw.items() if name in ENVOY_COUNTERS}
    return arm_counters(known, histogram, threshold_ms=threshold_ms)
