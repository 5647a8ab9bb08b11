"""`podium rollout explain`: a rollout as a story that a person can follow and check.

Pure: from a Rollout to an `Explanation`, and from that to lines. What is said of the evidence is read from what the
server stored with each decision. Called by `commands.rollouts`.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podium.cli.display import clean, clock, coloured, span

if TYPE_CHECKING:
    from podium.resources.kinds import Rollout
    from podium.resources.rollout import Decision
    from podium.resources.strategies import CanaryStep

_SHIFTS = ("start", "advance", "promote", "rollback", "supersede")
_NAMES = {
    "error_rate": "errors",
    "refusal_rate": "refusals",
    "slow_rate": "slow requests",
    "sample_ratio": "share of traffic",
    "liveness": "liveness",
}
_STATES = {"worse": "worse", "within": "within its margin", "open": "not decided", "off": "not judged"}


@dataclass(frozen=True)
class Arm:
    """Requests of one arm, and how many of them failed."""

    requests: int
    failed: int


@dataclass(frozen=True)
class Step:
    """One share of traffic: what was asked for, and what was seen while it was loaded. Arms are None where unknown.
    Number 0: the copies before the first one; the candidate's arm are its answers to them."""

    number: int
    weight: int
    wanted: str
    began: datetime.datetime | None
    seconds: float | None
    candidate: Arm | None
    stable: Arm | None


@dataclass(frozen=True)
class Explanation:
    """All that there is to say."""

    rollout: "Rollout"
    passage: str
    steps: Sequence[Step]
    ending: str
    replayed: Sequence[Mapping[str, Any]] = ()
    """The server's answer when it judged the stored evidence again."""

    @property
    def replay_words(self) -> str:
        """One sentence about it; empty where no decision rests on statistics."""
        different = [int(item["decision"]) + 1 for item in self.replayed if not item["same"]]
        if different:
            numbers = ", ".join(str(number) for number in different)
            return f"judged again, the stored evidence does NOT give the same verdict for decision {numbers}"
        count = len(self.replayed)
        return (
            f"judged again, the stored evidence gives the same verdict ({count} of {count})" if count else ""
        )

    def document(self) -> dict[str, Any]:
        """For -o json: passage, steps, decisions as the API has them, ending."""
        return {
            "rollout": self.rollout.metadata.name,
            "passage": self.passage,
            "steps": [_step_document(step) for step in self.steps],
            "decisions": self.rollout.document()["status"]["decisions"],
            "ending": self.ending,
            "replay": [dict(item) for item in self.replayed],
        }


def _step_document(step: Step) -> dict[str, Any]:
    def arm(found: Arm | None) -> dict[str, int] | None:
        return None if found is None else {"requests": found.requests, "failed": found.failed}

    return {
        "number": step.number,
        "weight": step.weight,
        "wanted": step.wanted,
        "began": step.began.isoformat() if step.began else None,
        "seconds": step.seconds,
        "candidate": arm(step.candidate),
        "stable": arm(step.stable),
    }


def explanation(rollout: "Rollout", replayed: Sequence[Mapping[str, Any]] = ()) -> Explanation:
    """The story of a rollout, also of one that has not ended."""
    return Explanation(rollout, _passage(rollout), _steps(rollout), _ending(rollout), replayed)


def _passage(rollout: "Rollout") -> str:
    spec = rollout.spec
    strategy = spec.settings.strategy
    if spec.stable_revision is None:
        first = f"{spec.candidate_revision} is the first revision of {spec.deployment}"
        return f"{first}: there was nothing to compare it with"
    causes = {
        "apply": "because the Deployment was changed",
        "alias": "because the alias was moved",
        "rollback": "because someone asked to go back",
        "first": "as the first revision",
    }
    return (
        f"{spec.deployment}: traffic from {spec.stable_revision} to {spec.candidate_revision}, "
        f"strategy {strategy.type}, {causes[spec.cause]}"
    )


def _steps(rollout: "Rollout") -> list[Step]:
    shifts = [item for item in rollout.status.decisions if item.decision in _SHIFTS]
    # Beside a baseline the windows hold the share of the two, which is the same at every step.
    beside = getattr(rollout.spec.settings.strategy, "baseline", False)
    counted = {} if beside else _counted(rollout.status.decisions)
    found = []
    wishes = _wanted(rollout)
    for place, (number, weight, wanted) in enumerate(wishes):
        entered = next(
            (at for at, item in enumerate(shifts) if _enters(item, number, first=place == 0)), None
        )
        if entered is None:
            continue
        began = shifts[entered].at
        left = shifts[entered + 1].at if entered + 1 < len(shifts) else rollout.status.finished_at
        stable, candidate = counted.get(weight, (None, None))
        if number == 0:
            stable, candidate = None, Arm(rollout.status.copies, rollout.status.copies_bad)
        found.append(
            Step(
                number=number,
                weight=weight,
                wanted=wanted,
                began=began,
                seconds=(left - began).total_seconds() if left else None,
                candidate=candidate,
                stable=stable,
            )
        )
    return found


def _wanted(rollout: "Rollout") -> list[tuple[int, int, str]]:
    """(number, weight, words) of every share that the strategy asks for, the copies before them included."""
    strategy = rollout.spec.settings.strategy
    if strategy.type == "abTest":
        return [
            (1, strategy.weight, f"{strategy.weight} %{f' until {strategy.end}' if strategy.end else ''}")
        ]
    steps: Sequence[CanaryStep] = getattr(strategy, "steps", None) or ()
    wanted = [(index + 1, step.weight, step_words(step)) for index, step in enumerate(steps)]
    if strategy.type == "shadow":
        copies = f"copies of {strategy.percent:g} % of the requests, {strategy.requests:,} of them"
        wanted.insert(0, (0, 0, copies))
    return wanted


