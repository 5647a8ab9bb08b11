"""Findings as a person reads them: the path of the field, what was expected, what may have been meant."""

from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from podium.resources import issues as module
from podium.resources.deployment import DeploymentSpec
from podium.resources.issues import issues_of
from podium.resources.requests import PushRequest, TokenRequest
from podium.resources.shape import Metadata
from podium.resources.strategies import Strategy

MODEL = {"name": "churn", "version": 1}


def found(kind: type[BaseModel], document: object, prefix: str = "") -> dict[str, str]:
    """Field -> message."""
    with pytest.raises(ValidationError) as error:
        kind.model_validate(document)
    return {issue.field: issue.message for issue in issues_of(error.value, prefix, model=kind)}


def strategy(**wish: Any) -> dict[str, Any]:
    return {"model": MODEL, "rollout": {"strategy": wish}}


@pytest.mark.parametrize(
    ("document", "field", "words"),
    [
        ({"model": MODEL, "replicas": -1}, "spec.replicas", "expected at least 0, got -1"),
        ({}, "spec.model", "required"),
        (
            {"model": {"name": "churn", "version": "v2"}},
            "spec.model.version",
            "expected a version's number, such as 3",
        ),
        (
            {"model": {"name": "Churn", "version": 1}},
            "spec.model.name",
            "expected 1 to 53 lower-case letters",
        ),
        (
            {"model": MODEL, "sandbox": {"connectPorts": [443, 0]}},
            "spec.sandbox.connectPorts[1]",
            "expected at least 1, got 0",
        ),
        (
            {"model": MODEL, "runtime": {"requestTimeout": "soon"}},
            "spec.runtime.requestTimeout",
            "such as 250ms",
        ),
        (
            strategy(type="canary", steps=[{"weight": 0, "requests": 1}]),
            "spec.rollout.strategy.steps[0].weight",
            "expected at least 1, got 0",
        ),
        ([], "spec", "expected an object, got a list"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_every_finding_names_the_field_and_what_was_expected(document: Any, field: str, words: str) -> None:
    said = found(DeploymentSpec, document, "spec")
    assert words in said[field]


def test_all_that_is_wrong_is_said_at_once() -> None:
    said = found(
        DeploymentSpec, {"model": {}, "replicas": "many", "resources": {"memory": "2GB", "niceness": 99}}
    )
    assert set(said) == {"model.name", "replicas", "resources.memory", "resources.niceness"}


@pytest.mark.parametrize(
    ("wish", "field", "words"),
    [
        ({"type": "canary", "stepz": []}, "rollout.strategy.stepz", "did you mean steps?"),
        (
            {"type": "canary", "previewFor": "1m"},
            "rollout.strategy.previewFor",
            "known: baseline, keepOld, steps, type, warmup",
        ),
        ({"type": "blueGreen", "keepold": "1m"}, "rollout.strategy.keepold", "did you mean keepOld?"),
    ],
)
def test_an_unknown_field_is_told_the_known_ones_of_the_choice_that_was_made(
    wish: dict[str, Any], field: str, words: str
) -> None:
    assert words in found(DeploymentSpec, strategy(**wish))[field]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("x_try", "the gateway lets no header with '_'"),
        ("host", "one of HTTP's own"),
        ("X-Try", "lower-case"),
        ("content-type", "no request has it set to 'true'"),
    ],
)
def test_a_preview_header_that_could_never_be_met_is_refused(header: str, words: str) -> None:
    said = found(DeploymentSpec, strategy(type="blueGreen", previewHeader=header))
    assert words in said["rollout.strategy.previewHeader"]


@pytest.mark.parametrize("wish", [{}, {"type": "canari"}, {"type": None}], ids=str)
def test_a_choice_that_is_missing_or_unknown_is_told_all_there_are(wish: dict[str, Any]) -> None:
    assert found(DeploymentSpec, strategy(**wish)) == {
        "rollout.strategy.type": "expected one of canary, blueGreen, recreate, shadow, abTest"
    }


def test_the_choices_are_those_that_there_are() -> None:
    kinds = get_args(get_args(Strategy)[0])
    assert module._CHOICES["strategy"] == tuple(kind.model_fields["type"].default for kind in kinds)


def test_a_label_may_be_called_like_a_choice() -> None:
    said = found(Metadata, {"name": "a", "labels": {"canary": True, "literal": 5}}, "metadata")
    assert set(said) == {"metadata.labels.canary", "metadata.labels.literal"}


def test_a_choice_without_a_name_is_no_part_of_the_path() -> None:
    said = found(TokenRequest, {"subject": "ann", "role": "view", "workspaces": ["default", "Not A Name"]})
    assert set(said) == {"workspaces[1]"}


def test_what_is_not_json_is_said_without_a_path_of_its_own() -> None:
    assert "lineage" in found(PushRequest, {"files": [], "lineage": {"a": float("nan")}})
    assert found(PushRequest, 5).keys() == {"body"}
