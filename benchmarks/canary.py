"""How good the canary analysis is, by simulation: false alarms, requests to detect, requests to promote.

Run as `python -m benchmarks.canary [--seed N] [--runs N] [--json FILE]`; the same seed gives the same figures.
Every rule looks at every window of 200 requests. The first runs of each scenario are also judged by
`podium.analysis.judge` itself, and the benchmark stops if it disagrees with the vectorised formulas.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from scipy import stats

from benchmarks import report
from benchmarks.canary_rules import (
    NEVER,
    Ints,
    Plan,
    Traffic,
    at_look,
    e_process,
    first,
    fixed_horizon,
    mann_whitney,
    promotion,
    tuned_threshold,
    two_sequences,
    z_score,
)
from podium.analysis import (
    AnalysisSettings,
    ArmCounts,
    Liveness,
    RateMetric,
    Window,
    judge,
    quantile_bounds,
)

ALPHA = 0.05
MARGIN = 0.01
GOAL = math.log(1 / ALPHA)
Row = dict[str, Any]


def upper_95(count: int, runs: int) -> float:
    """One-sided 95 % Clopper-Pearson bound on a probability."""
    return 1.0 if count >= runs else float(stats.beta.ppf(0.95, count + 1, runs - count))


def flat(name: str, share: float, rate: float, windows: int) -> Plan:
    """One share and one rate throughout, the same in both arms."""
    rates = np.full(windows, rate)
    return Plan(name, np.full(windows, share), rates, rates)


def plans() -> list[Plan]:
    """The rollouts of two equal revisions: steady, with ramps, with incidents that hit both arms, and with drift."""
    steady = flat("share 50 %", 0.5, 0.005, 100)
    small = flat("share 10 %", 0.1, 0.005, 100)
    steps = np.repeat([0.05, 0.25, 0.5, 0.75], 25)
    ramp = Plan("ramp 5-25-50-75 %", steps, steady.stable_rate, steady.stable_rate)
    outage = np.full(100, 0.005)
    outage[[*range(20, 30), *range(60, 65)]] = 0.3
    drift = np.geomspace(0.001, 0.05, 100)
    return [
        steady,
        small,
        ramp,
        Plan("share 10 %, shared incidents", small.rho, outage, outage),
        Plan("ramp, shared incidents", steps, outage, outage),
        Plan("ramp, errors rising 50-fold", steps, drift, drift),
    ]


def check_against_judge(traffic: Traffic, looks: Ints, runs: int = 2) -> None:
    """Stop the benchmark unless `judge` rolls back at the same windows as the vectorised E says."""
    settings = AnalysisSettings(
        alpha=ALPHA, error_rate=RateMetric(0, MARGIN), refusal_rate=None, min_requests=1
    )
    for run in range(runs):
        seen: list[Window] = []
        rolled_back = NEVER
        for look, rho in enumerate(traffic.plan.rho):
            arms = [
                ArmCounts(started=int(total[run, look]), total=int(total[run, look]), bad=int(bad[run, look]))
                for total, bad in (
                    (traffic.stable, traffic.stable_bad),
                    (traffic.candidate, traffic.candidate_bad),
                )
            ]
            seen.append(Window(look, look + 1, "g", float(rho), arms[0], arms[1]))
            verdict = judge(
                seen,
                settings,
                weight=100 * float(rho),
                step_complete=False,
                step_cap_reached=False,
                liveness=Liveness(1, 1),
            )
            if verdict.decision == "rollback":
                rolled_back = look
                break
        if rolled_back != looks[run]:
            raise RuntimeError(
                f"{traffic.plan.name}, run {run}: judge rolls back at {rolled_back}, not {looks[run]}"
            )


def false_rollbacks(seed: int, runs: int) -> list[Row]:
    """Two equal revisions, 100 looks: how often each rule rolls back."""
    rows: list[Row] = []
    for index, plan in enumerate(plans()):
        traffic = Traffic.simulate(plan, runs, np.random.default_rng([seed, 1, index]))
        looks = first(e_process(traffic) >= GOAL)
        check_against_judge(traffic, looks)
        rows.append(_share(plan.name, "e-process, alpha 0.05", looks))
        peeking = first(z_score(traffic) >= stats.norm.isf(ALPHA))
        rows.append(_share(plan.name, "z-test at 0.05, peeking", peeking))
        few = Traffic(plan, *(part[: min(runs, 2000)] for part in _parts(traffic)))
        rows.append(_share(plan.name, "Mann-Whitney at 0.98", first(mann_whitney(few) <= 0.02)))
        below = np.cumsum(traffic.candidate_bad > 0.01 * traffic.candidate, axis=1)
        rows.append(_share(plan.name, "below 99 % in 5 windows", first(below >= 5)))
    return rows


def _parts(traffic: Traffic) -> tuple[Ints, Ints, Ints, Ints]:
    """The four counts, in the order in which `Traffic` takes them."""
    return traffic.stable, traffic.candidate, traffic.stable_bad, traffic.candidate_bad


def _share(scenario: str, rule: str, looks: Ints) -> Row:
    """A row that says how often something that must not happen did."""
    count, runs = int(np.sum(looks != NEVER)), len(looks)
    return {
        "scenario": scenario,
        "rule": rule,
        "runs": runs,
        "rate": count / runs,
        "upper_95": upper_95(count, runs),
    }


def _slower(share: float) -> tuple[float, float]:
    """Rates above the stable p99 when log-normal latencies (sigma 0.5) become `share` slower."""
    return 0.01, float(stats.norm.sf(stats.norm.isf(0.01) - math.log(1 + share) / 0.5))


def detection(seed: int, runs: int) -> list[Row]:
    """A worse candidate: how soon each rule finds it, all tuned to the same false rollbacks over 200 windows."""
    rows: list[Row] = []
    base, slow = _slower(0.2)
    effects = (("errors 1 -> 2 %", 2.0), ("errors 1 -> 5 %", 5.0), ("p99 20 % worse", slow / base))
    for number, share in enumerate((0.5, 0.1)):
        plan = flat(f"share {share:.0%}", share, base, 200)
        same = Traffic.simulate(plan, runs, np.random.default_rng([seed, 2, number]))
        budget = float(np.mean(e_process(same).max(axis=1) >= GOAL))
        p_same = mann_whitney(same)
        p_limit = float(np.quantile(p_same.min(axis=1), budget, method="lower"))
        for index, (name, factor) in enumerate(effects):
            rng = np.random.default_rng([seed, 3, number, index])
            worse = Traffic.simulate(plan.worse(factor), runs, rng)
            label = f"{name}, {plan.name}"
            looks = first(e_process(worse) >= GOAL)
            check_against_judge(worse, looks, runs=1)
            rows.append(_found(label, "e-process, alpha 0.05", worse, looks, budget))
            words, looks, wrong = tuned_threshold(same, worse, budget)
            rows.append(_found(label, f"threshold tuned to this: {words}", worse, looks, wrong))
            p_worse = mann_whitney(worse)
            as_is = float(np.mean(p_same.min(axis=1) <= 0.02))
            rows.append(_found(label, "Mann-Whitney at 0.98, as is", worse, first(p_worse <= 0.02), as_is))
            matched = float(np.mean(p_same.min(axis=1) <= p_limit))
            rule = f"Mann-Whitney at {1 - p_limit:.3f}, matched"
            rows.append(_found(label, rule, worse, first(p_worse <= p_limit), matched))
            rows.append(_one_look(label, plan, factor, budget, rng, runs))
    return rows


def _found(scenario: str, rule: str, traffic: Traffic, looks: Ints, wrong: float) -> Row:
    """A row that says how soon a rule found a worse candidate."""
    requests = at_look(np.cumsum(traffic.candidate, axis=1), looks)
    bad = at_look(np.cumsum(traffic.candidate_bad, axis=1), looks)
    return {
        "scenario": scenario,
        "rule": rule,
        "runs": traffic.runs,
        "false_rollbacks": wrong,
        "found": float(np.mean(looks != NEVER)),
        "median_candidate_requests": _median(requests),
        "median_bad_requests": _median(bad),
    }


def _median(values: Any) -> float | None:
    """The median over all runs; None when half of them never got there."""
    middle = float(np.median(values))
    return middle if math.isfinite(middle) else None


def _one_look(
    scenario: str, plan: Plan, factor: float, budget: float, rng: np.random.Generator, runs: int
) -> Row:
    """The z-test with the one look that its size was planned for, which takes knowing the effect beforehand."""
    base, share = float(plan.stable_rate[0]), float(plan.rho[0])
    level = max(budget, 1e-4)
    needed = fixed_horizon(base, factor, share, level)
    limit = stats.norm.isf(level)
    wide = Plan(plan.name, plan.rho[:1], plan.stable_rate[:1], plan.stable_rate[:1], needed)
    wrong = float(np.mean(z_score(Traffic.simulate(wide, runs, rng))[:, -1] >= limit))
    traffic = Traffic.simulate(wide.worse(factor), runs, rng)
    looks = first(z_score(traffic) >= limit)
    row = _found(scenario, f"z-test, one look after {needed:,} requests", traffic, looks, wrong)
    # Whether it finds anything or not, this many have been served when it looks.
    return row | {
        "median_candidate_requests": float(np.median(traffic.candidate)),
        "median_bad_requests": float(np.median(traffic.candidate_bad)),
    }


def quantiles(seed: int, runs: int) -> list[Row]:
    """The p99 itself, 20 % worse: confidence sequences on histogram buckets 5 % apart, a look every 1,000 requests."""
    rows: list[Row] = []
    edges = np.exp(np.arange(2.0, 6.5, math.log(1.05)))
    runs = min(runs, 100)
    for index, slower in enumerate((0.0, 0.2, 0.5)):
        rng = np.random.default_rng([seed, 4, index])
        looks = np.full(runs, NEVER, dtype=np.int64)
        for run in range(runs):
            totals = [np.zeros(edges.size + 1, dtype=np.int64) for _ in range(2)]
            for look in range(60):
                for arm, scale in enumerate((1.0, 1 + slower)):
                    latencies = scale * rng.lognormal(3, 0.5, 500)
                    totals[arm] += np.bincount(np.searchsorted(edges, latencies), minlength=edges.size + 1)
                stable, candidate = (
                    quantile_bounds(
                        tuple(zip([*edges.tolist(), math.inf], np.cumsum(total).tolist(), strict=True)),
                        0.99,
                        ALPHA / 2,
                    )
                    for total in totals
                )
                if candidate.low_ms >= stable.high_ms:
                    looks[run] = look
                    break
        requests = np.where(looks == NEVER, np.inf, (looks + 1) * 500.0)
        rows.append(
            {
                "scenario": f"p99 {slower:.0%} worse, share 50%",
                "rule": "p99 by confidence sequences",
                "runs": runs,
                "found": float(np.mean(looks != NEVER)),
                "median_candidate_requests": _median(requests),
            }
        )
    return rows


def promotions(seed: int, runs: int) -> tuple[list[Row], list[Row]]:
    """Candidates exactly at the margin (never to be passed), and equal ones (to be passed soon)."""
    wrong: list[Row] = []
    for index, plan in enumerate(plans()):
        rng = np.random.default_rng([seed, 5, index])
        traffic = Traffic.simulate(plan.worse(extra=MARGIN), runs, rng)
        passed = first(promotion(traffic, MARGIN) >= GOAL)
        wrong.append(_share(plan.name, "bets on the margin, 1 point", passed))
    right: list[Row] = []
    few = max(runs // 10, 1)
    for share in (0.5, 0.1):
        for index, rate in enumerate((0.0, 0.001, 0.005, 0.02)):
            rng = np.random.default_rng([seed, 6, round(100 * share), index])
            traffic = Traffic.simulate(flat(f"share {share:.0%}", share, rate, 400), few, rng)
            scenario = f"errors {rate:.1%} in both arms, {traffic.plan.name}"
            rules = {
                "bets on the margin, 1 point": first(promotion(traffic, MARGIN) >= GOAL),
                "two confidence sequences": first(two_sequences(traffic, ALPHA) <= MARGIN),
            }
            for rule, looks in rules.items():
                right.append(
                    {
                        "scenario": scenario,
                        "rule": rule,
                        "runs": few,
                        "passed": float(np.mean(looks != NEVER)),
                        "median_candidate_requests": _median(
                            at_look(np.cumsum(traffic.candidate, axis=1), looks)
                        ),
                    }
                )
    return wrong, right


def main() -> None:
    """Run everything, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="same seed, same figures (default 1)")
    parser.add_argument(
        "--runs", type=int, default=10_000, help="simulated rollouts per scenario (default 10000)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: benchmarks/results/canary.json")
    options = parser.parse_args()
    if options.runs < 20:
        parser.error("--runs: at least 20, or the figures mean nothing")
    console, began = Console(), time.perf_counter()
    few = max(options.runs // 10, 20)
    sections: dict[str, list[Row]] = {}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("simulating", total=4)
        sections["False rollbacks: two equal revisions, 100 looks"] = false_rollbacks(
            options.seed, options.runs
        )
        progress.advance(task)
        sections["Requests to detect, at matched false rollbacks"] = detection(options.seed, few)
        progress.advance(task)
        sections["The p99 itself"] = quantiles(options.seed, few)
        progress.advance(task)
        wrong, right = promotions(options.seed, options.runs)
        sections["False promotions: a candidate exactly at the margin, 100 looks"] = wrong
        sections["Requests to promote an equal candidate"] = right
        progress.advance(task)
    for title, rows in sections.items():
        report.show(title, rows, console)
    settings = {"seed": options.seed, "runs": options.runs, "alpha": ALPHA}
    everything = [{"table": title, **settings, **row} for title, rows in sections.items() for row in rows]
    path = report.write("canary", everything, options.json)
    console.print(f"{time.perf_counter() - began:.0f} s on {report.cores()} cores; written to {path}")


if __name__ == "__main__":
    main()
