"""Latencies in buckets: what the counts say is what exact quantiles say, to less than a percent."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.load.histogram import UNIT, Histogram, edges

SHARES = (0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)


def exact(values: list[float], share: float) -> float:
    """The nearest rank."""
    return sorted(values)[max(1, math.ceil(round(share * len(values), 6))) - 1]


@given(st.lists(st.floats(0, 4000), min_size=1, max_size=300))
def test_quantiles_are_right_to_a_percent(values: list[float]) -> None:
    found = Histogram()
    found.add(values)
    for share in SHARES:
        assert found.quantile(share) == pytest.approx(exact(values, share), rel=0.01, abs=UNIT)
    assert (found.count, found.least, found.most) == (len(values), min(values), max(values))
    assert found.quantile(1.0) == max(values)


@given(st.integers(0, 2**40))
def test_buckets_follow_each_other_without_a_gap(bucket: int) -> None:
    bucket %= 128 * 40
    low, high = edges(bucket)
    assert low < high == edges(bucket + 1)[0]
    inside = Histogram()
    inside.add([(low + high) / 2])
    assert set(inside.counts) == {bucket}


def test_several_processes_add_up_to_one() -> None:
    chance = random.Random(7)
    values = [chance.lognormvariate(-6, 1) for _ in range(3000)]
    whole, parts = Histogram(), Histogram()
    whole.add(values)
    for start in range(0, 3000, 1000):
        part = Histogram()
        part.add(values[start : start + 1000])
        parts.merge(Histogram.parse(part.document()))
    assert parts.counts == whole.counts
    assert (parts.least, parts.most, parts.count) == (whole.least, whole.most, whole.count)
    assert parts.total == pytest.approx(whole.total)


def test_nothing_is_counted_as_nothing() -> None:
    empty = Histogram.parse(Histogram().document())
    empty.merge(Histogram())
    assert (empty.count, empty.quantile(0.5), empty.most) == (0, 0.0, 0.0)
    backwards = Histogram()
    backwards.add([-1.0])
    assert backwards.quantile(0.5) == 0.0


def test_counts_between_two_latencies() -> None:
    found = Histogram()
    found.add([0.001, 0.002, 0.002, 0.05])
    assert [found.between(0, 0.0015), found.between(0.0015, 0.01), found.between(0.01, 1)] == [1, 2, 1]
