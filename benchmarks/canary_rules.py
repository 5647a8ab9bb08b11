"""Rollback rules over many simulated canaries at once: ours, and those that it is compared with.

Called by `canary`. Calls `podium.analysis` for ours. A `Traffic` holds one row per run and one column per window;
each rule says after which window it rolls back (`NEVER` = not within the simulation).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from podium.analysis import Stretch, log_e_above, log_e_within

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Plan:
    """One simulated rollout: per window the candidate's share and both arms' rates of bad requests."""

    name: str
    rho: Floats
    stable_rate: Floats
    candidate_rate: Floats
    window: int = 200

    def worse(self, factor: float = 1.0, extra: float = 0.0) -> "Plan":
        """The same with a candidate that is worse by a factor and by a constant."""
        rate = np.minimum(self.stable_rate * factor + extra, 1.0)
        return Plan(self.name, self.rho, self.stable_rate, rate, self.window)


@dataclass(frozen=True)
class Traffic:
    """What was counted, per run (rows) and window (columns)."""

    plan: Plan
    stable: Ints
    candidate: Ints
    stable_bad: Ints
    candidate_bad: Ints

    @property
    def runs(self) -> int:
        """How many rollouts."""
        return int(self.stable.shape[0])

    @classmethod
    def simulate(cls, plan: Plan, runs: int, rng: np.random.Generator) -> "Traffic":
        """Draw every request's arm and fate independently, window by window."""
        shape = (runs, plan.rho.size)
        candidate = rng.binomial(plan.window, np.broadcast_to(plan.rho, shape))
        stable = plan.window - candidate
        return cls(
            plan,
            stable,
            candidate,
            rng.binomial(stable, np.broadcast_to(plan.stable_rate, shape)),
            rng.binomial(candidate, np.broadcast_to(plan.candidate_rate, shape)),
        )


def _up_to_each_look(traffic: Traffic, rho: float) -> tuple[Ints, Ints, Ints]:
    """Cumulative (requests, stable bad, candidate bad) of the windows with share `rho`, at each look."""
    mine = traffic.plan.rho == rho
    parts = (traffic.stable + traffic.candidate, traffic.stable_bad, traffic.candidate_bad)
    requests, stable_bad, candidate_bad = (np.cumsum(np.where(mine, part, 0), axis=1) for part in parts)
    return requests, stable_bad, candidate_bad


def first(reached: NDArray[np.bool_]) -> Ints:
    """Per run, the first window at which `reached`; NEVER if none."""
    return np.where(reached.any(axis=1), reached.argmax(axis=1), NEVER)


def e_process(traffic: Traffic) -> Floats:
    """log E of `podium.analysis` at each look."""
    log_e = np.zeros(traffic.stable.shape)
    for rho in np.unique(traffic.plan.rho):
        _, stable_bad, candidate_bad = _up_to_each_look(traffic, float(rho))
        log_e += log_e_above(candidate_bad, candidate_bad + stable_bad, rho)
    return log_e


def promotion(traffic: Traffic, margin: float) -> Floats:
    """log of the wealth against "worse by `margin` or more" of `podium.analysis` at each look."""
    parts = []
    for start in range(0, traffic.runs, 500):  # a block at a time: the grid of bets takes 18 times the memory
        rows = slice(start, start + 500)
        block = Traffic(traffic.plan, *(getattr(traffic, n)[rows] for n in _COUNTS))
        stretches = [
            Stretch(float(rho), *_up_to_each_look(block, float(rho))) for rho in np.unique(block.plan.rho)
        ]
        parts.append(log_e_within(stretches, margin))
    return np.concatenate(parts)


_COUNTS = ("stable", "candidate", "stable_bad", "candidate_bad")


