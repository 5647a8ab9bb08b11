"""Windows of load from cumulative counters: resets, gaps, several gateways, short and long requests."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.planning.load import WindowLoad, busy_shares, window_load


@dataclass(frozen=True)
class Row:
    at: float
    requests: int = 0
    active: int = 0
    time_ms: float = 0.0
    errors: int = 0
    refused: int = 0
    buckets: tuple[tuple[float, float], ...] = ()
    gateway: str = "g1"
    epoch: str = "e1"
    revision: str = "churn-00001"
    role: str = "live"


def test_rates_over_the_part_that_lies_in_the_window() -> None:
    rows = [
        Row(0),
        Row(10, requests=100, errors=10, refused=20, time_ms=5000),
        Row(20, requests=300, time_ms=15000, errors=10, refused=20),
    ]
    seen = window_load(rows, 15, {"g1": 20})
    assert seen.requests == pytest.approx(250)
    assert seen.requests_per_second == pytest.approx(250 / 15)
    assert seen.error_share == pytest.approx(5 / 250)
    assert seen.refused_share == pytest.approx(10 / 250)
    assert seen.concurrency == pytest.approx(12.5 / 15), "Little's law: 12.5 s of requests in 15 s"


def test_without_requests_there_are_no_shares() -> None:
    seen = window_load([], 15, {"g1": 20})
    assert (seen.requests, seen.concurrency) == (0, 0)
    assert (seen.error_share, seen.refused_share, seen.quantile(0.95)) == (None, None, None)


def test_a_restarted_envoy_starts_over() -> None:
    rows = [
        Row(0, requests=1000),
        Row(2, requests=1010),
        Row(4, requests=0, epoch="e2"),
        Row(6, requests=30, epoch="e2"),
    ]
    assert window_load(rows, 10, {"g1": 6}).requests == pytest.approx(40)


def test_gateways_are_added_up_each_to_its_own_last_report() -> None:
    rows = [
        Row(0),
        Row(10, requests=100, active=1),
        Row(3, gateway="g2"),
        Row(13, requests=50, gateway="g2", active=3),
        Row(0, gateway="gone"),
        Row(10, requests=999, gateway="gone"),
    ]
    assert window_load(rows, 10, {"g1": 10, "g2": 13}).requests == pytest.approx(150)


def test_a_report_that_comes_twice_adds_nothing() -> None:
    rows = [Row(0), Row(5, requests=50), Row(5, requests=50), Row(7, requests=50), Row(10, requests=100)]
    assert window_load(rows, 10, {"g1": 10}).requests == pytest.approx(100)


def test_long_requests_are_counted_while_they_last() -> None:
    rows = [Row(at, active=8) for at in range(0, 12, 2)]
    assert window_load(rows, 10, {"g1": 10}).concurrency == pytest.approx(8)
    assert window_load(rows, 10, {"g1": 12}).concurrency == pytest.approx(8), (
        "the next reading is still to come"
    )
    held = [Row(0, active=0), Row(2, active=100)]
    assert window_load(held, 6, {"g1": 2}).concurrency == pytest.approx(100 * 2 / 2 / 6)


def test_requests_that_hang_beside_short_ones_are_not_overlooked() -> None:
    rows = [Row(at, active=5, requests=at * 100, time_ms=at * 100 * 2.0) for at in range(0, 12, 2)]
    assert window_load(rows, 10, {"g1": 10}).concurrency == 5


def test_what_arrived_but_is_not_answered_counts_as_arrived() -> None:
    rows = [Row(0), Row(10, requests=20, active=30)]
    assert window_load(rows, 10, {"g1": 10}).arrived == pytest.approx(50)


def test_quantiles_between_the_edges_of_sparse_histograms() -> None:
    rows = [Row(0, buckets=((10, 0), (20, 5))), Row(10, requests=100, buckets=((10, 0), (20, 65), (30, 105)))]
    seen = window_load(rows, 10, {"g1": 10})
    assert seen.quantile(0.6) == pytest.approx(0.020)
    assert seen.quantile(0.3) == pytest.approx(0.015)
    assert seen.quantile(1.0) == pytest.approx(0.030)
    assert seen.quantile(0.8) == pytest.approx(0.025)


edges = st.lists(st.integers(1, 30), min_size=0, max_size=40)


@given(first=edges, second=edges)
def test_the_difference_of_two_histograms_is_what_came_between(first: list[int], second: list[int]) -> None:
    """Each latency in a bucket one wide; cumulative, and only edges beside a bucket that is not empty."""

    def cumulative(values: list[int]) -> tuple[tuple[float, float], ...]:
        near = sorted({edge for value in values for edge in (value - 1, value)})
        return tuple((float(edge), float(sum(value <= edge for value in values))) for edge in near)

    rows = [Row(0, buckets=cumulative(first)), Row(10, buckets=cumulative([*first, *second]))]
    found = {edge: count for edge, count in window_load(rows, 10, {"g1": 10}).histogram.items() if count}
    assert found == {float(value): second.count(value) for value in set(second)}


@given(chunks=st.lists(edges, min_size=2, max_size=8), start=st.floats(0, 3))
def test_many_readings_tell_the_same_histogram_as_their_differences(
    chunks: list[list[int]], start: float
) -> None:
    """Two seconds apart; in the window as a whole, in part, or not at all."""
    rows, values = [Row(0)], list[int]()
    for number, chunk in enumerate(chunks, 1):
        values += chunk
        buckets = tuple((float(edge), float(sum(one <= edge for one in values))) for edge in range(31))
        rows.append(Row(2.0 * number, buckets=buckets))
    end = 2.0 * len(chunks)
    found = window_load(rows, end - start, {"g1": end}).histogram
    for edge in range(1, 31):
        parts = [
            chunk.count(edge) * min(1.0, max(0.0, 2.0 * n - start) / 2) for n, chunk in enumerate(chunks, 1)
        ]
        assert found.get(float(edge), 0.0) == pytest.approx(sum(parts), abs=1e-6)


@dataclass(frozen=True)
class Time:
    at: float
    seconds: float
    replica: str = "a"
    processors: float = 1.0
    revision: str = "churn-00001"


def test_busy_replicas_are_added_up_over_the_part_that_lies_in_the_window() -> None:
    times = [Time(0, 5), Time(10, 10), Time(20, 15)]
    assert busy_shares(times, 15, 20) == pytest.approx(0.5)
    beside = [Time(10, 30, "b", processors=4), Time(20, 70, "b", processors=4)]
    assert busy_shares([*times, *beside], 20, 20) == pytest.approx(0.5 + 0.5), "all of four, half of the time"
    assert busy_shares([], 20, 20) == 0
    assert busy_shares(times, 6, 30) == 0, "what was read long ago tells nothing of now"


def test_what_a_replica_used_before_it_was_ready_does_not_count() -> None:
    """Its first reading is of when it was: a minute of loading stands in it."""
    assert busy_shares([Time(10, 60), Time(20, 61)], 10, 20) == pytest.approx(0.1)
    assert busy_shares([Time(20, 60)], 10, 20) == 0


def test_a_reading_that_misses_a_process_which_ended_just_then_counts_nothing_twice() -> None:
    times = [Time(0, 0), Time(2, 8), Time(4, 3), Time(6, 9), Time(8, 9)]
    assert busy_shares(times, 8, 8) * 8 == pytest.approx(9)


def test_two_replicas_of_one_name_in_two_revisions_are_two() -> None:
    other = [Time(0, 50, revision="churn-00002"), Time(10, 60, revision="churn-00002")]
    assert busy_shares([Time(0, 0), Time(10, 10), *other], 10, 10) == pytest.approx(2)


def test_sums_of_windows() -> None:
    both = WindowLoad(10, requests=5, histogram={1.0: 5.0}) + WindowLoad(
        10, requests=3, histogram={1.0: 1.0, 2.0: 2.0}
    )
    assert (both.seconds, both.requests, both.histogram) == (10, 8, {1.0: 6.0, 2.0: 2.0})
