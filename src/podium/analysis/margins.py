"""Proof that the candidate is at most a stated margin worse: the bets behind a promotion.

Called by `metrics` (one verdict) and by the benchmark (many runs at once). Calls numpy only.

No errors at all say nothing in `bets`, which looks at errors only; promotion needs a test of its own. Each request
goes to the candidate with the known probability rho, so

    phi = Y / rho  for the candidate's,   -Y / (1 - rho)  for the stable revision's      (Y = 1: a bad request)

has mean p_candidate - p_stable whatever the two rates are at that moment and however they change. Against "the
candidate is worse by at least d, always" each request is therefore a fair bet 1 + lambda (d - phi), for a lambda
fixed beforehand; the wealth is mixed over a grid of lambdas. (Betting on a bounded mean: Waudby-Smith & Ramdas,
JRSS B 2024, arXiv 2010.09686, here on inverse-probability-weighted differences.) The wealth depends on the
counts per share only, so windows may be merged.

Two confidence sequences, one per arm, would also do; in simulation they need two to four times the requests.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Stretch(NamedTuple):
    """Requests of both arms and bad ones per arm under one share. Arrays of one shape, or numbers."""

    rho: float
    requests: ArrayLike
    stable_bad: ArrayLike
    candidate_bad: ArrayLike


# lambda as a part of the largest bet that is possible. Large parts win fastest when bad requests are rare beside the
# margin, small ones when they are many; one sixth of the stake covers the latter.
_SMALL = np.geomspace(0.002, 0.1, 8, endpoint=False)
_LARGE = np.concatenate([np.arange(1, 10) / 10, [0.97]])
PARTS: Floats = np.concatenate([_SMALL, _LARGE])
LOG_STAKES: Floats = np.log(np.concatenate([np.full(8, 1 / 48), np.full(10, 5 / 60)]))
# What is left of the stake after a bad request of the candidate's: 1 + stake (d - 1/rho) = 1 - part, for every d.
_LOG_LEFT: Floats = np.log1p(-PARTS)


def log_e_within(stretches: Sequence[Stretch], difference: ArrayLike) -> Floats:
    """log of the e-process against "p_candidate - p_stable is at least `difference`, always".

    difference: -1 < d < 1; with several, the last axis of the result runs over them. The result grows with it.
    """
    d = np.asarray(difference, dtype=np.float64)[..., None]
    logs: Floats = np.zeros((*d.shape[:-1], PARTS.size)) + LOG_STAKES
    for stretch in stretches:
        rho = stretch.rho
        stake = PARTS * rho / (1.0 - d * rho)
        total, stable, candidate = (
            np.asarray(value, dtype=np.float64)[(..., *(None,) * d.ndim)] for value in stretch[1:]
        )
        good = np.maximum(total - stable - candidate, 0.0)
        logs = (
            logs
            + good * np.log1p(stake * d)
            + candidate * _LOG_LEFT
            + stable * np.log1p(stake * (d + 1.0 / (1.0 - rho)))
        )
    return np.asarray(np.logaddexp.reduce(logs, axis=-1))


def upper_bound(stretches: Sequence[Stretch], alpha: float) -> float:
    """The smallest difference that is refuted: with confidence 1 - alpha, at every look, the true one is below.

    1.0 when nothing is refuted yet. Numbers in the stretches, not arrays.
    """
    needed = math.log(1.0 / alpha)
    low, high = -1.0, 1.0
    # Each round looks at 31 points at once and keeps one 32nd: after six the bound is known to 2e-9.
    for _ in range(6):
        points = np.linspace(low, high, 33)[1:-1]
        refuted = log_e_within(stretches, points) >= needed
        first = int(np.argmax(refuted)) if refuted.any() else points.size
        low, high = (points[first - 1] if first else low), (points[first] if first < points.size else high)
    return float(high)


def more_requests(stretches: Sequence[Stretch], rho: float, difference: float, alpha: float) -> int | None:
    """About how many more requests (both arms) at share `rho` until `log_e_within` reaches its goal.

    Assumes that the bad requests go on at the rates seen so far. 0 when it is reached; None when those rates
    would never get there.
    """
    needed = math.log(1.0 / alpha)
    now = float(log_e_within(stretches, difference))
    if now >= needed:
        return 0
    seen_candidate = sum(float(np.asarray(s.requests)) * s.rho for s in stretches)
    seen_stable = sum(float(np.asarray(s.requests)) * (1 - s.rho) for s in stretches)
    if not stretches or min(seen_candidate, seen_stable) < 1:
        rate_candidate = rate_stable = 0.0
    else:
        rate_candidate = sum(float(np.asarray(s.candidate_bad)) for s in stretches) / seen_candidate
        rate_stable = sum(float(np.asarray(s.stable_bad)) for s in stretches) / seen_stable
    if rate_candidate - rate_stable >= difference:
        return None
    extra = np.unique(np.round(np.geomspace(1, 1e8, 200)))
    ahead = Stretch(rho, extra, extra * (1 - rho) * rate_stable, extra * rho * rate_candidate)
    enough = log_e_within([*stretches, ahead], difference) >= needed
    return int(extra[int(np.argmax(enough))]) if enough.any() else None
