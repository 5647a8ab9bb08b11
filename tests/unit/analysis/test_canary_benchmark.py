"""The benchmark of the analysis: its figures repeat, and its rules do what they say."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import canary, report
from benchmarks.canary_rules import NEVER, Traffic, e_process, first, mann_whitney, tuned_threshold, z_score


def small(runs: int = 6, factor: float = 1.0, windows: int = 30, seed: int = 1) -> Traffic:
    plan = canary.flat("share 50 %", 0.5, 0.02, windows).worse(factor)
    return Traffic.simulate(plan, runs, np.random.default_rng(seed))


def test_the_same_seed_gives_the_same_figures() -> None:
    assert canary.promotions(3, 20) == canary.promotions(3, 20)
    assert canary.promotions(3, 20) != canary.promotions(4, 20)


def test_a_formula_that_disagrees_with_the_product_stops_the_benchmark() -> None:
    traffic = small(factor=5.0)
    looks = first(e_process(traffic) >= canary.GOAL)
    assert (looks != NEVER).all()
    canary.check_against_judge(traffic, looks)
    with pytest.raises(RuntimeError, match="judge rolls back at"):
        canary.check_against_judge(traffic, looks + 1)


def test_mann_whitney_is_scipys() -> None:
    traffic = small()
    p_values = mann_whitney(traffic)
    for run in range(traffic.runs):
        for look in (4, 11, 29):
            stable = (traffic.stable_bad / traffic.stable)[run, : look + 1]
            candidate = (traffic.candidate_bad / traffic.candidate)[run, : look + 1]
            known = stats.mannwhitneyu(candidate, stable, alternative="greater", method="asymptotic").pvalue
            assert p_values[run, look] == pytest.approx(known, rel=1e-9)


def test_the_z_score_is_the_pooled_one() -> None:
    traffic = small(runs=1, windows=1)
    counts = [traffic.candidate_bad, traffic.candidate, traffic.stable_bad, traffic.stable]
    bad, total, other_bad, other_total = (int(part[0, 0]) for part in counts)
    table = [[bad, total - bad], [other_bad, other_total - other_bad]]
    chi_squared = stats.chi2_contingency(table, correction=False).statistic
    assert z_score(traffic)[0, 0] ** 2 == pytest.approx(chi_squared)


def test_the_tuned_threshold_keeps_its_budget() -> None:
    same, worse = small(runs=400), small(runs=400, factor=4.0, seed=2)
    words, looks, wrong = tuned_threshold(same, worse, 0.05)
    assert wrong <= 0.05 and "windows" in words
    assert np.mean(looks != NEVER) > 0.9


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    path = report.write("canary", [{"rule": "e-process", "rate": 0.02}], tmp_path / "deep" / "out.json")
    stored = json.loads(path.read_text())
    assert stored["rows"] == [{"rule": "e-process", "rate": 0.02}]
    assert stored["environment"]["cores"] >= 1 and "numpy" in stored["environment"]["versions"]
    assert [item.name for item in path.parent.iterdir()] == ["out.json"]
    with pytest.raises(ValueError, match="Out of range"):
        report.write("canary", [{"rate": float("inf")}], path)
    assert json.loads(path.read_text()) == stored
