"""A rollout's evidence, judged by the spec's own words: what each setting under `rollout.analysis` comes to."""

import math
import statistics
from typing import Any

import pytest

from podium.analysis import ArmCounts, Buckets, Window
from podium.planning.looks import Look, Trial, analysis_settings, look_at, replay
from podium.resources.deployment import RolloutSettings
from podium.resources.kinds import KINDS, Rollout

TOTAL = 8000


def taking(median: float) -> Buckets:
    """A histogram of latencies around `median` milliseconds, in buckets of 5 %."""
    edges = [1.05**power for power in range(120)]
    spread = statistics.NormalDist(math.log(median), 0.3)
    return (*((edge, round(TOTAL * spread.cdf(math.log(edge)))) for edge in edges), (math.inf, TOTAL))


FAST, SLOW = taking(15.0), taking(24.0)


def rollout(analysis: dict[str, Any]) -> Rollout:
    strategy = {"type": "canary", "steps": [{"weight": 50, "requests": 1000}]}
    made: Rollout = KINDS["Rollout"].parse(
        {
            "metadata": {"name": "churn-2"},
            "spec": {
                "deployment": "churn", "deploymentUid": "u", "generation": 2, "stableRevision": "churn-00001",
                "candidateRevision": "churn-00002", "cause": "apply",
                "settings": {"strategy": strategy, "analysis": analysis},
            },
            "status": {"phase": "Progressing", "step": 0, "weight": 50},
        }
    )  # fmt: skip
    return made


def look(analysis: dict[str, Any], candidate: Buckets, **counts: int) -> Look:
    arms = [
        ArmCounts(started=TOTAL, total=TOTAL, latency_buckets=FAST),
        ArmCounts(started=TOTAL, total=TOTAL, latency_buckets=candidate, **counts),
    ]
    window = Window(0.0, 10.0, "g", 0.5, *arms)
    return look_at(rollout(analysis), Trial((window,), 1, 1), last=True, complete=True, capped=False)


def test_without_latency_settings_a_slow_candidate_is_not_judged_by_its_latency() -> None:
    assert look({}, SLOW).decision == "advance"


def test_a_higher_quantile_takes_the_candidate_back_in_the_quantiles_words() -> None:
    wish = {"latencyQuantile": {"quantile": 0.9, "relativeMargin": 0.2}}
    assert look(wish, FAST).decision == "advance"
    slow = look(wish, SLOW)
    assert slow.decision == "rollback"
    assert "p90" in slow.reason
    assert replay(slow.evidence or {}) == slow
    assert look({"latencyQuantile": {"quantile": 0.9, "enabled": False}}, SLOW).decision == "advance"
    assert look({"enabled": False, **wish}, SLOW).decision == "advance"


@pytest.mark.parametrize(
    ("limit", "decision"),
    [
        ({"metric": "p95", "maxLatency": "30ms"}, "rollback"),
        ({"metric": "p95", "maxLatency": "60ms"}, "advance"),
        ({"metric": "p50", "maxLatency": "30ms"}, "advance"),
        ({"metric": "errorRate", "max": 0.001}, "rollback"),
        ({"metric": "errorRate", "max": 0.01}, "advance"),
        ({"metric": "errorRate", "max": 0.001, "minRequests": 9000}, "continue"),
    ],
)
def test_a_plain_limit_is_kept_by_the_candidate_alone(limit: dict[str, Any], decision: str) -> None:
    assert look({"enabled": False, "thresholds": [limit]}, SLOW, bad=40).decision == decision


def test_durations_reach_the_analysis_in_milliseconds() -> None:
    wish = RolloutSettings.model_validate(
        {
            "analysis": {
                "latency": {"threshold": "0.25s"},
                "thresholds": [{"metric": "p99", "maxLatency": "2s"}],
            }
        }
    )
    settings = analysis_settings(wish, None)
    assert settings.latency is not None
    assert settings.latency.threshold_ms == 250
    assert [(limit.metric, limit.max) for limit in settings.thresholds] == [("p99_ms", 2000)]