def _enters(decision: "Decision", number: int, *, first: bool) -> bool:
    """Whether this decision led to that share. It tells the step that it was taken at, counted from 0; -1 is before
    the first."""
    if decision.decision == "start":
        return first
    return decision.decision == "advance" and decision.step == number - 2


def _counted(decisions: Sequence["Decision"]) -> dict[int, tuple[Arm, Arm]]:
    """Requests per weight in percent, (stable, candidate), from the newest evidence: it holds all windows so far."""
    newest = next((windows for item in reversed(decisions) if (windows := _windows(item))), [])
    sums: dict[int, list[int]] = {}
    for window in newest:
        row = sums.setdefault(round(float(window.get("rho", 0)) * 100), [0, 0, 0, 0])
        for offset, arm in ((0, window.get("stable") or {}), (2, window.get("candidate") or {})):
            row[offset] += int(arm.get("total", 0))
            row[offset + 1] += int(arm.get("bad", 0)) + int(arm.get("gave_up", 0))
    return {weight: (Arm(row[0], row[1]), Arm(row[2], row[3])) for weight, row in sums.items()}


def _windows(decision: "Decision") -> list[Mapping[str, Any]]:
    analysis = (decision.evidence or {}).get("analysis") or {}
    if (analysis.get("settings") or {}).get("assignment") == "copy":
        return []
    return list(analysis.get("windows") or [])


def step_words(step: "CanaryStep") -> str:
    """`10 % for 60 s`, `50 % for 300 requests`."""
    length = f"{step.requests:,} requests" if step.requests else span(step.duration or 0.0)
    return f"{step.weight} % for {length}"


def _ending(rollout: "Rollout") -> str:
    status = rollout.status
    if status.finished_at is None:
        return (
            f"It has not ended: {status.phase}, {status.weight} % on the candidate. {status.message}".strip()
        )
    took = (
        f" after {span((status.finished_at - status.started_at).total_seconds())}"
        if status.started_at
        else ""
    )
    words = {
        "Promoted": f"{rollout.spec.candidate_revision} was promoted{took} and takes all traffic",
        "RolledBack": f"{rollout.spec.candidate_revision} was taken back{took}",
        "Superseded": f"it was superseded by a newer wish{took}",
    }
    flip = ""
    # Blue-green keeps watching after its flip: that time says nothing about the gateways.
    watched = getattr(rollout.spec.settings.strategy, "observe", 0.0) and status.phase == "Promoted"
    if status.verdict_at and status.phase in ("Promoted", "RolledBack") and not watched:
        seconds = (status.finished_at - status.verdict_at).total_seconds()
        flip = f"; from the verdict until every gateway had it loaded {span(seconds)}"
    return f"{words.get(status.phase, status.phase)}{flip}"


def print_explanation(told: Explanation) -> None:
    """The story on stdout."""
    rollout = told.rollout
    print(coloured(rollout.metadata.name, "bold"))
    print(f"  {clean(told.passage)}")
    for step in told.steps:
        name = f"step {step.number}, " if step.number else ""
        print(f"  {name}{step.wanted}: {_step_line(step)}")
    print(coloured("Decisions", "bold") if rollout.status.decisions else "No decision was taken yet.")
    for decision in rollout.status.decisions:
        for line in decision_lines(decision):
            print(f"  {line}")
    print(coloured("Outcome", "bold"))
    print(f"  {clean(told.ending)}")
    if told.replay_words:
        print(f"  {told.replay_words}")


def _step_line(step: Step) -> str:
    parts = [f"took {span(step.seconds)}" if step.seconds is not None else "under way"]
    for name, arm in (("candidate", step.candidate), ("stable", step.stable)):
        if arm is not None:
            parts.append(f"{name} {arm.failed:,} failed of {arm.requests:,}")
    return ", ".join(parts)


def decision_lines(decision: "Decision") -> list[str]:
    """When, at which share, what and why; then a line for each thing that was looked at."""
    repeated = f" (and {decision.repeated - 1:,} times before)" if decision.repeated > 1 else ""
    who = f" by {clean(decision.actor)}" if decision.actor else ""
    style = {"rollback": "red", "promote": "green", "hold": "yellow"}.get(decision.decision, "")
    what = f"{coloured(decision.decision, style)}{who}{repeated}: {clean(decision.reason)}"
    lines = [f"{clock(decision.at)}  at {decision.weight:>3} %  {what}"]
    verdict = (decision.evidence or {}).get("verdict") or {}
    for finding in verdict.get("findings") or []:
        lines += [f"    {line}" for line in finding_lines(finding)]
    return lines


def finding_lines(finding: Mapping[str, Any]) -> list[str]:
    """`errors: worse; E-value 812 of 40 needed; difference below 3 %, margin 2 %`, then the finding's own sentence."""
    metric = str(finding.get("metric", ""))
    name = _NAMES.get(metric, metric.replace("_", " ").replace("limit:", "limit on "))
    state = str(finding.get("state"))
    parts = [f"{name}: {_STATES.get(state, state)}"]
    if finding.get("e_value") is not None and finding.get("e_needed") is not None:
        parts.append(f"E-value {figure(finding['e_value'])} of {figure(finding['e_needed'])} needed")
    if finding.get("bound") is not None and finding.get("margin") is not None:
        parts.append(f"difference below {share(finding['bound'])}, margin {share(finding['margin'])}")
    lines = [clean("; ".join(parts))]
    return [*lines, f"  {clean(finding['words'])}"] if finding.get("words") else lines


def figure(value: float) -> str:
    """What says enough: `0.912`, `41.2`, `1,000`, `1.2e+09`."""
    return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def share(value: float) -> str:
    """A share as percent: `1.95 %`."""
    return f"{value * 100:.3g} %"
