"""What may be declared about repeats, limits and other Deployments, and in which words the rest is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from podium.resources.issues import issues_of
from podium.resources.shape import Spec
from podium.resources.traffic import (
    ANSWER_BYTES,
    AdaptiveConcurrency,
    Cascade,
    CircuitBreaker,
    DeploymentTraffic,
    Fallback,
    Hedge,
    Limits,
    OutlierEjection,
    RateLimit,
    Retries,
    Shadow,
)


def problem(kind: type[Spec], **given: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(given)
    (issue,) = issues_of(caught.value, model=kind)
    return f"{issue.field}: {issue.message}"


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (Retries, {"attempts": 6}, "attempts"),
        (Retries, {"on": ["overloaded"]}, "on[0]"),
        (Retries, {"on": []}, "on"),
        (Retries, {"on": ["reset", "reset"]}, "each reason once"),
        (Retries, {"perTryTimeout": "1s", "on": ["connectFailure"]}, "add reset to on"),
        (Retries, {"backoffBase": "2s", "backoffMax": "1s"}, "backoffMax: expected at least backoffBase"),
        (Hedge, {}, "after"),
        (Hedge, {"after": "0s"}, "after"),
        (RateLimit, {"requests": 0}, "requests"),
        (RateLimit, {"requests": 1, "per": "10ms"}, "per"),
        (RateLimit, {"requests": 1, "per": "1d"}, "per"),
        (Limits, {"perCaller": {"requests": 1}, "callers": 0}, "callers"),
        (AdaptiveConcurrency, {"minConcurrency": 9, "maxConcurrency": 8}, "at most maxConcurrency"),
        (Cascade, {"deployment": "big", "threshold": 0}, "threshold"),
        (Cascade, {"deployment": "big", "threshold": float("nan")}, "threshold"),
        (Cascade, {"deployment": "big", "output": "a;b=c"}, "output"),
        (Cascade, {"deployment": "Big"}, "deployment"),
        (Shadow, {"deployment": "next", "percent": 0}, "percent"),
        (Fallback, {}, "expected deployments, an answer or both"),
        (Fallback, {"deployments": ["a", "a"]}, "each one once"),
        (Fallback, {"deployments": ["a", "b", "c", "d"]}, "deployments"),
        (Fallback, {"answer": {"body": 1}, "attemptTimeout": "1s"}, "attemptTimeout: only with deployments"),
        (Fallback, {"answer": {"body": float("inf")}}, "answer.body"),
        (Fallback, {"answer": {"body": "x" * ANSWER_BYTES}}, "at most 16Ki"),
        (Fallback, {"answer": {"status": 600, "body": 1}}, "answer.status"),
        (Fallback, {"answer": {"status": 200}}, "answer.body"),
        (OutlierEjection, {"maxEjectedPercent": 0}, "maxEjectedPercent"),
        (CircuitBreaker, {"maxConnections": 4001}, "maxConnections"),
        (CircuitBreaker, {"retryBudgetPercent": float("nan")}, "retryBudgetPercent"),
        (DeploymentTraffic, {"retries": {}}, "retries"),
    ],
)  # fmt: skip
def test_what_is_refused(kind: type[Spec], given: dict[str, Any], words: str) -> None:
    assert words in problem(kind, **given)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Retries, {"attempts": 0}),
        (Retries, {"on": ["serverError"], "perTryTimeout": "100ms"}),
        (Limits, {}),
        (Limits, {"route": {"requests": 100, "per": "1m", "burst": 10}, "perCaller": {"requests": 5}}),
        (Cascade, {"deployment": "big", "threshold": 1, "output": "confidence"}),
        (Fallback, {"answer": {"body": None}}),
        (Fallback, {"deployments": ["a", "b", "c"], "answer": {"body": {"outputs": []}}}),
        (DeploymentTraffic, {"outlierEjection": {}, "circuitBreaker": {"maxRequests": 1}}),
    ],
)
def test_what_is_written_reads_as_the_same(kind: type[Spec], given: dict[str, Any]) -> None:
    made = kind.model_validate(given)
    assert kind.model_validate(made.model_dump(mode="json", by_alias=True)) == made


def test_a_bucket_without_a_burst_holds_what_comes_in_its_time() -> None:
    assert RateLimit.model_validate({"requests": 30, "per": "1m"}).bucket == 30
    assert RateLimit.model_validate({"requests": 30, "per": "1m", "burst": 2}).bucket == 2
