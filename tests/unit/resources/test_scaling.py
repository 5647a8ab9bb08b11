"""What a Deployment's scaling refuses, and in which words."""

from typing import Any

import pytest
from pydantic import ValidationError

from podium.planning.deployments import content_hash
from podium.resources.deployment import DeploymentSpec
from podium.resources.issues import issues_of

MODEL = {"name": "churn", "version": 1}


def problems(**spec: Any) -> list[str]:
    try:
        DeploymentSpec.model_validate({"model": MODEL, **spec})
    except ValidationError as error:
        return [f"{issue.field}: {issue.message}" for issue in issues_of(error, model=DeploymentSpec)]
    return []


def test_only_a_maximum_is_needed_and_it_reads_as_it_was_written() -> None:
    spec = DeploymentSpec.model_validate({"model": MODEL, "scaling": {"max": 4}})
    assert spec.scaling is not None
    assert (spec.scaling.min, spec.scaling.target.name, spec.scaling.target.value) == (1, "concurrency", 1)
    wire = spec.model_dump(mode="json", by_alias=True)
    assert wire["scaling"]["stableWindow"] == "1m"
    assert wire["scaling"]["scaleDownDelay"] == "5m"
    assert DeploymentSpec.model_validate(wire) == spec


@pytest.mark.parametrize(
    ("scaling", "field", "words"),
    [
        ({}, "scaling.max", "required"),
        ({"min": 3, "max": 2}, "scaling", "min: expected at most max (2)"),
        ({"max": 0}, "scaling.max", "expected at least 1, got 0"),
        ({"max": 2, "target": {}}, "scaling.target", "exactly one of"),
        ({"max": 2, "target": {"concurrency": 1, "p95": "1s"}}, "scaling.target", "exactly one of"),
        (
            {"max": 2, "target": {"concurrency": 0}},
            "scaling.target.concurrency",
            "expected more than 0, got 0",
        ),
        ({"max": 2, "target": {"memory": 0.5}}, "scaling.target.memory", "unknown"),
        ({"max": 2, "target": {"cpu": 70, "concurrency": 1}}, "scaling.target", "exactly one of"),
        ({"max": 2, "target": {"cpu": 0.7}}, "scaling.target.cpu", "expected at least 1, got 0"),
        ({"max": 2, "target": {"cpu": 96}}, "scaling.target.cpu", "expected at most 95, got 96"),
        ({"max": 2, "target": {"cpu": 90}}, "scaling", "target.cpu: expected at most 86 with tolerance 0.1"),
        ({"max": 2, "stableWindow": "10s", "panicWindow": "20s"}, "scaling", "panicWindow: expected at most"),
        ({"max": 2, "stableWindow": "1h"}, "scaling.stableWindow", "600"),
        (
            {"max": 2, "maxReplicaHoursPerDay": 0},
            "scaling.maxReplicaHoursPerDay",
            "expected more than 0, got 0",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(scaling: dict[str, Any], field: str, words: str) -> None:
    (problem,) = problems(scaling=scaling)
    assert problem.startswith(f"{field}:"), problem
    assert words in problem


def test_zero_needs_a_server_that_takes_its_socket_over() -> None:
    scaling = {"min": 0, "max": 2}
    assert problems(scaling=scaling) == []
    assert problems(scaling=scaling, replicas=0) == []
    assert problems(scaling=scaling, runtime={"command": ["serve", "--fd", "{fd}"]}) == []
    (problem,) = problems(scaling=scaling, runtime={"command": ["serve", "--port", "{port}"]})
    assert "scaling.min: 0 needs a server that takes its listening socket over" in problem


def test_a_fixed_port_is_one_replica_also_at_most() -> None:
    runtime = {"command": ["serve"], "port": 8000}
    assert problems(runtime=runtime, scaling={"max": 1}) == []
    (problem,) = problems(runtime=runtime, scaling={"max": 2})
    assert "set scaling.max to 1" in problem
    assert problems(runtime=runtime, scaling={"max": 1, "warm": 1})


def test_no_replicas_and_scaling_contradict_each_other() -> None:
    (problem,) = problems(replicas=0, scaling={"max": 2})
    assert "contradicts scaling.min 1" in problem


def test_scaling_makes_no_new_revision() -> None:
    plain = DeploymentSpec.model_validate({"model": MODEL})
    scaled = DeploymentSpec.model_validate({"model": MODEL, "scaling": {"max": 9}})
    assert content_hash(plain, "sha", "wheel") == content_hash(scaled, "sha", "wheel")
