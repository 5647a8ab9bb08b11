"""No word of pydantic's reaches a person: every leaf of every kind, with every wrong thing in its place."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from podium.resources.deployment import DeploymentSpec
from podium.resources.issues import issues_of
from podium.resources.model import ModelSpec, WorkspaceSpec
from podium.resources.requests import PushRequest, TokenRequest
from podium.resources.route import RouteSpec
from podium.resources.route_test import RouteTestRequest

FOREIGN = re.compile(
    r"Input should|should (be|have|match)|Field required|valid (string|integer|dict|list|boolean)|Extra inputs"
    r"|instance of"
)
WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    10**12,
    "",
    "x",
    "\u00e9" * 40_000,
    [],
    [None],
    {},
    {"a": None},
    {"x": {"y": [1]}},
)
ROUTE = {
    "rules": [
        {
            "name": "r",
            "match": {
                "path": {"prefix": "/a"}, "headers": {"x-a": "1"}, "query": {"q": {"regex": "a"}},
                "claims": {"sub": {"present": True}},
            },
            "to": [{"deployment": "a", "weight": 50}, {"deployment": "b", "weight": 50}],
            "sticky": {"claim": "user"},
            "shadow": [{"deployment": "c", "percent": 1}],
            "cascade": {"deployment": "d", "threshold": 0.5, "output": "p"},
            "fallback": {"deployments": ["e"], "answer": {"status": 200, "body": {}}, "attemptTimeout": "1s"},
        },
        {"to": "a"},
    ],
    "timeout": "1s",
    "retries": {"attempts": 1, "on": ["reset"], "perTryTimeout": "1s", "backoffBase": "5ms", "backoffMax": "1s"},
    "limits": {"route": {"requests": 1, "per": "1s", "burst": 1}, "perCaller": {"requests": 1}, "callers": 1,
               "adaptive": {"percentile": 90, "updateInterval": "1s", "minConcurrency": 1}},
}  # fmt: skip
DEPLOYMENT = {
    "model": {"name": "m", "version": "1"}, "replicas": 1, "resources": {"memory": "1Gi", "cpu": 1},
    "runtime": {"environment": {"A": "b"}, "requestTimeout": "1s", "readyPath": "/ready", "modelName": "m"},
    "sandbox": {"connectPorts": [443]},
    "scaling": {"max": 2, "target": {"concurrency": 1}},
    "traffic": {"outlierEjection": {"consecutiveErrors": 5}, "circuitBreaker": {"maxRequests": 5}},
    "rollout": {"strategy": {"type": "canary", "steps": [{"weight": 10, "requests": 10}]}},
}  # fmt: skip
TOKEN = {
    "subject": "a", "role": "predict", "workspaces": ["a"], "lifetime": "1h", "deployments": ["a/b"],
    "verbs": ["predict"], "claims": {"tier": "gold"},
}  # fmt: skip
PUSH = {
    "files": [{"path": "a", "size": 1, "sha256": "a" * 64}], "python": "3.11", "alias": "a", "metrics": {"a": 1},
    "git": {"commit": "a" * 40, "dirty": False}, "flavor": "sklearn",
}  # fmt: skip
TEST = {"path": "/infer", "headers": {"x-a": "1"}, "query": {"q": "1"}, "claims": {"sub": "a"}}


def changed(document: Any, wrong: Any) -> Iterator[Any]:
    """The document with this in the place of each of its parts."""
    yield copy.deepcopy(wrong)
    if isinstance(document, (dict, list)):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            for part in changed(document[key], wrong):
                made = copy.copy(document)
                made[key] = part
                yield made
    if isinstance(document, dict):
        for key in document:
            yield {kept: value for kept, value in document.items() if kept != key}


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (RouteSpec, ROUTE), (DeploymentSpec, DEPLOYMENT), (TokenRequest, TOKEN), (PushRequest, PUSH),
        (RouteTestRequest, TEST), (WorkspaceSpec, {"quota": {"replicas": 1, "memory": "1Gi"}}),
        (ModelSpec, {"description": "a", "owner": "b", "riskTier": "high"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("strict", [False, True])
def test_all_words_are_ours(kind: type[BaseModel], document: dict[str, Any], strict: bool) -> None:
    found: set[str] = set()
    for wrong in WRONG:
        for one in changed(document, wrong):
            try:
                kind.model_validate(one, strict=strict)
            except ValidationError as error:
                found |= {issue.message for issue in issues_of(error, model=kind)}
    assert found
    assert [words for words in sorted(found) if FOREIGN.search(words)] == []
    # A text that came is not repeated: it may be a secret, or very long.
    assert all(len(words) < 400 for words in found)


@pytest.mark.parametrize(
    ("document", "field", "words"),
    [
        ({"rules": [{"to": "a", "sticky": "x-user"}]}, "rules[0].sticky", "expected {header: NAME}"),
        (
            {"rules": [{"to": "a", "match": {"headers": {"x-n": 1}}}]},
            "rules[0].match.headers.x-n",
            "expected a text in quotes",
        ),
        ({"rules": [{"to": "a", "name": 3}]}, "rules[0].name", "expected a text, got 3: write it in quotes"),
        ({"rules": {}}, "rules", "expected a list, got an object"),
        ({"rules": []}, "rules", "expected at least 1 item, got 0"),
        ({}, "rules", "required, and not there"),
        ({"rules": [{"to": [{"deployment": "a", "weight": 101}]}]}, "rules[0].to[0].weight",
         "expected at most 100, got 101"),
        ({"rules": [{"to": "a"}], "retries": {"on": ["sometimes"]}}, "retries.on[0]",
         "expected one of connectFailure, reset, unavailable, serverError, got 'sometimes'"),
        ({"rules": [{"to": "a", "cascade": {"deployment": "b", "threshold": 0}}]}, "rules[0].cascade.threshold",
         "expected more than 0, got 0"),
    ],
)  # fmt: skip
def test_the_words_name_what_was_expected_and_what_came(document: Any, field: str, words: str) -> None:
    with pytest.raises(ValidationError) as error:
        RouteSpec.model_validate(document)
    said = {issue.field: issue.message for issue in issues_of(error.value, model=RouteSpec)}
    assert words in said[field]
