"""Bounds on a latency quantile from histogram buckets, valid at every look.

Called by `metrics`. Calls `bets`.

Howard & Ramdas, Bernoulli 2022 (arXiv 1906.09712): the number of requests above the true q-quantile is a sum of
draws with probability at most 1 - q, so a time-uniform bound on that count bounds the quantile; here the bound is
the beta mixture of `bets`, and the bucket edges are the only values that are asked about. It assumes that one arm's
latencies keep one distribution through the stretch; the share over a threshold needs no such assumption.
"""

import math
from typing import NamedTuple

import numpy as np

from podium.analysis.bets import log_e_above
from podium.analysis.evidence import Buckets


class QuantileBounds(NamedTuple):
    """`low_ms` < true quantile <= `high_ms`; `high_ms` is infinite while nothing is known above."""

    low_ms: float
    high_ms: float


def quantile_bounds(buckets: Buckets, quantile: float, alpha: float) -> QuantileBounds:
    """Bounds on the quantile (0 < quantile < 1), each wrong with probability at most `alpha` over all looks.

    buckets: cumulative counts; requests without a latency (timeouts) in the infinite one. Only the hypothesis at the
    true quantile can be wrongly refuted, so asking about every edge costs nothing.
    """
    if not buckets or buckets[-1][1] == 0:
        return QuantileBounds(0.0, math.inf)
    edges = np.array([edge for edge, _ in buckets[:-1]])
    below = np.array([count for _, count in buckets[:-1]], dtype=np.float64)
    total = float(buckets[-1][1])
    needed = math.log(1.0 / alpha)
    too_many_above = log_e_above(total - below, np.full_like(below, total), 1.0 - quantile) >= needed
    too_many_below = log_e_above(below, np.full_like(below, total), quantile) >= needed
    low = float(edges[too_many_above].max()) if too_many_above.any() else 0.0
    high = float(edges[too_many_below].min()) if too_many_below.any() else math.inf
    return QuantileBounds(low, high)


def quantile_estimate(buckets: Buckets, quantile: float) -> float | None:
    """The first edge (ms) that at least the share `quantile` of the requests is at or below; None without any."""
    if not buckets or buckets[-1][1] == 0:
        return None
    goal = quantile * buckets[-1][1]
    return next(edge for edge, count in buckets if count >= goal)
