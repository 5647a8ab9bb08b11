"""One finding per metric: the comparisons of the two arms, the check of the share, the plain limits.

Called by `verdict`. Calls `bets` (is it worse?), `margins` (is it certainly not much worse?) and `quantiles`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from podium.analysis.bets import fewest_errors, log_e_above, log_e_share, tolerated_share
from podium.analysis.evidence import ArmCounts, Buckets
from podium.analysis.findings import Finding, State, figure, from_log
from podium.analysis.margins import Stretch, log_e_within, more_requests, upper_bound
from podium.analysis.quantiles import quantile_bounds, quantile_estimate
from podium.analysis.settings import (
    AnalysisSettings,
    LatencyMetric,
    PlainThreshold,
    QuantileMetric,
    RateMetric,
)
from podium.analysis.tally import Arms, Incident, Tally

# The chance of a false alarm about the share itself. It only holds a rollout, so it has no part in alpha.
SHARE_ALPHA = 0.001

_VERBS = {"error_rate": "failed", "refusal_rate": "were refused (4xx)", "slow_rate": "were slow"}
_FIELDS = {"error_rate": "failed", "refusal_rate": "refused", "slow_rate": "late"}


def _number(value: float) -> str:
    """A figure for a sentence: three digits, thousands grouped."""
    if value >= 1e6:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _points(share: float) -> str:
    """A difference of rates in percentage points."""
    return f"{100 * share:.3g} points"


@dataclass(frozen=True)
class _Counts:
    """Events and requests of both arms over all shares."""

    stable_events: int
    stable_requests: int
    candidate_events: int
    candidate_requests: int

    def words(self, verb: str) -> str:
        """The counts as the beginning of a sentence; `verb` says what happened to the requests."""
        return (
            f"{self.candidate_events:,} of {self.candidate_requests:,} candidate requests {verb}, against "
            f"{self.stable_events:,} of {self.stable_requests:,} on the stable revision"
        )


def _counts(name: str, compared: Sequence[Arms]) -> _Counts:
    """Sum one metric's events and the requests over all shares."""
    field = _FIELDS[name]
    return _Counts(
        sum(getattr(arms.stable, field) for arms in compared),
        sum(arms.stable.total for arms in compared),
        sum(getattr(arms.candidate, field) for arms in compared),
        sum(arms.candidate.total for arms in compared),
    )


def _log_e_worse(field: str, compared: Sequence[Arms], incidents: Sequence[Incident], margin: float) -> float:
    """log E against "no worse": the product of the bets under each share, and one bet per incident.

    An incident is one replica's death. Replicas die independently of the share of requests; with as many candidate
    replicas as stable ones, or fewer, at most every second death is the candidate's, so the bet is made at one half
    (or the share, if that is larger). Deaths on both sides at once are nobody's fault.
    """
    log_e = 0.0
    for arms in compared:
        bad, good_arm = getattr(arms.candidate, field), getattr(arms.stable, field)
        share = float(tolerated_share(arms.rho, margin))
        log_e += float(log_e_above(bad, bad + good_arm, share))
    deaths: dict[float, list[bool]] = {}
    for incident in incidents:
        stable, candidate = incident.stable.connect_failures > 0, incident.candidate.connect_failures > 0
        if stable != candidate and incident.rho < 1:
            deaths.setdefault(max(incident.rho, 0.5), []).append(candidate)
    for rho, whose in sorted(deaths.items()):
        log_e += float(log_e_above(sum(whose), len(whose), float(tolerated_share(rho, margin))))
    return log_e


def _stretches(field: str, compared: Sequence[Arms]) -> list[Stretch]:
    """The exact requests of each share, for the bets on the margin."""
    return [
        Stretch(
            arms.rho,
            arms.exact_stable.total + arms.exact_candidate.total,
            getattr(arms.exact_stable, field),
            getattr(arms.exact_candidate, field),
        )
        for arms in compared
        if arms.exact_candidate.total or arms.exact_stable.total
    ]


def _fewest_words(fewest: tuple[int, int], rho: float, alpha: float) -> str:
    """Why a rollback on errors isn't possible yet."""
    return (
        f"with a share of {rho:g} and alpha {alpha:.3g} at least {fewest[0]} candidate errors are needed "
        f"before any test may roll back ({fewest[1]} before this one does)"
    )


