"""Bets against "the candidate is no worse": the e-processes behind a rollback, and the check of the share.

Called by `metrics` and `quantiles` (one verdict) and by the benchmark (many runs at once: every function takes
numpy arrays as well as numbers). Calls numpy and scipy only. What is in `scipy.special` is loaded when it is first
asked for (scipy sees to that): it would be a sixth of the time that a server takes to start.

An e-process is the wealth of a gambler who starts with 1 and bets at odds that are fair, or worse than fair, while
the null hypothesis is true. Ville's inequality: the chance that it ever reaches 1/alpha is then at most alpha, so
it may be looked at as often as one likes.
"""

import math

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# How much weight the bets' prior carries, in errors. Tried at shares of 1, 5, 10 and 50 % and at 2 and 5 times the
# errors: 1 to 4 find them about equally fast, uniform and Jeffreys priors need up to 70 % more requests at small
# shares. At a share of one half, 2 is the uniform prior.
PRIOR_ERRORS = 2.0
# The same for the share itself, in requests (Lindon & Malek use 100 in their example too).
PRIOR_REQUESTS = 100.0
# Below this, scipy's incomplete beta function loses its digits.
_TINY = 1e-280


def tolerated_share(rho: ArrayLike, relative_margin: float) -> Floats:
    """The candidate's share of all errors when its error rate is (1 + relative_margin) times the stable one's.

    rho: its share of the requests (0..1). Lindon & Malek, NeurIPS 2022 (arXiv 2011.03567), with a margin.
    """
    share = np.asarray(rho, dtype=np.float64)
    scaled = share * (1.0 + relative_margin)
    return np.asarray(scaled / (scaled + 1.0 - share))


def _log_upper_tail(a: Floats, b: Floats, cut: Floats) -> Floats:
    """log P(X > cut) of a Beta(a, b); where it is too small for a float, a lower bound (a bet may only lose)."""
    tail = scipy.special.betaincc(a, b, cut)
    with np.errstate(divide="ignore"):
        exact = np.log(tail)
    if np.all(tail > _TINY):
        return np.asarray(exact)
    # On (cut, 1) the density's x^(a-1) is at least cut^(a-1) for a >= 1, and at least 1 for a < 1.
    bound = (
        scipy.special.xlogy(np.maximum(a - 1.0, 0.0), cut)
        + scipy.special.xlog1py(b, -cut)
        - np.log(b)
        - scipy.special.betaln(a, b)
    )
    return np.asarray(np.where(tail > _TINY, exact, bound))


def log_e_above(hits: ArrayLike, events: ArrayLike, share: ArrayLike) -> Floats:
    """log of the e-process against "each event is a hit with probability at most `share`".

    hits, events: cumulative counts (hits <= events) in a stretch with one `share` (0 < share < 1). The bets are on
    every larger probability, mixed by a beta prior cut off below `share`; the mixture has this closed form, and
    depends on the counts only, so windows may be merged.
    """
    k, n, cut = (np.asarray(value, dtype=np.float64) for value in (hits, events, share))
    a, b = PRIOR_ERRORS * cut, PRIOR_ERRORS * (1.0 - cut)
    mixed = scipy.special.betaln(a + k, b + n - k) - scipy.special.betaln(a, b)
    tails = _log_upper_tail(a + k, b + n - k, cut) - _log_upper_tail(a, b, cut)
    return np.asarray(mixed + tails - scipy.special.xlogy(k, cut) - scipy.special.xlog1py(n - k, -cut))


def log_e_share(candidate: ArrayLike, requests: ArrayLike, rho: ArrayLike) -> Floats:
    """log of the e-process against "each request went to the candidate with probability exactly `rho`".

    A Dirichlet mixture around rho, two-sided: the test for a sample ratio mismatch of Lindon & Malek.
    """
    k, n, share = (np.asarray(value, dtype=np.float64) for value in (candidate, requests, rho))
    a, b = PRIOR_REQUESTS * share, PRIOR_REQUESTS * (1.0 - share)
    mixed = scipy.special.betaln(a + k, b + n - k) - scipy.special.betaln(a, b)
    return np.asarray(mixed - scipy.special.xlogy(k, share) - scipy.special.xlog1py(n - k, -share))


def fewest_errors(share: float, alpha: float) -> tuple[int, int]:
    """How many candidate errors a rollback needs at least, when the stable revision has none.

    Returns (for any valid test at all, for this one). share: as from `tolerated_share`. The first is where
    share^-k reaches 1/alpha, since no bet can win more than 1/share on one error.
    """
    needed = math.log(1.0 / alpha)
    # The small slack keeps an exact power (share 0.5, alpha 1/32) from being rounded up.
    any_test = max(math.ceil(needed / -math.log(share) - 1e-9), 1)
    errors = any_test
    while float(log_e_above(errors, errors, share)) < needed:
        errors += 1
    return any_test, errors
