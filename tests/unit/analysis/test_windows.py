"""Snapshots become windows: differences per start of Envoy and per loaded weight, and nothing counted twice."""

import json
import math
from typing import Any

import pytest

from podium.analysis import (
    ArmCounts,
    Counters,
    Memory,
    Snapshot,
    Window,
    compact,
    observe,
    windows_from_snapshots,
)


def snap(
    at: float,
    *,
    stable: Counters | None = None,
    candidate: Counters | None = None,
    weight: int = 1000,
    epoch: str = "e1",
    gateway: str = "g",
) -> Snapshot:
    return Snapshot(at, gateway, epoch, weight, stable or Counters(), candidate or Counters())


def answered(total: int, **more: Any) -> Counters:
    return Counters(started=total, resolved=total, **more)


def windows(*snapshots: Snapshot, timeout: float = 0.0, warmup: float = 0.0) -> list[Window]:
    return windows_from_snapshots(snapshots, timeout_seconds=timeout, warmup_seconds=warmup)


def test_a_window_is_the_difference_of_two_snapshots() -> None:
    (window,) = windows(
        snap(10, stable=answered(100, bad=4), candidate=answered(10, refused=1)),
        snap(15, stable=answered(190, bad=5, slow=2), candidate=answered(30, bad=3, saved=2, refused=1)),
    )
    assert window == Window(
        10, 15, "g", 0.1, ArmCounts(90, 90, bad=1, slow=2), ArmCounts(20, 20, bad=3, saved=2)
    )


def test_a_new_start_of_envoy_restarts_the_differences() -> None:
    first = snap(0, stable=answered(1000))
    restarted = snap(1, stable=answered(7, bad=7), epoch="e2")
    last = snap(2, stable=answered(9, bad=7), epoch="e2")
    (window,) = windows(first, restarted, last)
    assert (window.start, window.stable) == (1, ArmCounts(2, 2))


def test_a_counter_that_shrank_is_a_reset() -> None:
    (window,) = windows(
        snap(0, candidate=answered(50, bad=5)),
        snap(1, candidate=answered(10, bad=1)),
        snap(2, candidate=answered(30, bad=2)),
    )
    assert (window.start, window.candidate) == (1, ArmCounts(20, 20, bad=1))


def test_gateways_are_kept_apart() -> None:
    found = windows(
        snap(0, stable=answered(5)),
        snap(0.5, stable=answered(500), gateway="h"),
        snap(1, stable=answered(6)),
        snap(1.5, stable=answered(503), gateway="h"),
    )
    assert [(w.gateway, w.stable.total) for w in found] == [("g", 1), ("h", 3)]


def test_after_a_flip_the_larger_share_is_assumed_for_one_timeout() -> None:
    up = windows(
        *(snap(t, weight=1000 if t < 3 else 5000, stable=answered(10 * t)) for t in range(8)), timeout=2.0
    )
    assert [(w.start, w.rho, w.exact) for w in up] == [
        (0, 0.1, True),
        (1, 0.1, True),
        (2, 0.5, False),  # straddles the flip
        (3, 0.5, False),
        (4, 0.5, False),  # requests drawn just before the snapshot at 3 may be resolved until 5
        (5, 0.5, True),
        (6, 0.5, True),
    ]
    down = windows(
        *(snap(t, weight=5000 if t < 3 else 1000, stable=answered(10 * t)) for t in range(7)), timeout=2.0
    )
    assert [(w.rho, w.exact) for w in down] == [(0.5, True)] * 2 + [(0.5, False)] * 3 + [(0.1, True)]


def test_two_flips_within_a_timeout_keep_the_largest_of_three() -> None:
    weights = [1000, 9000, 2000, 2000, 2000, 2000]
    found = windows(*(snap(t, weight=w) for t, w in enumerate(weights)), timeout=1.5)
    assert [(w.rho, w.exact) for w in found] == [(0.9, False)] * 4 + [(0.2, True)]


def test_warm_up_is_not_counted() -> None:
    found = windows(*(snap(t, weight=0 if t < 2 else 500) for t in range(9)), warmup=3.0)
    # The first snapshot may have come right after a shift, so its warm-up lasts until 3; the shift at 2 until 5.
    assert [w.start for w in found] == [5, 6, 7]


def test_the_same_snapshot_again_changes_nothing_and_a_clock_that_went_back_starts_afresh() -> None:
    memory, _ = observe(Memory(), snap(5, stable=answered(1)), timeout_seconds=1, warmup_seconds=0)
    again, window = observe(memory, snap(5, stable=answered(1)), timeout_seconds=1, warmup_seconds=0)
    assert (again, window) == (memory, None)
    back, window = observe(memory, snap(3, stable=answered(4)), timeout_seconds=1, warmup_seconds=0)
    assert window is None
    _, window = observe(back, snap(4, stable=answered(6)), timeout_seconds=1, warmup_seconds=0)
    assert window is not None and window.stable.total == 2


