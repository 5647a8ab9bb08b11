"""One look at a rollout's evidence: the analysis' verdict, and what it means for the step that the rollout is at.

Called by `planning.rollouts`; calls `analysis.judge`. The evidence of a look can be replayed from its stored form.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from podium.analysis import (
    AnalysisSettings,
    Assignment,
    Evidence,
    LatencyMetric,
    Liveness,
    PlainThreshold,
    QuantileMetric,
    RateMetric,
    Verdict,
    Window,
    judge_evidence,
)
from podium.analysis.divergence import judge as judge_divergence
from podium.planning.routing import beside_baseline, compared_share
from podium.resources.comparison import Comparison, DivergenceLimits
from podium.resources.deployment import Analysis, MetricMargin, RolloutSettings, Threshold
from podium.resources.kinds import Rollout
from podium.resources.rollout import has_baseline
from podium.resources.strategies import AbTestStrategy, ShadowStrategy, SteppedStrategy

_RATES = {"errorRate": "error_rate", "refusalRate": "refusal_rate", "slowRate": "slow_rate"}


@dataclass(frozen=True)
class Totals:
    """Requests over the whole rollout so far."""

    candidate_requests: int = 0
    candidate_bad: int = 0
    stable_requests: int = 0
    stable_bad: int = 0
    copies: int = 0
    copies_bad: int = 0


@dataclass(frozen=True)
class Trial:
    """All windows of the rollout so far, merged (`analysis.compact`), and who is alive."""

    windows: tuple[Window, ...]
    candidate_ready: int
    candidate_wanted: int
    candidate_detail: str = ""
    copies: tuple[Window, ...] = ()
    """Of the time in which the candidate got copies: its counts are those of the copies, `rho` is their share of
    requests and copies together."""
    comparison: Comparison | None = None
    """Its answers to copies beside the stable revision's; None: nothing was compared."""
    by_weight: Mapping[int, int] | None = None
    """Candidate requests by weight in basis points, beside a baseline: there `rho` is its share of the two."""

    def requests_at(self, weight: int) -> int:
        """Candidate requests that were counted while this percentage was loaded."""
        if self.by_weight is not None:
            return self.by_weight.get(weight * 100, 0)
        return sum(
            window.candidate.total for window in self.windows if round(window.rho * 10_000) == weight * 100
        )

    def fewest_at(self, weight: int) -> int:
        """Requests of the arm that had fewer while this percentage was loaded."""
        here = [window for window in self.windows if round(window.rho * 10_000) == weight * 100]
        return min(
            sum(window.stable.total for window in here), sum(window.candidate.total for window in here)
        )

    def totals(self) -> Totals:
        """Everything that was counted, warm-up aside."""
        return Totals(
            candidate_requests=sum(window.candidate.total for window in self.windows),
            candidate_bad=sum(window.candidate.failed for window in self.windows),
            stable_requests=sum(window.stable.total for window in self.windows),
            stable_bad=sum(window.stable.failed for window in self.windows),
            copies=sum(window.candidate.total for window in self.copies),
            copies_bad=sum(window.candidate.failed for window in self.copies),
        )


@dataclass(frozen=True)
class Look:
    """`advance` = the step is passed (from the last one: promote). `evidence` is what `replay` needs."""

    decision: Literal["advance", "continue", "hold", "rollback"]
    reason: str
    evidence: dict[str, Any] | None = None
    inconclusive: bool = False
    """The step's cap was reached without an answer. A hold for another reason (the traffic is not split as it should
    be) is none: no setting passes that."""


def analysis_settings(
    settings: RolloutSettings, asked: int | None = None, *, assignment: Assignment = "request"
) -> AnalysisSettings:
    """The spec's words as the analysis' settings. A step that asks for few requests needs no more than those."""
    wish, strategy = settings.analysis, settings.strategy
    least = wish.min_requests if asked is None else min(wish.min_requests, asked)
    if isinstance(strategy, AbTestStrategy) and strategy.sticky is not None:
        assignment = "user"
    latency = None
    if wish.latency is not None:
        latency = LatencyMetric(
            threshold_ms=wish.latency.threshold * 1000,
            relative_margin=wish.latency.relative_margin,
            absolute_margin=wish.latency.margin,
            compared=wish.enabled and wish.latency.enabled,
        )
    quantile = wish.latency_quantile
    if quantile is not None and not (wish.enabled and quantile.enabled):
        quantile = None
    return AnalysisSettings(
        alpha=wish.alpha,
        error_rate=_rate(wish, wish.error_rate),
        refusal_rate=_rate(wish, wish.refusal_rate),
        latency=latency,
        quantile=QuantileMetric(quantile.quantile, quantile.relative_margin) if quantile else None,
        thresholds=tuple(_limit(item) for item in wish.thresholds),
        min_requests=least,
        warmup_seconds=warmup_seconds(settings),
        # What an inconclusive cap leads to is the rollout's business, in `planning.rollouts`.
        on_inconclusive="hold",
        assignment=assignment,
    )


def warmup_seconds(settings: RolloutSettings) -> float:
    """How long after a shift nothing is counted."""
    strategy = settings.strategy
    return strategy.warmup if isinstance(strategy, (SteppedStrategy, AbTestStrategy)) else 0.0