def z_score(traffic: Traffic) -> Floats:
    """The pooled two-proportion z of all requests so far, at each look (0 while there is nothing)."""
    stable, candidate, stable_bad, candidate_bad = (
        np.cumsum(getattr(traffic, name), axis=1).astype(np.float64) for name in _COUNTS
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (stable_bad + candidate_bad) / (stable + candidate)
        spread = np.sqrt(pooled * (1 - pooled) * (1 / stable + 1 / candidate))
        z = (candidate_bad / candidate - stable_bad / stable) / spread
    return np.nan_to_num(z, nan=0.0, posinf=0.0, neginf=0.0)


def mann_whitney(traffic: Traffic, fewest: int = 5) -> Floats:
    """One-sided p-value at each look, on the windows' error rates so far (normal approximation, ties corrected).

    1.0 before `fewest` windows: the approximation means nothing there.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        stable = np.nan_to_num(traffic.stable_bad / traffic.stable)
        candidate = np.nan_to_num(traffic.candidate_bad / traffic.candidate)
    looks = stable.shape[1]
    p_values = np.ones(stable.shape)
    wins = np.zeros(traffic.runs)
    for look in range(looks):
        n = look + 1
        new, old = candidate[:, look, None], stable[:, :n]
        wins += (new > old).sum(axis=1) + 0.5 * (new == old).sum(axis=1)
        if look:
            new, old = stable[:, look, None], candidate[:, :look]
            wins += (old > new).sum(axis=1) + 0.5 * (old == new).sum(axis=1)
        if n < fewest:
            continue
        pooled = np.sort(np.concatenate([stable[:, :n], candidate[:, :n]], axis=1), axis=1)
        ties = _ties(pooled)
        variance = n * n / 12 * ((2 * n + 1) - ties / (2 * n * (2 * n - 1)))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (wins - n * n / 2 - 0.5) / np.sqrt(variance)
        p_values[:, look] = np.where(variance > 0, stats.norm.sf(z), 1.0)
    return p_values


def _ties(ordered: Floats) -> Floats:
    """Per row of sorted values, the sum of t^3 - t over its groups of t equal values."""
    width = ordered.shape[1]
    ends = np.ones(ordered.shape, dtype=bool)
    ends[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    positions = np.where(ends, np.arange(1, width + 1), 0)
    before = np.maximum.accumulate(np.pad(positions, ((0, 0), (1, 0)))[:, :-1], axis=1)
    sizes = np.where(ends, np.arange(1, width + 1) - before, 0).astype(np.float64)
    return np.asarray((sizes**3 - sizes).sum(axis=1))


def failing_windows(traffic: Traffic, success: float) -> Ints:
    """How many windows so far had a candidate success rate below `success`, at each look."""
    below = traffic.candidate_bad > (1 - success) * traffic.candidate
    return np.cumsum(below, axis=1)


def tuned_threshold(same: Traffic, worse: Traffic, budget: float) -> tuple[str, Ints, float]:
    """The best "roll back after more than N windows below a success rate" for exactly this regression.

    Every success rate is tried with the smallest N whose false rollbacks on `same` stay within `budget`; the one
    that finds `worse` soonest wins. Generous: a person who sets such a rule knows neither rate.
    Returns its description, when it rolls back on `worse`, and its false rollbacks on `same`.
    """
    best: tuple[float, str, Ints, float] | None = None
    for success in (0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995):
        ends = failing_windows(same, success)[:, -1]
        limit = int(np.quantile(ends, 1 - budget, method="higher"))
        wrong = float(np.mean(ends > limit))
        looks = first(failing_windows(worse, success) > limit)
        speed = float(np.mean(np.minimum(looks, worse.stable.shape[1])))
        if best is None or speed < best[0]:
            best = (speed, f"below {success:.1%} in more than {limit} windows", looks, wrong)
    assert best is not None
    return best[1], best[2], best[3]


def fixed_horizon(base: float, effect: float, rho: float, budget: float, power: float = 0.8) -> int:
    """Requests (both arms) that a one-sided z-test with one look needs for `power` at level `budget`."""
    other = base * effect
    mean = rho * other + (1 - rho) * base
    null = np.sqrt(mean * (1 - mean) * (1 / rho + 1 / (1 - rho)))
    true = np.sqrt(other * (1 - other) / rho + base * (1 - base) / (1 - rho))
    z_level, z_power = stats.norm.isf(budget), stats.norm.ppf(power)
    return int(np.ceil(((z_level * null + z_power * true) / (other - base)) ** 2))


def two_sequences(traffic: Traffic, alpha: float) -> Floats:
    """Upper bound on the difference at each look from one beta-binomial confidence sequence per arm."""
    stable, candidate, stable_bad, candidate_bad = (
        np.cumsum(getattr(traffic, name), axis=1).astype(np.float64) for name in _COUNTS
    )
    return _binomial_bound(candidate_bad, candidate, alpha / 2, upper=True) - _binomial_bound(
        stable_bad, stable, alpha / 2, upper=False
    )


def _binomial_bound(bad: Floats, total: Floats, alpha: float, *, upper: bool) -> Floats:
    """The end of a Beta(1/2, 1/2) mixture confidence sequence for a proportion, by bisection."""
    from scipy.special import betaln, xlog1py, xlogy

    mixed = betaln(bad + 0.5, total - bad + 0.5) - betaln(0.5, 0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = np.nan_to_num(bad / total)
    outside = np.full(bad.shape, 1.0 if upper else 0.0)
    for _ in range(40):
        middle = (inside + outside) / 2
        refuted = mixed - xlogy(bad, middle) - xlog1py(total - bad, -middle) >= np.log(1 / alpha)
        outside, inside = np.where(refuted, middle, outside), np.where(refuted, inside, middle)
    return outside


def at_look(cumulative: Sequence[Floats] | Ints | Floats, looks: Ints) -> Floats:
    """Per run, the value of a cumulative count at the window in `looks`; infinite where that is NEVER."""
    values = np.asarray(cumulative, dtype=np.float64)
    found = looks != NEVER
    picked = values[np.arange(len(looks)), np.where(found, looks, 0)]
    return np.where(found, picked, np.inf)