def compare_rate(
    name: str, metric: RateMetric | LatencyMetric, tally: Tally, settings: AnalysisSettings, weight: float
) -> Finding:
    """Compare one rate (`error_rate`, `refusal_rate` or `slow_rate`) between the arms."""
    field, compared, alpha = _FIELDS[name], tally.compared, settings.metric_alpha
    counts = _counts(name, compared)
    counted = counts.words(_VERBS[name])
    incidents = tally.incidents if name == "error_rate" else ()
    log_e = figure(_log_e_worse(field, compared, incidents, metric.relative_margin))
    log_needed = figure(math.log(1.0 / alpha))
    stretches = _stretches(field, compared)
    margin = metric.absolute_margin
    goal = figure(math.log(1.0 / settings.alpha))
    proven = bool(stretches) and figure(float(log_e_within(stretches, margin))) >= goal
    rho = weight / 100
    fewest = fewest_errors(float(tolerated_share(rho, metric.relative_margin)), alpha)
    e_words = f"E = {_number(from_log(log_e))}, {_number(1 / alpha)} needed to roll back"
    bound = figure(upper_bound(stretches, settings.alpha))
    state: State
    more: int | None = None
    if log_e >= log_needed:
        state, words = "worse", f"{counted} ({e_words})"
    elif proven:
        state = "within"
        words = (
            f"{counted}; the candidate is at most {_points(bound)} worse, inside its margin of "
            f"{_points(margin)} ({e_words})"
        )
        more = 0
    else:
        state = "open"
        total = more_requests(stretches, rho, margin, settings.alpha)
        more = None if total is None else max(math.ceil(total * rho), 1)
        left = (
            "at the present rates no number of requests would show that it stays inside"
            if more is None
            else f"about {more:,} more candidate requests are needed to show that it stays inside"
        )
        words = (
            f"{counted}; the candidate may be up to {_points(bound)} worse, its margin is "
            f"{_points(margin)}: {left} ({e_words})"
        )
    if state != "worse" and counts.candidate_events < fewest[0]:
        words += f"; {_fewest_words(fewest, rho, alpha)}"
    return Finding(
        metric=name,
        state=state,
        words=words,
        stable_events=counts.stable_events,
        stable_requests=counts.stable_requests,
        candidate_events=counts.candidate_events,
        candidate_requests=counts.candidate_requests,
        e_value=from_log(log_e),
        e_needed=figure(1 / alpha),
        bound=bound,
        margin=margin,
        more_requests=more,
        fewest_errors=fewest[0],
    )


def _with_given_up(arm: ArmCounts) -> Buckets:
    """The arm's buckets with the requests that clients gave up in the infinite one."""
    if not arm.latency_buckets:
        return ()
    *finite, (edge, count) = arm.latency_buckets
    return (*finite, (edge, count + arm.gave_up))


def compare_quantile(metric: QuantileMetric, tally: Tally, settings: AnalysisSettings) -> Finding:
    """Compare a latency quantile between the arms, share by share.

    Each share is judged by itself (a quantile over several shares would mix different times of day in different
    proportions), with alpha / (j (j + 1)) for the j-th, which adds up to alpha at most.
    """
    name, factor = f"p{100 * metric.quantile:g}_ms", 1 + metric.relative_margin
    state: State = "open"
    words = "no request's latency was counted yet"
    bound: float | None = None
    for index, arms in enumerate(tally.compared, start=1):
        part = 1 / (index * (index + 1)) / 2
        stable, candidate = _with_given_up(arms.stable), _with_given_up(arms.candidate)
        worst_stable = quantile_bounds(stable, metric.quantile, settings.metric_alpha * part).high_ms
        best_candidate = quantile_bounds(candidate, metric.quantile, settings.metric_alpha * part).low_ms
        if best_candidate >= factor * worst_stable:
            state = "worse"
            words = (
                f"the candidate's {name[:-3]} is above {best_candidate:g} ms, the stable revision's at most "
                f"{worst_stable:g} ms (at a share of {arms.rho:g})"
            )
            break
        best_stable = quantile_bounds(stable, metric.quantile, settings.alpha * part).low_ms
        worst_candidate = quantile_bounds(candidate, metric.quantile, settings.alpha * part).high_ms
        if best_stable > 0 and math.isfinite(worst_candidate):
            ratio = figure(worst_candidate / best_stable - 1)
            bound = ratio if bound is None else min(bound, ratio)
        state = "within" if bound is not None and bound <= metric.relative_margin else "open"
        words = (
            f"{name[:-3]} at most {worst_candidate:g} ms on the candidate and above {best_stable:g} ms on the "
            f"stable revision; up to {100 * metric.relative_margin:.3g} % more is inside the margin"
        )
    return Finding(
        metric=name,
        state=state,
        words=words,
        stable_requests=sum(arms.stable.total for arms in tally.compared),
        candidate_requests=sum(arms.candidate.total for arms in tally.compared),
        bound=bound,
        margin=metric.relative_margin,
    )


