"""What a Deployment's spec refuses, and in which words."""

import math
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


TENSOR: dict[str, Any] = {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1, 2.5]}


@pytest.mark.parametrize(
    ("runtime", "field", "words"),
    [
        ({"watchdog": "-1s"}, "runtime.watchdog", "expected a duration"),
        ({"watchdog": "2d"}, "runtime.watchdog", "86400"),
        ({"maxStreams": 0}, "runtime.maxStreams", "expected at least 1, got 0"),
        ({"maxTensorElements": 2**31}, "runtime.maxTensorElements", "1073741824"),
        ({"warmup": {"requests": -1}}, "runtime.warmup.requests", "expected at least 0, got -1"),
        ({"warmup": {"times": 1}}, "runtime.warmup.times", "known: example, requests"),
        ({"warmup": {"example": {}}}, "runtime.warmup.example.inputs", "required"),
        ({"warmup": {"example": {"inputs": []}}}, "runtime.warmup.example.inputs", "at least 1"),
        (
            {"warmup": {"example": {"inputs": [{**TENSOR, "datatype": "FLOAT"}]}}},
            "runtime.warmup.example.inputs[0].datatype", "FP64, BF16, BYTES, got",
        ),
        (
            {"warmup": {"example": {"inputs": [{**TENSOR, "shape": [3]}]}}},
            "runtime.warmup.example.inputs[0]", "data: expected 3 elements for the shape, got 2",
        ),
        (
            {"warmup": {"example": {"inputs": [{**TENSOR, "data": [1, math.nan]}]}}},
            "runtime.warmup.example.inputs[0].data", "finite numbers",
        ),
        (
            {"warmup": {"example": {"inputs": [{**TENSOR, "data": [1, "\ud800"]}]}}},
            "runtime.warmup.example.inputs[0].data", "Unicode",
        ),
        (
            {"warmup": {"example": {"inputs": [{**TENSOR, "shape": [1, 70_000], "data": [1] * 70_000}]}}},
            "runtime.warmup.example", "at most 64Ki",
        ),
        ({"warmup": {"requests": 0, "example": {"inputs": [TENSOR]}}}, "runtime.warmup", "example: nothing is called"),
        ({"command": "serve", "watchdog": "9s"}, "runtime", "watchdog: a setting of Podium's own model server"),
        ({"command": "serve", "warmup": {}}, "runtime", "warmup: a setting of Podium's own model server"),
    ],
)  # fmt: skip
def test_what_the_model_servers_settings_refuse(runtime: dict[str, Any], field: str, words: str) -> None:
    (problem,) = problems(runtime=runtime)
    assert problem.startswith(f"{field}: "), problem
    assert words in problem


def test_an_example_is_written_and_read_again_unchanged() -> None:
    example = {"inputs": [{**TENSOR, "data": [[1, None]]}], "parameters": {"a": {"snakeAndCamel": None}}}
    spec = DeploymentSpec.model_validate(
        {"model": {"name": "churn", "version": 1}, "runtime": {"warmup": {"example": example}}}
    )
    again = DeploymentSpec.model_validate_json(spec.model_dump_json(by_alias=True))
    assert again == spec
    assert again.runtime.warmup is not None and again.runtime.warmup.example is not None
    assert again.runtime.warmup.example.body() == example
