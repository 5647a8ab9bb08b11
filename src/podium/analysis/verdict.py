"""The verdict on a candidate: promote, continue, hold or roll back, with its evidence and its reason in words.

Called by the control plane at each look (`judge`) and by whoever wants to see a stored decision again (`replay`).
Calls `tally` and `metrics`. Pure: the same evidence gives the same verdict, bit for bit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from podium.analysis.evidence import Evidence, Liveness, Window
from podium.analysis.findings import Finding
from podium.analysis.metrics import check_limit, check_share, compare_quantile, compare_rate
from podium.analysis.settings import AnalysisSettings
from podium.analysis.tally import Tally, add_up

Decision = Literal["promote", "continue", "hold", "rollback"]


@dataclass(frozen=True)
class Verdict:
    """What to do with the step, and why.

    decision: promote (the step may be passed), continue (go on at this weight), hold (stay and tell a person), or
        rollback. reason: one sentence for a person. findings: the figures behind it.
    inconclusive: the step's cap was reached without an answer; the decision is then the settings' choice.
    candidate_requests: counted at the current weight. more_requests: about how many more of the candidate's are
        needed before the step can be passed; None when unknown or when the rates would never allow it.
    """

    decision: Decision
    reason: str
    findings: tuple[Finding, ...]
    inconclusive: bool = False
    candidate_requests: int = 0
    more_requests: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` gives an equal object."""
        return {
            "decision": self.decision,
            "reason": self.reason,
            "findings": [finding.to_dict() for finding in self.findings],
            "inconclusive": self.inconclusive,
            "candidate_requests": self.candidate_requests,
            "more_requests": self.more_requests,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**{**values, "findings": tuple(Finding.from_dict(item) for item in values["findings"])})


def _liveness(liveness: Liveness, tally: Tally) -> Finding:
    """Whether the candidate can answer at all."""
    detail = f" ({liveness.detail})" if liveness.detail else ""
    if liveness.ready <= 0:
        words = f"none of the candidate's {liveness.wanted} replicas is ready{detail}"
        return Finding("liveness", "worse", words)
    dead = next((incident for incident in tally.incidents if incident.killed_candidate), None)
    if dead:
        arm = dead.candidate
        words = f"{arm.bad - arm.saved:,} of {arm.total:,} candidate requests found no connection{detail}"
        return Finding("liveness", "worse", words, candidate_events=arm.bad, candidate_requests=arm.total)
    words = f"{liveness.ready} of {liveness.wanted} candidate replicas are ready{detail}"
    return Finding("liveness", "within", words)


def _comparisons(tally: Tally, settings: AnalysisSettings, weight: float) -> list[Finding]:
    """One finding per enabled comparison, in a fixed order."""
    rates = (
        ("error_rate", settings.error_rate),
        ("refusal_rate", settings.refusal_rate),
        ("slow_rate", settings.latency if settings.latency and settings.latency.compared else None),
    )
    found = [compare_rate(name, metric, tally, settings, weight) for name, metric in rates if metric]
    if settings.quantile:
        found.append(compare_quantile(settings.quantile, tally, settings))
    if settings.assignment == "user":
        why = "not judged: users, not requests, are assigned to the arms, so the comparison is not valid"
        return [replace(finding, state="off", words=f"{why} ({finding.words})") for finding in found]
    return found


def _share(tally: Tally, settings: AnalysisSettings) -> tuple[Finding, bool]:
    """The check of the share, where each request was drawn by itself."""
    if settings.assignment == "request":
        return check_share(tally)
    what = "users are" if settings.assignment == "user" else "copies are made, and nothing is"
    return Finding("sample_ratio", "off", f"not judged: {what} drawn"), True


def _of_more(findings: Iterable[Finding]) -> int | None:
    """The most additional requests that any open finding needs; None when one of them can't say."""
    needs = [finding.more_requests for finding in findings if finding.state == "open"]
    known = [need for need in needs if need is not None]
    return max(known, default=0) if len(known) == len(needs) else None