def check_share(tally: Tally) -> tuple[Finding, bool]:
    """Check that the candidate got its share of the requests (a sample ratio mismatch means broken counting).

    Returns the finding, and whether a mismatch, if there is one, can only have helped the candidate: with fewer
    requests than its share everywhere, "worse" stays proven.
    """
    log_e, fewer = 0.0, True
    started_stable = started_candidate = 0
    expected = 0.0
    for arms in tally.compared:
        candidate, stable = arms.exact_candidate.started, arms.exact_stable.started
        log_e += float(log_e_share(candidate, candidate + stable, arms.rho))
        fewer = fewer and candidate <= arms.rho * (candidate + stable)
        started_candidate, started_stable = started_candidate + candidate, started_stable + stable
        expected += arms.rho * (candidate + stable)
    if started_stable + started_candidate == 0:
        return Finding(
            metric="sample_ratio", state="off", words="no request was counted on either side"
        ), True
    log_e = figure(log_e)
    wrong = log_e >= figure(math.log(1 / SHARE_ALPHA))
    words = (
        f"the candidate got {started_candidate:,} of {started_candidate + started_stable:,} requests where "
        f"{expected:,.0f} were expected (E = {_number(from_log(log_e))}, {1 / SHARE_ALPHA:,.0f} means a mismatch)"
    )
    finding = Finding(
        metric="sample_ratio",
        state="worse" if wrong else "within",
        words=words,
        stable_requests=started_stable,
        candidate_requests=started_candidate,
        e_value=from_log(log_e),
        e_needed=figure(1 / SHARE_ALPHA),
    )
    return finding, fewer


def _limited_value(metric: str, arm: ArmCounts) -> float | None:
    """The candidate's value of a threshold metric; None when it can't be told."""
    if metric in _FIELDS:
        return float(getattr(arm, _FIELDS[metric])) / arm.total if arm.total else None
    return quantile_estimate(_with_given_up(arm), float(metric[1:-3]) / 100)


def check_limit(limit: PlainThreshold, tally: Tally, settings: AnalysisSettings, weight: float) -> Finding:
    """Check a plain limit on the candidate's requests at the current weight."""
    arms = tally.at(weight)
    arm = arms.candidate if arms else ArmCounts()
    blind = limit.metric == "slow_rate" and settings.latency is None
    value = None if blind else _limited_value(limit.metric, arm)
    state: State
    if arm.total < limit.min_requests or value is None:
        state, more = "open", max(limit.min_requests - arm.total, 1)
        words = f"{limit.metric} is looked at after {limit.min_requests:,} candidate requests, {arm.total:,} so far"
        if blind:
            words = "slow_rate can't be told: no latency threshold says what slow is"
        elif arm.total >= limit.min_requests:
            words = f"{limit.metric} can't be told: no latency buckets were kept"
    else:
        state, more = ("worse" if value > limit.max else "within"), 0
        over = "over" if value > limit.max else "within"
        words = f"{limit.metric} is {value:.4g}, {over} its limit of {limit.max:.4g} ({arm.total:,} requests)"
    return Finding(
        metric=f"limit:{limit.metric}",
        state=state,
        words=words,
        candidate_requests=arm.total,
        bound=None if value is None or math.isinf(value) else figure(value),
        margin=limit.max,
        more_requests=more,
    )
