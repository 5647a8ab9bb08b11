"""The bets on the margin: fair at it whatever the rates do, sharp enough, and beside ville's A/B test."""

import math
from itertools import product

import numpy as np
import pytest
import ville
from hypothesis import given
from hypothesis import strategies as st

from podium.analysis import Stretch, log_e_within, more_requests, upper_bound
from podium.analysis.margins import LOG_STAKES, PARTS

margins = st.floats(0.001, 0.5)


def one_request(rho: float, stable: float, candidate: float) -> list[tuple[float, tuple[int, int, int]]]:
    """(chance, (requests, bad on stable, bad on the candidate)) of one request."""
    return [
        (rho * candidate, (1, 0, 1)),
        (rho * (1 - candidate), (1, 0, 0)),
        ((1 - rho) * stable, (1, 1, 0)),
        ((1 - rho) * (1 - stable), (1, 0, 0)),
    ]


def test_the_stakes_add_up_to_one_unit() -> None:
    assert np.exp(LOG_STAKES).sum() == pytest.approx(1.0)
    assert len(PARTS) == len(LOG_STAKES) and PARTS.min() > 0 and PARTS.max() < 1


@given(rho=st.floats(0.02, 0.95), stable=st.floats(0, 0.5), margin=margins, worse=st.floats(0, 0.4))
def test_a_request_is_a_fair_bet_at_the_margin_and_a_bad_one_beyond(
    rho: float, stable: float, margin: float, worse: float
) -> None:
    def mean(candidate: float) -> float:
        cases = one_request(rho, stable, candidate)
        return sum(chance * math.exp(log_e_within([Stretch(rho, *c)], margin)) for chance, c in cases)

    assert mean(stable + margin) == pytest.approx(1.0, rel=1e-9)
    assert mean(min(stable + margin + worse, 1.0)) <= 1 + 1e-9


def test_it_stays_fair_when_share_and_rates_change_from_request_to_request() -> None:
    # Five requests with five shares and five stable rates, the candidate always 0.05 worse: all 4^5 outcomes.
    plan = [(0.1, 0.01), (0.5, 0.9), (0.5, 0.0), (0.25, 0.3), (0.1, 0.02)]
    cases = [one_request(rho, stable, stable + 0.05) for rho, stable in plan]
    mean = 0.0
    for outcome in product(*cases):
        chance = math.prod(part for part, _ in outcome)
        stretches = [Stretch(rho, *counts) for (rho, _), (_, counts) in zip(plan, outcome, strict=True)]
        mean += chance * math.exp(log_e_within(stretches, 0.05))
    assert mean == pytest.approx(1.0, rel=1e-9)


@given(
    rho=st.floats(0.02, 0.95),
    counts=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 20), st.integers(0, 20)), max_size=6),
)
def test_windows_may_be_merged_and_a_larger_difference_is_refuted_sooner(
    rho: float, counts: list[tuple[int, int, int]]
) -> None:
    parts = [Stretch(rho, good + s + c, s, c) for good, s, c in counts]
    whole = (
        [Stretch(rho, *(sum(column) for column in zip(*(p[1:] for p in parts), strict=True)))]
        if parts
        else []
    )
    points = np.linspace(-0.9, 0.9, 19)
    apart, together = log_e_within(parts, points), log_e_within(whole, points)
    assert apart == pytest.approx(together, abs=1e-6)
    assert np.all(np.diff(together) >= -1e-9)


def test_the_bound_is_where_the_wealth_reaches_the_goal() -> None:
    stretches = [Stretch(0.1, 3000, 12, 1), Stretch(0.5, 2000, 6, 5)]
    bound = upper_bound(stretches, 0.05)
    assert log_e_within(stretches, bound) >= math.log(20)
    assert log_e_within(stretches, bound - 1e-6) < math.log(20)
    assert upper_bound([], 0.05) == 1.0
    assert (
        upper_bound([Stretch(0.5, 3, 0, 0)], 0.05) == 1.0 or upper_bound([Stretch(0.5, 3, 0, 0)], 0.05) > 0.5
    )


def test_beside_villes_ab_test() -> None:
    """Both bound the same difference from the same requests; ours is about as tight, from counts alone."""
    rng = np.random.default_rng(5)
    bounds = []
    for _ in range(12):
        treated = rng.random(4000) < 0.5
        bad = rng.random(4000) < 0.01
        # Two-sided at twice the level, and without carrying the best bound so far along, as ours is.
        test = ville.BettingABTest(bounds=(0, 1), alpha=0.1, grid=2000)
        test._cs.intersect = False
        theirs = float(test.update(bad.astype(float), treated.astype(float)).upper_[-1])
        stretch = Stretch(0.5, 4000, int((bad & ~treated).sum()), int((bad & treated).sum()))
        bounds.append((upper_bound([stretch], 0.05), theirs))
    ours, theirs_mean = np.mean(bounds, axis=0)
    assert all(0 < mine < 0.03 for mine, _ in bounds)
    assert ours < 1.1 * theirs_mean


def test_how_many_more_requests() -> None:
    seen = [Stretch(0.5, 400, 2, 2)]
    more = more_requests(seen, 0.5, 0.01, 0.05)
    assert more is not None
    # Scaled up by that many, the same rates do reach the goal, and by half as many they don't.
    for part, reached in ((1.0, True), (0.5, False)):
        then = [*seen, Stretch(0.5, more * part, more * part * 0.005, more * part * 0.005)]
        assert bool(log_e_within(then, 0.01) >= math.log(20)) is reached
    assert more_requests([Stretch(0.5, 400, 2, 8)], 0.5, 0.01, 0.05) is None  # 4 % against 1 %: never
    assert more_requests([Stretch(0.5, 100_000, 50, 50)], 0.5, 0.01, 0.05) == 0
    none_seen = more_requests([], 0.1, 0.01, 0.05)
    assert none_seen is not None and 3000 < none_seen < 6000  # the rule of three: 3 / 0.01 candidate requests


def test_arrays_are_judged_one_by_one() -> None:
    requests, bad = np.array([500, 3000]), np.array([1, 9])
    together = log_e_within([Stretch(0.5, requests, bad, bad)], [0.01, 0.02])
    assert together.shape == (2, 2)
    for i, j in product(range(2), range(2)):
        alone = log_e_within([Stretch(0.5, requests[i], bad[i], bad[i])], [0.01, 0.02][j])
        assert together[i, j] == pytest.approx(float(alone), rel=1e-12)
