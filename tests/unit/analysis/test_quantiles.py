"""Bounds on a quantile from buckets: they hold at every look, and contain what ville's bounds contain."""

import math

import numpy as np
import pytest
import ville

from podium.analysis import Buckets, quantile_bounds, quantile_estimate

EDGES = tuple(float(edge) for edge in np.geomspace(1, 1000, 120))


def buckets(latencies: np.ndarray, edges: tuple[float, ...] = EDGES) -> Buckets:
    below = np.searchsorted(np.sort(latencies), edges, side="right")
    return (*((edge, int(n)) for edge, n in zip(edges, below, strict=True)), (math.inf, len(latencies)))


def test_nothing_is_known_without_requests() -> None:
    assert quantile_bounds((), 0.99, 0.05) == (0.0, math.inf)
    assert quantile_bounds(((1.0, 0), (math.inf, 0)), 0.99, 0.05) == (0.0, math.inf)
    assert quantile_estimate((), 0.5) is None
    assert quantile_estimate(((1.0, 4), (2.0, 8), (math.inf, 10)), 0.5) == 2.0
    assert quantile_estimate(((1.0, 4), (2.0, 8), (math.inf, 10)), 0.9) == math.inf


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_the_true_quantile_is_missed_at_most_as_often_as_stated(quantile: float) -> None:
    rng = np.random.default_rng(11)
    truth, runs, missed_low, missed_high = 0.0, 150, 0, 0
    truth = float(np.exp(3 + 0.5 * np.sqrt(2) * _erfinv(2 * quantile - 1)))
    for _ in range(runs):
        latencies = rng.lognormal(3, 0.5, 2000)
        looks = [quantile_bounds(buckets(latencies[:n]), quantile, 0.05) for n in range(50, 2001, 75)]
        missed_low += any(look.low_ms > truth for look in looks)
        missed_high += any(look.high_ms < truth for look in looks)
    # 0.05 of 150 is 7.5; 15 or more would come about once in two hundred tests of a bound that only just holds.
    assert missed_low < 15 and missed_high < 15


def _erfinv(value: float) -> float:
    from scipy.special import erfinv

    return float(erfinv(value))


def test_beside_villes_order_statistics() -> None:
    """Ours never asks for more: at p99 it is far tighter, since it uses the variance of a rare event."""
    latencies = np.random.default_rng(3).lognormal(3, 0.5, 3000)
    theirs = ville.QuantileCS(q=0.99, alpha=0.1, intersect=False).fit(latencies)
    ours = quantile_bounds(buckets(latencies), 0.99, 0.05)
    low, high = theirs.lower_[-1], theirs.upper_[-1]
    assert ours.low_ms < float(np.quantile(latencies, 0.99)) < ours.high_ms < math.inf
    step = EDGES[1] / EDGES[0]
    assert ours.low_ms * step >= low
    assert ours.high_ms <= high * step


def test_a_p99_twice_as_high_is_told_apart() -> None:
    rng = np.random.default_rng(4)
    stable = quantile_bounds(buckets(rng.lognormal(3, 0.5, 5000)), 0.99, 0.025)
    candidate = quantile_bounds(buckets(2 * rng.lognormal(3, 0.5, 5000)), 0.99, 0.025)
    assert candidate.low_ms > 1.2 * stable.high_ms


def test_ties_at_one_value_do_not_fool_it() -> None:
    # Nine of ten requests take exactly 10 ms: the median is 10, whatever the looks.
    latencies = np.tile([10.0] * 9 + [50.0], 200)
    bounds = quantile_bounds(buckets(latencies, (5.0, 10.0, 20.0)), 0.5, 0.05)
    assert bounds == (5.0, 10.0)
