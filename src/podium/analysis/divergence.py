"""How far a shadow's answers lie from the champion's on the same requests: one difference per output and request, and
what is proven about its mean.

Called by `control.comparisons` (differences, intervals) and by whoever decides about a shadow (`judge`). Calls `bets`.

**Classes** (texts, booleans, whole numbers): the share of an answer's values that are the same.

**Numbers**: sum |a - b| / sum (|a| + |b|) over the values of a row, then the mean over the rows of the answer (Bray &
Curtis, Ecological Monographs 1957). It lies between 0 and 1, treats both sides alike and needs no scale: for a row of
class probabilities it is the total variation distance, for a single number |a - b| / (|a| + |b|), so 0.05 is a change
of about a tenth. A number whose sign differs has distance 1, however near to zero both are.

Both means lie between 0 and 1. For any such variable X with mean at most p, (q/p)^X ((1-q)/(1-p))^(1-X) is on average
at most 1 for every q > p (weighted arithmetic and geometric mean), so the bets of `bets.log_e_above`, made for hits
and misses, hold for the fractions too: sums take the place of counts. Like there, what is refuted is that the mean of
every single request lies on the wrong side, and one may look as often as one likes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from podium.analysis.answers import Output, Value
from podium.analysis.bets import log_e_above
from podium.resources.comparison import Comparison, DivergenceLimits, OutputComparison, OutputKind

Outcome = Literal["pass", "fail", "undecided"]
_MOST_AHEAD = 1e8
_LEAST = 1e-9
"""Below it the beta function loses its digits, and nothing is worth knowing."""


class Difference(NamedTuple):
    """One output of one request. `apart`: 0 (the same) to 1; `mismatched`: they cannot be compared, which is 1."""

    kind: OutputKind
    apart: float
    mismatched: bool


def difference(champion: Output | None, shadow: Output | None) -> Difference:
    """How far two outputs of one name lie apart; None: there is none. Not both."""
    one = champion or shadow
    if one is None:
        raise ValueError("neither gave this output")
    kinds = {output.kind for output in (champion, shadow) if output is not None}
    kind: OutputKind = "number" if "float" in kinds and "text" not in kinds else "class"
    if champion is None or shadow is None or not _comparable(champion, shadow):
        return Difference(kind, 1.0, mismatched=True)
    if not champion.values:
        return Difference(kind, 0.0, mismatched=False)
    if kind == "class":
        same = sum(a == b for a, b in zip(champion.values, shadow.values, strict=True))
        return Difference(kind, 1.0 - same / len(champion.values), mismatched=False)
    return Difference(kind, _distance(champion, shadow), mismatched=False)


def _comparable(champion: Output, shadow: Output) -> bool:
    texts = (champion.kind == "text") + (shadow.kind == "text")
    return texts != 1 and champion.shape == shadow.shape and len(champion.values) == len(shadow.values)


def _distance(champion: Output, shadow: Output) -> float:
    width, rows = champion.width, len(champion.values) // champion.width
    total = 0.0
    for row in range(rows):
        part = slice(row * width, (row + 1) * width)
        total += _row(_floats(champion.values[part]), _floats(shadow.values[part]))
    return total / rows


def _floats(values: Sequence[Value]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def _row(champion: Sequence[float], shadow: Sequence[float]) -> float:
    # Scaled by the largest value, so that sums of very large ones stay finite.
    scale = max((abs(value) for value in (*champion, *shadow) if math.isfinite(value)), default=0.0) or 1.0
    apart = size = 0.0
    for a, b in zip(champion, shadow, strict=True):
        if math.isfinite(a) and math.isfinite(b):
            apart += abs(a / scale - b / scale)
            size += abs(a / scale) + abs(b / scale)
        elif math.isfinite(a) or math.isfinite(b):
            return 1.0
    return min(1.0, apart / size) if size else 0.0


def bounds(total: float, count: int, alpha: float) -> tuple[float, float]:
    """An interval for the mean of a variable between 0 and 1, of which `count` values sum to `total`; the chance that
    it ever misses the mean, over all looks, is at most `alpha`."""
    if count == 0:
        return 0.0, 1.0
    low = _lower(total, count, alpha / 2)
    high = 1.0 - _lower(count - total, count, alpha / 2)
    return min(low, total / count), max(high, total / count)


def _lower(total: float, count: int, alpha: float) -> float:
    """The largest mean below which all are refuted."""
    needed = math.log(1.0 / alpha)
    low, high = 0.0, min(1.0, total / count)
    if high < _LEAST:
        return 0.0
    # Each round looks at 31 points at once and keeps one 32nd: after five the bound is known to 3e-8.
    for _ in range(5):
        points = np.linspace(low, high, 33)[1:-1]
        if not 0 < points[0] < points[-1] < 1:
            break
        open_ = log_e_above(total, count, points) < needed
        first = int(np.argmax(open_)) if open_.any() else points.size
        low, high = (
            (float(points[first - 1]) if first else low),
            (float(points[first]) if first < points.size else high),
        )
    return low


def compared(name: str, kind: OutputKind, sums: tuple[int, float, int], alpha: float) -> OutputComparison:
    """One output of all requests. `sums`: requests, the sum of what lies apart, and how many were mismatched."""
    pairs, apart, mismatched = sums
    mean = apart / pairs if pairs else 0.0
    low, high = bounds(apart, pairs, alpha)
    agreement, distance = (1.0 - mean, None) if kind == "class" else (None, mean)
    return OutputComparison(
        name=name,
        kind=kind,
        pairs=pairs,
        mismatched=mismatched,
        agreement=agreement,
        mean_distance=distance,
        interval=(1.0 - high, 1.0 - low) if kind == "class" else (low, high),
        alpha=alpha,
    )


@dataclass(frozen=True)
class Judgement:
    """`pass`: every limit is proven to be kept. `fail`: one is proven to be broken. With a reason in words for each
    limit, the failed ones first, then what is open."""

    outcome: Outcome
    reasons: tuple[str, ...]

    @property
    def reason(self) -> str:
        """All of them in one line."""
        return "; ".join(self.reasons)


def judge(comparison: Comparison, limits: DivergenceLimits) -> Judgement:
    """Whether the shadow keeps the limits. The same comparison gives the same judgement.

    All limits have to be proven for a pass, so each is tested at `alpha`; one is enough for a failure, so they share
    `alpha` there.
    """
    if comparison.pairs < limits.min_pairs:
        why = f" ({comparison.message})" if comparison.message else ""
        words = f"{comparison.pairs} requests were answered by both, {limits.min_pairs} are needed{why}"
        return Judgement("undecided", (words,))
    known = {output.name for output in comparison.per_output}
    absent = [name for name in limits.outputs or () if name not in known]
    checks = [*_output_checks(comparison, limits), *_failure_check(comparison, limits)]
    found: dict[Outcome, list[str]] = {"fail": [], "undecided": [], "pass": []}
    for check in checks:
        verdict, words = _checked(check, limits.alpha, len(checks))
        found[verdict].append(words)
    for name in absent:
        given = ", ".join(sorted(known)) or "none"
        found["undecided"].append(f"{name}: neither gives such an output; given are {given}")
    if not absent and not any(check.is_output for check in checks):
        found["undecided"].append("no output that both gave is under a limit: nothing can be judged")
    reasons = (*found["fail"], *found["undecided"], *found["pass"])
    outcome: Outcome = "fail" if found["fail"] else "undecided" if found["undecided"] else "pass"
    return Judgement(outcome, reasons)


class _Check(NamedTuple):
    """The mean of what lies apart should be at most `most`."""

    words: str
    requests: int
    apart: float
    most: float
    is_output: bool


def _output_checks(comparison: Comparison, limits: DivergenceLimits) -> list[_Check]:
    checks = []
    for output in comparison.per_output:
        if limits.outputs is not None and output.name not in limits.outputs:
            continue
        limit = limits.agreement if output.kind == "class" else limits.distance
        if limit is None or output.pairs == 0:
            continue
        low, high = output.interval
        span = f"{low:.4f} to {high:.4f}"
        if output.kind == "class":
            words = f"{output.name}: agreement {output.mean:.4f} ({span}), at least {limit:g} is asked for"
            checks.append(_Check(words, output.pairs, (1 - output.mean) * output.pairs, 1 - limit, True))
        else:
            words = f"{output.name}: mean distance {output.mean:.4f} ({span}), at most {limit:g} is asked for"
            checks.append(_Check(words, output.pairs, output.mean * output.pairs, limit, True))
    return checks


def _failure_check(comparison: Comparison, limits: DivergenceLimits) -> list[_Check]:
    if limits.failures is None:
        return []
    count = comparison.pairs + comparison.shadow_failed
    words = (
        f"failures: the shadow failed {comparison.shadow_failed} of {count} requests that the champion answered, "
        f"at most {limits.failures:g} is asked for"
    )
    return [_Check(words, count, float(comparison.shadow_failed), limits.failures, False)]


def _checked(check: _Check, alpha: float, checks: int) -> tuple[Outcome, str]:
    if float(log_e_above(check.apart, check.requests, check.most)) >= math.log(checks / alpha):
        return "fail", f"{check.words}: not kept"
    needed = math.log(1.0 / alpha)
    kept = check.requests - check.apart
    if float(log_e_above(kept, check.requests, 1.0 - check.most)) >= needed:
        return "pass", f"{check.words}: kept"
    return "undecided", f"{check.words}: not proven yet{_ahead(check, needed)}"


def _ahead(check: _Check, needed: float) -> str:
    """About how many more requests, should they go on as they were."""
    mean = check.apart / check.requests
    if mean >= check.most:
        return ""
    counts = np.unique(np.round(np.geomspace(check.requests, _MOST_AHEAD, 200)))
    enough = log_e_above(counts * (1 - mean), counts, 1.0 - check.most) >= needed
    return f", about {int(counts[np.argmax(enough)]) - check.requests} more requests" if enough.any() else ""


def differences(
    champion: Mapping[str, Output], shadow: Mapping[str, Output]
) -> dict[tuple[str, OutputKind], Difference]:
    """Every output of one request that either of them gave, by name and kind."""
    found = {}
    for name in (*champion, *(name for name in shadow if name not in champion)):
        one = difference(champion.get(name), shadow.get(name))
        found[name, one.kind] = one
    return found
