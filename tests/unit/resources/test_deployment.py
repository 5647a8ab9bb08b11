"""What a Deployment's spec refuses, and in which words."""

from typing import Any

import pytest
from pydantic import ValidationError

from podium.resources.deployment import DeploymentSpec
from podium.resources.issues import issues_of


def problems(**spec: Any) -> list[str]:
    try:
        DeploymentSpec.model_validate({"model": {"name": "churn", "version": 1}, **spec})
    except ValidationError as error:
        return [f"{issue.field}: {issue.message}" for issue in issues_of(error, model=DeploymentSpec)]
    return []


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"metric": "errorRate"}, "expected max with errorRate"),
        ({"metric": "errorRate", "maxLatency": "1s"}, "expected max with errorRate"),
        ({"metric": "p95"}, "expected maxLatency with p95"),
        ({"metric": "p95", "max": 0.4}, "expected maxLatency with p95"),
        ({"metric": "p95", "maxLatency": "1s", "max": 0.4}, "and no other limit"),
    ],
)
def test_a_threshold_has_the_limit_of_its_metric(limit: dict[str, Any], words: str) -> None:
    (problem,) = problems(rollout={"analysis": {"thresholds": [limit]}})
    assert words in problem
    assert problem.startswith("rollout.analysis.thresholds[0]"), problem


def test_slow_requests_are_limited_only_where_slow_is_defined() -> None:
    limit = {"metric": "slowRate", "max": 0.1}
    (problem,) = problems(rollout={"analysis": {"thresholds": [limit]}})
    assert "latency.threshold" in problem
    assert problems(rollout={"analysis": {"thresholds": [limit], "latency": {"threshold": "50ms"}}}) == []


def test_steps_rise_and_end() -> None:
    def canary(*steps: dict[str, Any]) -> list[str]:
        return problems(rollout={"strategy": {"type": "canary", "steps": list(steps)}})

    assert canary({"weight": 10, "duration": "1m"}, {"weight": 50, "requests": 100}) == []
    assert "rise from step to step" in canary({"weight": 50, "requests": 9}, {"weight": 50, "requests": 9})[0]
    assert "exactly one of duration and requests" in canary({"weight": 50})[0]
    assert canary({"weight": 101, "requests": 9})


@pytest.mark.parametrize("name", ["PODIUM_TOKEN", "LD_PRELOAD", "PYTHONPATH", "1X", "A=B"])
def test_variables_that_would_open_the_box_are_refused(name: str) -> None:
    (problem,) = problems(runtime={"env": {name: "x"}})
    assert problem.startswith("runtime.env")


def test_a_model_is_named_by_version_or_alias() -> None:
    assert "exactly one of version and alias" in problems(model={"name": "churn"})[0]
    assert "exactly one" in problems(model={"name": "churn", "version": "1", "alias": "champion"})[0]
