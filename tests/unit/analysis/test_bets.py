"""The bets against "no worse": exact on small cases, and beside two libraries."""

import importlib
import math
import sys
import types
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import ville
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from podium.analysis import fewest_errors, log_e_above, log_e_share, tolerated_share
from podium.analysis.bets import PRIOR_ERRORS, PRIOR_REQUESTS

shares = st.floats(0.01, 0.95)


def mean_of_e(length: int, share: float, truth: float) -> float:
    """E's mean over every sequence of `length` errors, each the candidate's with probability `truth`."""
    hits = np.arange(length + 1)
    return float(np.sum(stats.binom.pmf(hits, length, truth) * np.exp(log_e_above(hits, length, share))))


@given(share=shares, length=st.integers(0, 40))
def test_the_bets_are_fair_at_the_boundary(share: float, length: int) -> None:
    assert mean_of_e(length, share, share) == pytest.approx(1.0, rel=1e-9)


@given(share=shares, better=st.just(0.0) | st.floats(0.001, 1), length=st.integers(0, 40))
def test_the_bets_lose_on_average_when_the_candidate_is_better(
    share: float, better: float, length: int
) -> None:
    assert mean_of_e(length, share, share * better) <= 1 + 1e-9


@given(share=shares, hits=st.integers(0, 500), misses=st.integers(0, 500))
def test_one_more_error_is_a_fair_bet_whatever_came_before(share: float, hits: int, misses: int) -> None:
    now = log_e_above(hits, hits + misses, share)
    up = log_e_above(hits + 1, hits + misses + 1, share)
    down = log_e_above(hits, hits + misses + 1, share)
    mean = share * np.exp(up - now) + (1 - share) * np.exp(down - now)
    # A little may be lost on hopeless bets, where a lower bound takes over; nothing may ever be won.
    assert 0.999 < mean < 1 + 1e-6
    if now > -6:
        assert mean == pytest.approx(1.0, rel=1e-6)


def test_over_shares_that_change_the_product_stays_fair() -> None:
    # Every sequence of three errors at 0.1 and three at 0.5, and the wealth after each of the six.
    for looks in range(7):
        mean = 0.0
        for sequence in product((0, 1), repeat=looks):
            first, second = sequence[:3], sequence[3:]
            chance = math.prod(0.1 if hit else 0.9 for hit in first) * 0.5 ** len(second)
            log_e = log_e_above(sum(first), len(first), 0.1) + log_e_above(sum(second), len(second), 0.5)
            mean += chance * math.exp(log_e)
        assert mean == pytest.approx(1.0, rel=1e-9)


def test_the_chance_of_ever_reaching_the_goal_is_at_most_alpha() -> None:
    # Exact: walk through all counts up to 400 errors, stop what has reached 20, add up what stopped.
    share, goal = 0.1, math.log(20)
    alive, stopped = np.array([1.0]), 0.0
    for errors in range(1, 401):
        moved = np.zeros(errors + 1)
        moved[:-1] += alive * (1 - share)
        moved[1:] += alive * share
        reached = log_e_above(np.arange(errors + 1), errors, share) >= goal
        stopped += moved[reached].sum()
        alive = np.where(reached, 0.0, moved)
    assert 0.015 < stopped <= 0.05


@pytest.mark.parametrize(
    ("hits", "events", "share"), [(0, 0, 0.3), (7, 20, 0.1), (3, 40, 0.5), (12, 12, 0.02)]
)
def test_it_is_the_integral_that_it_says_it_is(hits: int, events: int, share: float) -> None:
    prior = stats.beta(PRIOR_ERRORS * share, PRIOR_ERRORS * (1 - share))

    def wins(theta: float) -> float:
        odds = (theta / share) ** hits * ((1 - theta) / (1 - share)) ** (events - hits)
        return float(odds * prior.pdf(theta))

    whole, _ = integrate.quad(wins, share, 1, limit=500)
    assert math.exp(log_e_above(hits, events, share)) == pytest.approx(whole / prior.sf(share), rel=1e-5)