def test_requests_given_up_count_once_three_readings_agree() -> None:
    def given(value: int) -> Counters:
        return Counters(gave_up=value)

    # A reading that is too high by chance is forgotten; a real one is counted two scrapes later, once.
    readings = [0, 2, 0, 0, 5, 5, 5, 4, 5, 5]
    found = windows(*(snap(t, candidate=given(value)) for t, value in enumerate(readings)))
    assert [w.candidate.gave_up for w in found] == [0, 0, 0, 0, 0, 5, 0, 0, 0]


def test_a_request_between_two_attempts_is_not_counted_twice() -> None:
    started = [100, 99, 101]  # the retry was counted before its attempt
    found = windows(*(snap(t, stable=Counters(started=n, resolved=n)) for t, n in enumerate(started)))
    assert [w.stable.started for w in found] == [0, 1]
    assert sum(w.stable.total for w in found) == 1


def test_an_incident_covers_fifteen_seconds_and_goes_on_as_ordinary_errors() -> None:
    # Connections fail from 10 to 40 without a pause, and once more after a long silence.
    failures = {t: max(0, min(t, 40) - 10) + (1 if t >= 80 else 0) for t in range(100)}
    found = windows(*(snap(t, candidate=answered(t, connect_failures=n)) for t, n in failures.items()))
    labels = {w.start: w.incident for w in found}
    assert [t for t, label in labels.items() if label == 10] == list(range(10, 25))
    assert [t for t, label in labels.items() if label == 79] == list(range(79, 94))
    assert all(labels[t] is None for t in [*range(10), *range(25, 79), *range(94, 99)])


def test_compact_adds_up_and_keeps_apart_what_differs() -> None:
    bucket = ((1.0, 1), (math.inf, 2))
    parts = [
        Window(0, 1, "g", 0.1, ArmCounts(5, 5, bad=1), ArmCounts(1, 1, latency_buckets=bucket)),
        Window(1, 2, "h", 0.1, ArmCounts(7, 6), ArmCounts(2, 2, latency_buckets=bucket)),
        Window(2, 3, "g", 0.1, ArmCounts(1, 1), ArmCounts(), exact=False),
        Window(3, 4, "g", 0.1, ArmCounts(1, 1), ArmCounts(), incident=3.0),
        Window(4, 5, "g", 0.5, ArmCounts(1, 1), ArmCounts()),
    ]
    merged = compact(parts)
    assert len(merged) == 4
    assert merged[0] == Window(
        0, 2, "*", 0.1, ArmCounts(12, 11, bad=1), ArmCounts(3, 3, latency_buckets=((1.0, 2), (math.inf, 4)))
    )
    assert compact(merged) == merged
    assert compact([*compact(parts[:2]), *parts[2:]]) == merged


def test_different_bucket_edges_are_refused() -> None:
    one = Window(0, 1, "g", 0.1, ArmCounts(latency_buckets=((1.0, 1), (math.inf, 1))), ArmCounts())
    other = Window(1, 2, "g", 0.1, ArmCounts(latency_buckets=((2.0, 1), (math.inf, 1))), ArmCounts())
    with pytest.raises(ValueError, match="bucket edges"):
        compact([one, other])


def test_a_restarted_server_goes_on_where_it_was() -> None:
    weights = [0, 0, 1000, 1000, 1000, 5000, 5000, 5000, 5000]
    history = [
        snap(
            float(t),
            weight=weight,
            epoch="e1" if t < 6 else "e2",
            stable=answered(t * 100, bad=t, gave_up=t // 2),
            candidate=answered(t * 10, connect_failures=int(t > 3)),
        )
        for t, weight in enumerate(weights)
    ]
    memory, found = Memory(), []
    for snapshot in history:
        stored = json.loads(json.dumps(memory.to_dict()))
        sent = Snapshot.from_dict(json.loads(json.dumps(snapshot.to_dict())))
        memory, window = observe(Memory.from_dict(stored), sent, timeout_seconds=1.5, warmup_seconds=0.5)
        if window:
            found.append(Window.from_dict(json.loads(json.dumps(window.to_dict()))))
    assert found == windows(*history, timeout=1.5, warmup=0.5)
    assert [window.start for window in found] == [3, 6, 7]  # two warm-ups and a restart in between
