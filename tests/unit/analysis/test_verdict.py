"""The verdict: every way that a canary analysis goes wrong, and what this one says then."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.analysis import (
    AnalysisSettings,
    ArmCounts,
    Evidence,
    Finding,
    LatencyMetric,
    Liveness,
    PlainThreshold,
    QuantileMetric,
    RateMetric,
    Verdict,
    Window,
    compact,
    judge,
    judge_evidence,
    replay,
)

ALIVE = Liveness(ready=1, wanted=1)
ERRORS_ONLY = AnalysisSettings(refusal_rate=None)


def arm(total: int, **more: Any) -> ArmCounts:
    return ArmCounts(started=total, total=total, **more)


def window(rho: float, stable: ArmCounts, candidate: ArmCounts, at: float = 0.0, **more: Any) -> Window:
    return Window(at, at + 1, "g", rho, stable, candidate, **more)


def look(*windows: Window, using: AnalysisSettings = ERRORS_ONLY, weight: float = 50, **more: Any) -> Verdict:
    asked: dict[str, Any] = {"step_complete": True, "step_cap_reached": False, "liveness": ALIVE} | more
    return judge(windows, using, weight=weight, **asked)


def found(verdict: Verdict, metric: str) -> Finding:
    return next(finding for finding in verdict.findings if finding.metric == metric)


# --- the four decisions ----------------------------------------------------------------------------------------


def test_a_candidate_that_is_as_good_is_promoted_when_its_step_is_over() -> None:
    good = window(0.5, arm(2000, bad=10), arm(2000, bad=10))
    assert look(good).decision == "promote"
    early = look(good, step_complete=False)
    assert (early.decision, early.reason.endswith("the step isn't over")) == ("continue", True)
    assert found(look(good), "error_rate").state == "within"


def test_a_worse_candidate_is_rolled_back_with_its_figures_in_the_reason() -> None:
    verdict = look(window(0.1, arm(1890, bad=5), arm(210, bad=14)), weight=10)
    assert verdict.decision == "rollback"
    assert "error rate: 14 of 210 candidate requests failed, against 5 of 1,890" in verdict.reason
    finding = found(verdict, "error_rate")
    assert finding.e_value is not None and finding.e_value > 20 == finding.e_needed


def test_no_error_at_all_is_not_enough_for_promotion() -> None:
    verdict = look(window(0.5, arm(150), arm(150)))
    assert verdict.decision == "continue"
    assert verdict.more_requests is not None and 100 < verdict.more_requests < 600
    assert "more candidate requests are needed" in verdict.reason
    enough = 150 + verdict.more_requests
    assert look(window(0.5, arm(enough), arm(enough))).decision == "promote"


def test_a_candidate_at_its_margin_is_not_promoted_but_a_wider_margin_would() -> None:
    counts = window(0.5, arm(20_000, bad=2000), arm(20_000, bad=2120))
    tight = replace(ERRORS_ONLY, error_rate=RateMetric(relative_margin=0.5, absolute_margin=0.005))
    verdict = look(counts, using=tight)
    assert verdict.decision == "continue" and verdict.more_requests is None
    assert "no number of requests" in verdict.reason
    wide = replace(ERRORS_ONLY, error_rate=RateMetric(relative_margin=0.5, absolute_margin=0.02))
    assert look(counts, using=wide).decision == "promote"


@pytest.mark.parametrize("choice", ["hold", "promote", "rollback"])
def test_at_the_cap_without_an_answer_the_settings_decide(choice: Any) -> None:
    using = replace(ERRORS_ONLY, on_inconclusive=choice)
    verdict = look(window(0.5, arm(150), arm(150)), using=using, step_cap_reached=True)
    assert (verdict.decision, verdict.inconclusive) == (choice, True)
    assert verdict.reason.startswith(f"inconclusive at the step's cap, so {choice}")
    assert verdict.more_requests is not None


def test_all_requests_of_the_rollout_count_but_each_step_needs_its_own() -> None:
    first = window(0.1, arm(36_000, bad=40), arm(4000, bad=4))
    assert look(first, window(0.5, arm(90), arm(90), at=1)).reason.startswith(
        "90 of the 100 candidate requests"
    )
    assert look(first, window(0.5, arm(120), arm(120), at=1)).decision == "promote"


# --- ways it goes wrong ----------------------------------------------------------------------------------------


def test_too_few_samples_are_named() -> None:
    verdict = look(window(0.5, arm(200), arm(200, bad=4)))
    assert verdict.decision == "continue"
    words = found(verdict, "error_rate").words
    assert "with a share of 0.5 and alpha 0.05 at least 5 candidate errors are needed" in words
    assert found(verdict, "error_rate").fewest_errors == 5
    # Four are impossible for any test; this one rolls back on as many as it says itself.
    own = int(words.split("any test may roll back (")[1].split()[0])
    assert look(window(0.5, arm(200), arm(200, bad=own - 1))).decision == "continue"
    assert look(window(0.5, arm(200), arm(200, bad=own))).decision == "rollback"


def test_sticky_users_are_judged_by_thresholds_only() -> None:
    terrible = window(0.5, arm(5000), arm(5000, bad=900))
    sticky = replace(ERRORS_ONLY, assignment="user")
    verdict = look(terrible, using=sticky)
    assert verdict.decision == "continue" and "users, not requests" in verdict.reason
    assert found(verdict, "error_rate").state == "off"
    assert look(terrible, using=sticky, step_cap_reached=True).decision == "hold"
    limited = replace(sticky, thresholds=(PlainThreshold("error_rate", 0.05),))
    assert look(terrible, using=limited).decision == "rollback"
    fine = window(0.5, arm(5000), arm(5000, bad=9))
    assert look(fine, using=limited).decision == "promote"


def test_a_sample_ratio_mismatch_holds_whatever_the_errors_say() -> None:
    more = window(0.1, arm(7000, bad=10), arm(3000, bad=30))
    verdict = look(more, weight=10, step_cap_reached=True)
    assert verdict.decision == "hold"
    assert "the candidate got 3,000 of 10,000 requests where 1,000 were expected" in verdict.reason
    assert found(verdict, "sample_ratio").state == "worse"


def test_with_too_few_requests_and_too_many_errors_worse_is_still_proven() -> None:
    fewer = window(0.5, arm(9000, bad=10), arm(1000, bad=60))
    assert look(fewer).decision == "rollback"
    assert look(window(0.5, arm(9000, bad=10), arm(1000, bad=1))).decision == "hold"


def test_requests_drawn_under_two_shares_count_against_the_candidate_only() -> None:
    mixed = window(0.5, arm(4000, bad=20), arm(500, bad=0), exact=False)
    verdict = look(mixed)
    assert verdict.decision == "continue"  # no promotion, and no mismatch either
    ratio = found(verdict, "sample_ratio")
    assert (ratio.state, ratio.words) == ("off", "no request was counted on either side")
    assert look(window(0.5, arm(4000, bad=2), arm(500, bad=30), exact=False)).decision == "rollback"


def test_a_dead_candidate_does_not_wait_for_statistics() -> None:
    verdict = look(liveness=Liveness(0, 2, "exit code 137"), step_complete=False)
    assert verdict.decision == "rollback"
    assert "none of the candidate's 2 replicas is ready (exit code 137)" in verdict.reason
    refused = window(0.1, arm(90), arm(10, bad=10, connect_failures=30), incident=0.0)
    verdict = look(refused, weight=10, step_complete=False)
    assert verdict.decision == "rollback"
    assert "10 of 10 candidate requests found no connection" in verdict.reason


def test_one_replica_killed_rolls_nothing_back() -> None:
    # Recorded from Envoy with one of two replicas dead: every second request needs a retry, all succeed.
    hurt = ArmCounts(started=100, total=100, bad=56, saved=56, connect_failures=56)
    for weight in (1, 10, 50):
        rho = weight / 100
        kept = [window(rho, arm(round(100 / rho) - 100, bad=1), hurt, at, incident=0.0) for at in range(5)]
        verdict = look(*kept, weight=weight, step_complete=False)
        assert verdict.decision == "continue"
        assert (
            found(verdict, "error_rate").candidate_events == 0
        )  # one bet on the incident, none on its requests
    # The same as ordinary errors would do it at once.
    assert look(window(0.1, arm(900, bad=1), hurt), weight=10).decision == "rollback"


def test_replicas_that_keep_dying_do() -> None:
    def deaths(count: int, whose: str) -> Verdict:
        failing, whole = arm(50, connect_failures=3), arm(450)
        arms = (whole, failing) if whose == "candidate" else (failing, whole)
        return look(*(window(0.1, *arms, at=60 * i, incident=60.0 * i) for i in range(count)), weight=10)

    assert [deaths(n, "candidate").decision for n in (1, 4, 6, 7)] == ["hold", "hold", "hold", "rollback"]
    assert deaths(30, "stable").decision == "hold"  # no other requests: silence


def test_an_incident_on_both_sides_or_on_two_gateways_is_one_or_none() -> None:
    both = [
        window(0.1, arm(50, connect_failures=3), arm(50, connect_failures=3), 60 * i, incident=60.0 * i)
        for i in range(30)
    ]
    assert found(look(*both, weight=10), "error_rate").e_value == 1.0
    seen = window(0.1, arm(50), arm(50, connect_failures=3), incident=100.0)
    again = replace(seen, gateway="h", incident=103.0)
    once, twice = (found(look(*w, weight=10), "error_rate").e_value for w in ([seen], [seen, again]))
    assert once == twice != 1.0


def test_silence_is_never_passed() -> None:
    using = replace(ERRORS_ONLY, on_inconclusive="promote")
    assert look(using=using, step_complete=False).decision == "continue"
    for more in ({}, {"step_cap_reached": True}):
        verdict = look(using=using, **more)
        assert verdict.decision == "hold" and "no requests reached the candidate" in verdict.reason
    earlier = window(0.1, arm(36_000), arm(4000))
    assert look(earlier, using=using, weight=50).decision == "hold"


def test_clients_that_give_up_are_failures_and_slow_ones() -> None:
    impatient = window(0.5, arm(500), arm(500, gave_up=20))
    verdict = look(impatient)
    assert verdict.decision == "rollback" and "20 of 500 candidate requests failed" in verdict.reason
    slow_only = AnalysisSettings(error_rate=None, refusal_rate=None, latency=LatencyMetric(100))
    assert look(impatient, using=slow_only).reason.startswith("rolled back on slow rate")


def test_refusals_are_a_metric_of_their_own() -> None:
    changed = window(0.5, arm(500, refused=3), arm(500, refused=40))
    assert look(changed).decision == "promote"  # refusals are switched off there
    verdict = look(changed, using=AnalysisSettings())
    assert verdict.reason.startswith(
        "rolled back on refusal rate: 40 of 500 candidate requests were refused (4xx)"
    )


def test_a_shared_incident_hurts_nobody() -> None:
    calm = [window(0.1, arm(180, bad=1), arm(20), at=i) for i in range(200)]
    outage = [window(0.1, arm(180, bad=90), arm(20, bad=10), at=200 + i) for i in range(20)]
    verdict = look(*calm, *outage, weight=10)
    assert verdict.decision != "rollback"
    e_value = found(verdict, "error_rate").e_value
    assert e_value is not None and e_value < 1


def test_alpha_is_split_over_the_metrics() -> None:
    counts = window(0.5, arm(500, bad=2), arm(500, bad=14))
    assert look(counts).decision == "rollback"
    using = AnalysisSettings(latency=LatencyMetric(100), quantile=QuantileMetric())
    verdict = look(counts, using=using)
    assert verdict.decision == "continue"
    assert found(verdict, "error_rate").e_needed == 80


def test_a_tolerated_relative_margin_tolerates() -> None:
    counts = window(0.5, arm(5000, bad=100), arm(5000, bad=160))
    assert look(counts).decision == "rollback"
    lenient = replace(ERRORS_ONLY, error_rate=RateMetric(relative_margin=1.0, absolute_margin=0.05))
    assert look(counts, using=lenient).decision == "promote"


# --- latency quantiles, limits, weight 100 -----------------------------------------------------------------------


def timed(scale: float, seed: int, count: int = 6000) -> ArmCounts:
    latencies = np.sort(scale * np.random.default_rng(seed).lognormal(3, 0.4, count))
    edges = [float(edge) for edge in np.geomspace(5, 500, 100)]
    below = np.searchsorted(latencies, edges, side="right")
    buckets = (*((edge, int(n)) for edge, n in zip(edges, below, strict=True)), (math.inf, count))
    return arm(count, latency_buckets=buckets)


def test_a_quantile_is_compared_by_its_bounds() -> None:
    using = AnalysisSettings(error_rate=None, refusal_rate=None, quantile=QuantileMetric(0.9, 0.2))
    slow = look(window(0.5, timed(1, 1), timed(1.6, 2)), using=using)
    assert slow.decision == "rollback" and slow.reason.startswith(
        "rolled back on p90 ms: the candidate's p90 is"
    )
    same = look(window(0.5, timed(1, 1), timed(1, 2)), using=using)
    assert same.decision == "promote"
    assert look(window(0.5, timed(1, 1), timed(1.2, 2)), using=using).decision == "continue"
    # The first of two shares gets half of alpha, the second a sixth.
    steps = window(0.1, timed(1, 1), timed(1, 2, 700)), window(0.5, timed(1, 3), timed(1.6, 4), 1)
    assert look(*steps, using=using).decision == "rollback"


def test_plain_limits_judge_without_statistics() -> None:
    limits = (PlainThreshold("error_rate", 0.02, min_requests=50), PlainThreshold("p95_ms", 60.0))
    using = AnalysisSettings(error_rate=None, refusal_rate=None, thresholds=limits)
    verdict = look(window(0.5, arm(60), arm(60, bad=2)), using=using)
    assert (
        verdict.decision == "rollback" and "error_rate is 0.03333, over its limit of 0.02" in verdict.reason
    )
    waiting = look(window(0.5, arm(49), arm(49, bad=40)), using=using)
    assert waiting.decision == "continue" and waiting.more_requests == 51
    assert look(window(0.5, timed(1, 1), timed(1, 2)), using=using).decision == "promote"
    assert look(window(0.5, timed(1, 1), timed(2, 2)), using=using).reason.startswith(
        "rolled back on limit:p95 ms"
    )
    blind = look(window(0.5, arm(600), arm(600)), using=using)
    assert blind.decision == "continue" and "no latency buckets were kept" in blind.reason
    unknown = replace(using, thresholds=(PlainThreshold("slow_rate", 0.5),))
    verdict = look(window(0.5, arm(600), arm(600, slow=500)), using=unknown, step_cap_reached=True)
    assert verdict.decision == "hold" and "no latency threshold says what slow is" in verdict.reason
    known = replace(unknown, latency=LatencyMetric(50, compared=False))
    assert look(window(0.5, arm(600), arm(600, slow=500)), using=known).decision == "rollback"


def test_at_weight_100_only_liveness_and_limits_judge() -> None:
    terrible = window(1.0, arm(0), arm(900, bad=300))
    earlier = window(0.5, arm(900), arm(900, bad=300), at=-9)
    verdict = look(terrible, earlier, weight=100)
    assert verdict.decision == "promote"
    assert [finding.metric for finding in verdict.findings] == ["liveness"]
    assert look(terrible, weight=100, liveness=Liveness(0, 1)).decision == "rollback"
    limited = replace(ERRORS_ONLY, thresholds=(PlainThreshold("error_rate", 0.1),))
    assert look(terrible, weight=100, using=limited).decision == "rollback"
    assert look(weight=100, using=limited).decision == "hold"


def test_a_weight_out_of_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="weight: must be a percentage"):
        look(weight=101)


# --- stored, merged, replayed ------------------------------------------------------------------------------------

counts = st.builds(
    lambda started, total, bad, refused, slow, gave_up, failures: ArmCounts(
        started, total, bad, min(bad, 1), gave_up, refused, slow, failures
    ),
    *(st.integers(0, 300) for _ in range(2)),
    *(st.integers(0, 12) for _ in range(5)),
)
many_windows = st.lists(
    st.builds(
        Window,
        start=st.integers(0, 200).map(float),
        end=st.just(300.0),
        gateway=st.sampled_from("gh"),
        rho=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        stable=counts,
        candidate=counts,
        exact=st.booleans(),
        incident=st.sampled_from([None, None, 10.0, 20.0, 90.0]),
    ),
    max_size=12,
)


@given(windows=many_windows, weight=st.sampled_from([0, 10, 50, 100]), flags=st.tuples(*[st.booleans()] * 2))
@settings(max_examples=60, deadline=None)
def test_merging_and_order_change_nothing_and_a_replay_is_the_same(
    windows: list[Window], weight: float, flags: tuple[bool, bool]
) -> None:
    using = AnalysisSettings(latency=LatencyMetric(50), thresholds=(PlainThreshold("slow_rate", 0.2),))
    evidence = Evidence(tuple(windows), using, weight, *flags, Liveness(1, 2, "one is starting"))
    verdict = judge_evidence(evidence)
    assert judge_evidence(replace(evidence, windows=tuple(reversed(windows)))) == verdict
    assert judge_evidence(replace(evidence, windows=tuple(compact(windows)))) == verdict
    half = [*compact(windows[: len(windows) // 2]), *windows[len(windows) // 2 :]]
    assert judge_evidence(replace(evidence, windows=tuple(half))) == verdict
    stored = json.dumps(evidence.to_dict())
    assert Evidence.from_dict(json.loads(stored)) == evidence
    assert json.dumps(replay(json.loads(stored)).to_dict()) == json.dumps(verdict.to_dict())
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict


def test_evidence_of_another_format_is_refused() -> None:
    evidence = Evidence((), AnalysisSettings(), 10, False, False, ALIVE).to_dict()
    with pytest.raises(ValueError, match="format 1, not 2"):
        replay({**evidence, "format": 2})
    del evidence["liveness"]
    with pytest.raises(ValueError, match="liveness missing"):
        replay(evidence)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rho": 1.5}, "rho: must be a share"),
        ({"end": -1.0}, "can't end"),
        ({"stable": {"bad": -1}}, "counts.bad: must be a count"),
        ({"stable": {"bads": 1}}, "unknown field 'bads'"),
        ({"sharp": True}, "unknown \\['sharp'\\]"),
    ],
)
def test_a_broken_window_is_named(change: dict[str, Any], words: str) -> None:
    good = window(0.5, arm(1), arm(1)).to_dict()
    with pytest.raises(ValueError, match=words):
        Window.from_dict({**good, **change})