def _missing(
    findings: Iterable[Finding], settings: AnalysisSettings, requests: int, compare: bool
) -> str | None:
    """What still stands between the candidate and the next step, in words; None when nothing does."""
    if compare and requests == 0:
        return "no requests reached the candidate at this weight yet"
    if compare and requests < settings.min_requests:
        return f"{requests:,} of the {settings.min_requests:,} candidate requests that the step needs"
    not_yet = next((finding for finding in findings if finding.state == "open"), None)
    if not_yet:
        return f"{not_yet.metric.replace('_', ' ')} is open: {not_yet.words}"
    if settings.assignment == "user" and compare and not settings.thresholds:
        return "users, not requests, are assigned to the arms, and no thresholds are set to judge by instead"
    return None


def _undecided(
    tally: Tally,
    settings: AnalysisSettings,
    findings: tuple[Finding, ...],
    *,
    weight: float,
    step_complete: bool,
    step_cap_reached: bool,
) -> Verdict:
    """The verdict when nothing is wrong: is the candidate proven good enough for the next step?"""
    compare = 0 < weight < 100
    here = tally.at(weight)
    requests = here.candidate.total if here else 0
    missing = _missing(findings, settings, requests, compare)
    if missing is None:
        words = "the candidate is inside every margin" if compare else "the candidate is alive"
        words += f" and {requests:,} of its requests were counted at weight {weight:g}"
        if step_complete:
            return Verdict("promote", f"passed: {words}", findings, False, requests, 0)
        return Verdict("continue", f"{words}; the step isn't over", findings, False, requests, 0)
    more = _of_more(findings)
    if compare and more is not None:
        more = max(more, settings.min_requests - requests)
    # Silence is no proof of anything, so it is never passed, whatever the settings choose for other doubts.
    silent = requests == 0 and (compare or bool(settings.thresholds))
    if silent and (step_complete or step_cap_reached):
        return Verdict("hold", f"held: {missing}", findings, step_cap_reached, requests, more)
    if step_cap_reached:
        decision = settings.on_inconclusive
        words = f"inconclusive at the step's cap, so {decision} as the settings say: {missing}"
        return Verdict(decision, words, findings, True, requests, more)
    return Verdict("continue", missing, findings, False, requests, more)


def judge(
    windows: Iterable[Window],
    settings: AnalysisSettings,
    *,
    weight: float,
    step_complete: bool,
    step_cap_reached: bool,
    liveness: Liveness,
) -> Verdict:
    """Judge a candidate on all windows of its rollout so far, at whatever moment.

    windows: all of the rollout's (merged by `compact` or not, in any order). weight: the candidate's current
    weight in percent. step_complete: the step's duration or request count is reached, so it may be passed.
    step_cap_reached: it may not wait any longer. Raises ValueError for a weight outside 0..100.

    Looking more often never makes a false rollback likelier than `settings.alpha`.
    """
    if not 0 <= weight <= 100:
        raise ValueError(f"weight: must be a percentage between 0 and 100, not {weight!r}")
    tally = add_up(windows)
    findings = [
        _liveness(liveness, tally),
        *(check_limit(limit, tally, settings, weight) for limit in settings.thresholds),
    ]
    trusted = list(findings)
    held: str | None = None
    if 0 < weight < 100:
        share, only_helped = _share(tally, settings)
        compared = _comparisons(tally, settings, weight)
        findings += [share, *compared]
        if share.state == "worse":
            held = f"held: the traffic is not split as it should be: {share.words}"
        if held is None or only_helped:
            trusted += compared
    here = tally.at(weight)
    requests = here.candidate.total if here else 0
    worse = next((finding for finding in trusted if finding.state == "worse"), None)
    if worse:
        reason = f"rolled back on {worse.metric.replace('_', ' ')}: {worse.words}"
        return Verdict("rollback", reason, tuple(findings), candidate_requests=requests)
    if held:
        return Verdict("hold", held, tuple(findings), candidate_requests=requests)
    return _undecided(
        tally,
        settings,
        tuple(findings),
        weight=weight,
        step_complete=step_complete,
        step_cap_reached=step_cap_reached,
    )


def judge_evidence(evidence: Evidence) -> Verdict:
    """`judge` on a bundle."""
    return judge(
        evidence.windows,
        evidence.settings,
        weight=evidence.weight,
        step_complete=evidence.step_complete,
        step_cap_reached=evidence.step_cap_reached,
        liveness=evidence.liveness,
    )


def replay(evidence: Mapping[str, Any]) -> Verdict:
    """Judge stored evidence (`Evidence.to_dict`) again. Raises ValueError when it can't be read."""
    return judge_evidence(Evidence.from_dict(evidence))