@given(share=shares, events=st.lists(st.booleans(), min_size=1, max_size=60))
@settings(max_examples=50)
def test_ville_gives_the_same_wealth_before_the_prior_is_cut_off(share: float, events: list[bool]) -> None:
    prior = (PRIOR_ERRORS * share, PRIOR_ERRORS * (1 - share))
    two_sided = ville.BernoulliTest(p0=share, prior=prior).fit(np.array(events, float)).e_values_[-1]
    hits = sum(events)
    posterior = stats.beta(prior[0] + hits, prior[1] + len(events) - hits)
    cut_off = posterior.sf(share) / stats.beta(*prior).sf(share)
    assert math.exp(log_e_above(hits, len(events), share)) == pytest.approx(two_sided * cut_off, rel=1e-6)


@pytest.mark.parametrize(("hits", "events", "share"), [(20_000, 60_000, 0.5), (100, 90_000, 0.1)])
def test_where_scipy_has_no_digits_left_the_wealth_is_a_little_too_small(
    hits: int, events: int, share: float
) -> None:
    a, b = PRIOR_ERRORS * share, PRIOR_ERRORS * (1 - share)
    assert stats.beta(a + hits, b + events - hits).sf(share) == 0.0
    # The integrand falls off within a few thousandths above the share.
    theta = share + np.linspace(0, 0.01, 200_001)
    logs = hits * np.log(theta / share) + (events - hits) * np.log((1 - theta) / (1 - share))
    logs += stats.beta(a, b).logpdf(theta) - stats.beta(a, b).logsf(share)
    exact = math.log(integrate.trapezoid(np.exp(logs), theta))
    assert exact - 1.0 < log_e_above(hits, events, share) <= exact + 1e-6


def test_arrays_are_judged_one_by_one() -> None:
    hits, events = np.array([[0, 3], [5, 5]]), np.array([[4, 9], [5, 50]])
    together = log_e_above(hits, events, 0.25)
    for index, value in np.ndenumerate(together):
        assert value == log_e_above(hits[index], events[index], 0.25)


def test_the_tolerated_share_is_the_candidates_share_of_errors() -> None:
    # 100 requests per arm at one half; 2 errors there, 2 * 1.5 = 3 here: three of five.
    assert tolerated_share(0.5, 0.5) == pytest.approx(0.6)
    assert tolerated_share(0.1, 0.0) == pytest.approx(0.1)


def test_the_fewest_errors_that_can_roll_back() -> None:
    # 2^4 = 16 < 20 <= 32 = 2^5: five heads in a row are the least for any bet on a fair coin.
    any_test, this_test = fewest_errors(0.5, 0.05)
    assert any_test == 5
    assert (
        log_e_above(this_test, this_test, 0.5)
        >= math.log(20)
        > log_e_above(this_test - 1, this_test - 1, 0.5)
    )
    assert fewest_errors(0.5, 1 / 32)[0] == 5
    assert fewest_errors(0.1, 0.05)[0] == 2


@pytest.fixture
def savvi_multinomial(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """savvi's tests; it imports matplotlib for its plots, which are not used here and need not be installed."""
    if importlib.util.find_spec("matplotlib") is None:
        plotting = types.ModuleType("matplotlib.pyplot")
        package = types.ModuleType("matplotlib")
        package.pyplot = plotting  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "matplotlib", package)
        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", plotting)
    yield importlib.import_module("savvi.multinomial")


@pytest.mark.parametrize(("candidate", "stable", "rho"), [(50, 50, 0.5), (30, 170, 0.1), (5, 995, 0.02)])
def test_savvi_finds_the_same_sample_ratio_mismatch(
    savvi_multinomial: types.ModuleType, candidate: int, stable: int, rho: float
) -> None:
    test = savvi_multinomial.Multinomial(0.05, np.array([rho, 1 - rho]), k=PRIOR_REQUESTS)
    for part in ((candidate // 2, stable // 2), (candidate - candidate // 2, stable - stable // 2)):
        test.update(np.array(part))
    assert math.exp(log_e_share(candidate, candidate + stable, rho)) == pytest.approx(test.odds, rel=1e-9)


@given(rho=shares, length=st.integers(0, 60))
def test_the_check_of_the_share_is_fair(rho: float, length: int) -> None:
    counts = np.arange(length + 1)
    mean = np.sum(stats.binom.pmf(counts, length, rho) * np.exp(log_e_share(counts, length, rho)))
    assert mean == pytest.approx(1.0, rel=1e-9)
