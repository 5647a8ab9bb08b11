"""How far two answers lie apart, what is proven about it, and who keeps the limits."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.analysis.answers import Output, ValueKind
from podium.analysis.bets import log_e_above
from podium.analysis.divergence import bounds, compared, difference, differences, judge
from podium.resources.comparison import Comparison, DivergenceLimits, OutputComparison, OutputKind

FLOATS = st.floats(width=32) | st.floats(allow_nan=True, allow_infinity=False)
ALPHA = 0.05


def floats(*values: float | None, shape: tuple[int, ...] | None = None) -> Output:
    return Output("float", shape or (len(values),), values)


def of(kind: ValueKind, *values: Any) -> Output:
    return Output(kind, (len(values),), values)


@pytest.mark.parametrize(
    ("champion", "shadow", "kind", "apart", "mismatched"),
    [
        (of("text", "a", "b"), of("text", "a", "c"), "class", 0.5, False),
        (of("integer", 1, 2, 3, 4), of("integer", 1, 2, 3, 5), "class", 0.25, False),
        (of("boolean", True), of("integer", 1), "class", 0.0, False),
        (of("text", None), of("text", None), "class", 0.0, False),
        (of("text", "1"), of("integer", 1), "class", 1.0, True),
        (of("text", "1"), floats(1.0), "class", 1.0, True),
        (of("integer", 1, 0), floats(1.0, 0.0), "number", 0.0, False),
        (floats(1.0), floats(3.0), "number", 0.5, False),
        (floats(100.0), floats(110.0), "number", 10 / 210, False),
        (floats(0.0), floats(0.0), "number", 0.0, False),
        (floats(0.001), floats(-0.001), "number", 1.0, False),
        (floats(math.nan), floats(math.nan), "number", 0.0, False),
        (floats(math.nan, 1.0), floats(1.0, 1.0), "number", 0.5, False),
        (floats(1e308, 1e308), floats(1e308, -1e308), "number", 0.5, False),
        (floats(1.0), floats(1.0, 1.0), "number", 1.0, True),
        (floats(1.0, shape=(1, 1)), floats(1.0), "number", 1.0, True),
        (floats(), floats(), "number", 0.0, False),
        (floats(1.0), None, "number", 1.0, True),
        (None, of("text", "a"), "class", 1.0, True),
    ],
)
def test_differences_by_hand(
    champion: Output | None, shadow: Output | None, kind: str, apart: float, mismatched: bool
) -> None:
    found = difference(champion, shadow)
    assert (found.kind, found.mismatched) == (kind, mismatched)
    assert found.apart == pytest.approx(apart)


def test_class_probabilities_have_their_total_variation_distance() -> None:
    random = np.random.default_rng(3)
    one, other = random.dirichlet(np.ones(5), size=(2, 7))
    mine = floats(*one.ravel().tolist(), shape=(7, 5))
    theirs = floats(*other.ravel().tolist(), shape=(7, 5))
    expected = np.abs(one - other).sum(axis=1).mean() / 2
    assert difference(mine, theirs).apart == pytest.approx(expected)


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=20), st.floats(1e-6, 1e6))
def test_a_distance_is_one(pairs: list[tuple[float, float]], scale: float) -> None:
    one, other = floats(*(a for a, _ in pairs)), floats(*(b for _, b in pairs))
    apart = difference(one, other).apart
    assert 0.0 <= apart <= 1.0
    assert difference(other, one).apart == pytest.approx(apart)
    assert difference(one, one).apart == 0.0
    values = [value for pair in pairs for value in pair]
    if all(not math.isfinite(value) or 1e-30 < abs(value) < 1e30 or value == 0 for value in values):
        larger = [floats(*(value * scale for value in output.values)) for output in (one, other)]  # type: ignore[operator]
        assert difference(*larger).apart == pytest.approx(apart, abs=1e-6)


def test_an_output_that_only_one_gives_counts() -> None:
    found = differences({"a": floats(1.0), "b": of("text", "x")}, {"a": floats(1.0), "c": floats(2.0)})
    assert {key: one.apart for key, one in found.items()} == {
        ("a", "number"): 0.0,
        ("b", "class"): 1.0,
        ("c", "number"): 1.0,
    }


# --- what is proven ---------------------------------------------------------------------------------------------------


def draws(shape: str, mean: float, random: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    if shape == "all or nothing":
        return (random.random(count) < mean).astype(float)
    if shape == "spread":
        return random.beta(20 * mean, 20 * (1 - mean), count)
    often = max(0.25, mean)
    return random.choice([0.0, mean / often], count, p=[1 - often, often])


@pytest.mark.parametrize("shape", ["all or nothing", "spread", "a quarter"])
@pytest.mark.parametrize("mean", [0.01, 0.05, 0.25, 0.5, 0.95])
def test_the_true_mean_is_refuted_in_few_runs_however_often_one_looks(shape: str, mean: float) -> None:
    """400 runs, looks all along: more than 35 at 5 % would come by chance once in a thousand times."""
    random = np.random.default_rng(11)
    counts = np.unique(np.geomspace(1, 2000, 60).astype(int))
    totals = np.array([draws(shape, mean, random, 2000).cumsum()[counts - 1] for _ in range(400)])
    needed = math.log(2 / ALPHA)
    above = log_e_above(totals, counts, mean).max(axis=1) >= needed
    below = log_e_above(counts - totals, counts, 1 - mean).max(axis=1) >= needed
    assert (above | below).sum() <= 35


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0.001, 0.999))
def test_the_interval_is_what_is_not_refuted(count: int, share: float, mean: float) -> None:
    total, needed = share * count, math.log(2 / ALPHA)
    low, high = bounds(total, count, ALPHA)
    refuted = (
        float(log_e_above(total, count, mean)) >= needed
        or float(log_e_above(count - total, count, 1 - mean)) >= needed
    )
    assert (low - 1e-6 <= mean <= high + 1e-6) or refuted
    assert not (low + 1e-6 < mean < high - 1e-6 and refuted)


def test_the_interval_closes_in() -> None:
    widths = []
    for count in (10, 100, 1000, 10_000):
        low, high = bounds(0.1 * count, count, ALPHA)
        assert low < 0.1 < high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.03
    assert bounds(0.0, 0, ALPHA) == (0.0, 1.0)


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0.001, 0.4))
def test_the_interval_is_one_for_any_sums(count: int, share: float, alpha: float) -> None:
    total = share * count
    low, high = bounds(total, count, alpha)
    assert 0.0 <= low <= total / count <= high <= 1.0
    mirrored = bounds(count - total, count, alpha)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)


# --- who keeps the limits ---------------------------------------------------------------------------------------------


def comparison(pairs: int, *outputs: tuple[str, OutputKind, float], **more: Any) -> Comparison:
    """`outputs`: name, kind, and mean of what lies apart."""
    per_output = [compared(name, kind, (pairs, apart * pairs, 0), ALPHA) for name, kind, apart in outputs]
    return Comparison(workspace="w", champion="a-1", shadow="a-2", pairs=pairs, per_output=per_output, **more)


LIMITS = DivergenceLimits(agreement=0.95, distance=0.05)


@pytest.mark.parametrize(
    ("found", "limits", "outcome", "words"),
    [
        (comparison(0), LIMITS, "undecided", "0 requests were answered by both, 100 are needed"),
        (comparison(0, message="why"), LIMITS, "undecided", "(why)"),
        (comparison(99, ("y", "class", 0.0)), LIMITS, "undecided", "99 requests"),
        (comparison(1000, ("y", "class", 0.01)), LIMITS, "pass", "y: agreement 0.9900"),
        (comparison(1000, ("y", "class", 0.1)), LIMITS, "fail", "not kept"),
        (comparison(1000, ("y", "class", 0.04)), LIMITS, "undecided", "about"),
        (comparison(1000, ("y", "class", 0.055)), LIMITS, "undecided", "not proven yet"),
        (comparison(1000, ("y", "number", 0.01)), LIMITS, "pass", "y: mean distance 0.0100"),
        (comparison(1000, ("y", "number", 0.2)), LIMITS, "fail", "not kept"),
        (comparison(1000, ("y", "class", 0.0), ("z", "number", 0.2)), LIMITS, "fail", "z: mean distance"),
        (
            comparison(1000, ("y", "class", 0.0), ("z", "number", 0.04)),
            LIMITS,
            "undecided",
            "z: mean distance",
        ),
        (comparison(1000, ("y", "class", 0.0), shadow_failed=200), LIMITS, "fail", "failed 200 of 1200"),
        (comparison(1000, ("y", "class", 0.0), shadow_failed=15), LIMITS, "undecided", "failed 15"),
        (
            comparison(1000, ("y", "class", 0.0), shadow_failed=200),
            LIMITS.model_copy(update={"failures": None}),
            "pass",
            "kept",
        ),
        (
            comparison(1000, ("y", "class", 0.0), ("z", "number", 0.9)),
            LIMITS.model_copy(update={"outputs": ["y"]}),
            "pass",
            "y:",
        ),
        (
            comparison(1000, ("y", "class", 0.0)),
            LIMITS.model_copy(update={"outputs": ["y", "z"]}),
            "undecided",
            "z: neither gives such an output; given are y",
        ),
        (
            comparison(1000, ("y", "number", 0.0)),
            LIMITS.model_copy(update={"distance": None}),
            "undecided",
            "no output",
        ),
        (comparison(1000), LIMITS, "undecided", "no output"),
    ],
)
def test_judgements(found: Comparison, limits: DivergenceLimits, outcome: str, words: str) -> None:
    judged = judge(found, limits)
    assert judged.outcome == outcome, judged.reason
    assert words in judged.reason
    assert judge(found, limits) == judged


def test_the_reason_for_the_outcome_comes_first() -> None:
    found = comparison(1000, ("a", "class", 0.0), ("b", "class", 0.04), ("c", "class", 0.5))
    assert [words[0] for words in judge(found, LIMITS).reasons[:3]] == ["c", "b", "a"]


def test_so_many_more_requests_are_enough() -> None:
    found = comparison(200, ("y", "class", 0.02))
    words = judge(found, LIMITS.model_copy(update={"failures": None})).reason
    more = int(words.partition("about ")[2].split()[0])
    assert (
        judge(
            comparison(200 + more, ("y", "class", 0.02)), LIMITS.model_copy(update={"failures": None})
        ).outcome
        == "pass"
    )
    few = 200 + more // 2
    assert (
        judge(comparison(few, ("y", "class", 0.02)), LIMITS.model_copy(update={"failures": None})).outcome
        == "undecided"
    )


@pytest.mark.parametrize(("apart", "wrong"), [(0.05, "pass"), (0.06, "pass"), (0.05, "fail"), (0.04, "fail")])
def test_wrong_judgements_are_rare_however_often_one_looks(apart: float, wrong: str) -> None:
    """At the limit and beyond it 5 % of runs pass at most, over all looks; at it and within 5 % fail at most."""
    random = np.random.default_rng(5)
    limits = DivergenceLimits(agreement=0.95, failures=None, min_pairs=1)
    looks = np.unique(np.geomspace(5, 3000, 12).astype(int))
    bad = 0
    for _ in range(60):
        totals = (random.random(3000) < apart).cumsum()
        bad += any(
            judge(looked_at(int(count), int(totals[count - 1])), limits).outcome == wrong for count in looks
        )
    assert bad <= 9


def looked_at(count: int, apart: int) -> Comparison:
    output = OutputComparison(
        name="y", kind="class", pairs=count, agreement=1 - apart / count, interval=(0.0, 1.0), alpha=ALPHA
    )
    return Comparison(workspace="w", champion="a-1", shadow="a-2", pairs=count, per_output=[output])


def test_limits_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="expected agreement, distance or both"):
        DivergenceLimits(agreement=None, distance=None)
    with pytest.raises(ValueError, match="each output once"):
        DivergenceLimits(outputs=["y", "y"])