def _rate(wish: Analysis, margin: MetricMargin) -> RateMetric | None:
    if not (wish.enabled and margin.enabled):
        return None
    return RateMetric(relative_margin=margin.relative_margin, absolute_margin=margin.margin)


def _limit(wish: Threshold) -> PlainThreshold:
    if wish.is_quantile:
        return PlainThreshold(f"{wish.metric}_ms", 1000 * (wish.max_latency or 0.0), wish.min_requests)
    return PlainThreshold(_RATES[wish.metric], wish.max or 0.0, wish.min_requests)


def look_at(rollout: Rollout, trial: Trial, *, last: bool, complete: bool, capped: bool) -> Look:
    """Judge the rollout now. `last`: only the last step asks for proof; the ones before it are passed when they have
    run their course with enough requests and nothing speaks against the candidate."""
    strategy = rollout.spec.settings.strategy
    asked = strategy.steps[rollout.status.step].requests if isinstance(strategy, SteppedStrategy) else None
    evidence = Evidence(
        windows=trial.windows,
        settings=analysis_settings(rollout.spec.settings, asked),
        weight=_weight(rollout),
        step_complete=complete,
        step_cap_reached=capped,
        liveness=Liveness(trial.candidate_ready, trial.candidate_wanted, trial.candidate_detail),
    )
    stored = {"lastStep": last, "analysis": evidence.to_dict()}
    return _judged(evidence, stored)


def _weight(rollout: Rollout) -> float:
    """The candidate's percentage of what is compared."""
    weight = rollout.status.weight
    return beside_baseline(weight * 100) / 100 if has_baseline(rollout.spec) else float(weight)


def look_at_copies(
    rollout: Rollout, strategy: ShadowStrategy, trial: Trial, *, complete: bool, capped: bool
) -> Look:
    """Judge the candidate by its copies: errors and latency as in a step that is not the last one, and its answers, if
    the spec says how far they may lie from the stable revision's."""
    evidence = Evidence(
        windows=trial.copies,
        settings=analysis_settings(rollout.spec.settings, strategy.requests, assignment="copy"),
        weight=compared_share(round(strategy.percent * 100)) / 100,
        step_complete=complete,
        step_cap_reached=capped,
        liveness=Liveness(trial.candidate_ready, trial.candidate_wanted, trial.candidate_detail),
    )
    stored: dict[str, Any] = {"lastStep": False, "analysis": evidence.to_dict()}
    if strategy.compare is not None:
        found = trial.comparison
        stored["limits"] = strategy.compare.model_dump(mode="json", by_alias=True)
        stored["comparison"] = (
            found.model_dump(mode="json", by_alias=True, exclude={"examples"}) if found else None
        )
    return _judged(evidence, stored)


def _judged(evidence: Evidence, stored: dict[str, Any]) -> Look:
    """A look at evidence with what is stored beside it."""
    look = _meaning(judge_evidence(evidence), evidence, last=bool(stored["lastStep"]), stored=stored)
    if "limits" not in stored or look.decision == "rollback":
        return look
    limits, found = DivergenceLimits.model_validate(stored["limits"]), stored["comparison"]
    if found is None:
        words, outcome = "no answers were compared yet", "undecided"
    else:
        judgement = judge_divergence(Comparison.model_validate(found), limits)
        words, outcome = judgement.reason, judgement.outcome
    if outcome == "fail":
        return replace(look, decision="rollback", reason=f"its answers differ: {words}")
    if outcome == "undecided" and look.decision == "advance":
        inconclusive = evidence.step_cap_reached
        return replace(
            look, decision="hold" if inconclusive else "continue", reason=words, inconclusive=inconclusive
        )
    return replace(look, reason=f"{look.reason}; {words}")


def _meaning(verdict: Verdict, evidence: Evidence, *, last: bool, stored: dict[str, Any]) -> Look:
    stored = {**stored, "verdict": verdict.to_dict()}
    judged = evidence.settings.comparisons > 0 or bool(evidence.settings.thresholds)
    if verdict.decision == "rollback":
        return Look("rollback", verdict.reason, stored)
    copied = evidence.settings.assignment == "copy"
    against = f"{verdict.candidate_requests:,} copies and nothing against the candidate"
    if verdict.decision == "promote":
        return Look("advance", against if copied else verdict.reason, stored)
    enough = verdict.candidate_requests >= evidence.settings.min_requests
    uneven = any(
        finding.metric == "sample_ratio" and finding.state == "worse" for finding in verdict.findings
    )
    if evidence.step_complete and not uneven and (enough or not judged) and (not last or not judged):
        words = f"{verdict.candidate_requests:,} requests at {evidence.weight:g} % and nothing against the candidate"
        return Look("advance", against if copied else words, stored)
    waits = verdict.decision == "hold" or verdict.inconclusive
    return Look("hold" if waits else "continue", verdict.reason, stored, verdict.inconclusive)


def replay(stored: Mapping[str, Any]) -> Look:
    """The same look again from what a Decision keeps. Raises ValueError when that can't be read."""
    if "analysis" not in stored:
        raise ValueError("this decision rests on no statistics (a person's act or a liveness failure)")
    evidence = Evidence.from_dict(stored["analysis"])
    kept = {name: stored[name] for name in ("limits", "comparison") if name in stored}
    return _judged(evidence, {"lastStep": stored["lastStep"], "analysis": evidence.to_dict(), **kept})
