"""What the API is sent: limits that keep a hostile caller's document from costing more than it is worth."""

from typing import Any

import pytest
from pydantic import ValidationError

from podium.resources.requests import (
    LINEAGE_BYTES,
    LINEAGE_DEPTH,
    GatewaySample,
    ImportRequest,
    Problem,
    PushRequest,
    TokenRequest,
)

FILE = {"path": "m.pkl", "size": 1, "sha256": "a" * 64}


def push(**more: Any) -> PushRequest:
    return PushRequest.model_validate({"files": [FILE], **more})


def nested(depth: int) -> dict[str, Any]:
    """So many objects and lists inside each other, the lineage itself being the first."""
    inner: Any = 1
    for level in range(depth - 1):
        inner = [inner] if level % 2 else {"a": inner}
    return {"a": inner}


def test_a_push_needs_a_file_and_nothing_else() -> None:
    assert push().flavor is None
    with pytest.raises(ValidationError, match="at least 1 item"):
        PushRequest.model_validate({"files": []})


@pytest.mark.parametrize("depth", [1, 2, LINEAGE_DEPTH])
def test_lineage_may_be_as_deep_as_its_limit(depth: int) -> None:
    assert push(lineage=nested(depth)).lineage == nested(depth)


@pytest.mark.parametrize("depth", [LINEAGE_DEPTH + 1, 5000])
def test_lineage_that_is_deeper_is_refused_without_following_it_down(depth: int) -> None:
    with pytest.raises(ValidationError, match=f"at most {LINEAGE_DEPTH} objects and lists inside each other"):
        push(lineage=nested(depth))


@pytest.mark.parametrize(
    ("lineage", "words"),
    [
        ({"a": float("nan")}, "no NaN"),
        ({"a": float("inf")}, "no infinity"),
        ({"a": "\ud800"}, "no unpaired surrogates"),
        ({"a": object()}, "expected JSON"),
        ({"a": "x" * LINEAGE_BYTES}, f"at most {LINEAGE_BYTES} bytes"),
    ],
    ids=["nan", "inf", "surrogate", "object", "long"],
)
def test_lineage_is_json_of_a_bounded_size(lineage: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        push(lineage=lineage)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_metric_is_a_finite_number(value: float) -> None:
    with pytest.raises(ValidationError, match="auc: expected a finite number"):
        push(metrics={"auc": value})


@pytest.mark.parametrize(
    "path", ["../m", "/m", "a//b", "a/./b", "a\\b", "C:m", "a\nb", "", "x" * 1025, "é" * 128]
)
def test_a_files_path_stays_inside_its_folder_on_every_system(path: str) -> None:
    with pytest.raises(ValidationError, match="expected a relative path"):
        PushRequest.model_validate({"files": [{**FILE, "path": path}]})


@pytest.mark.parametrize("python", ["3.11", "3.9"])
def test_a_python_version_has_two_numbers(python: str) -> None:
    assert push(python=python).python == python
    for wrong in (f"{python}.1", "2.7", "3", "3.11\n"):
        with pytest.raises(ValidationError):
            push(python=wrong)


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        ({}, True),
        ({"workspaces": ["*"]}, True),
        ({"workspaces": []}, False),
        ({"workspaces": ["**"]}, False),
        ({"lifetime": "59s"}, False),
        ({"lifetime": "60s"}, True),
        ({"lifetime": "365d"}, True),
        ({"subject": "-a"}, False),
        ({"subject": "a b"}, False),
        ({"role": "root"}, False),
        ({"rule": "view"}, False),
    ],
    ids=str,
)
def test_a_token_is_for_somebody_somewhere_and_not_for_ever(change: dict[str, Any], fine: bool) -> None:
    wish = {"subject": "ann@example.org", "role": "view", **change}
    if fine:
        assert TokenRequest.model_validate(wish).role == "view"
        return
    with pytest.raises(ValidationError):
        TokenRequest.model_validate(wish)


@pytest.mark.parametrize("uri", ["models:/churn/3", "runs:/0a/model", "models:/my model/3"])
def test_a_source_is_printable_text(uri: str) -> None:
    assert ImportRequest(uri=uri).uri == uri
    for wrong in (f" {uri}", f"{uri}\n", f"{uri}\x00", "", "é"):
        with pytest.raises(ValidationError):
            ImportRequest(uri=wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [("weightBp", -1), ("weightBp", 10_001), ("at", -1.0), ("epoch", ""), ("latencyEdgeMs", 0.0)],
)
def test_a_sample_that_cannot_be_is_refused(field: str, value: object) -> None:
    sample = {"rolloutUid": "u", "at": 1.0, "epoch": "e", "weightBp": 5000, "stable": {}, "candidate": {}}
    assert GatewaySample.model_validate(sample).weight_bp == 5000
    with pytest.raises(ValidationError):
        GatewaySample.model_validate({**sample, field: value})


def test_a_newer_servers_answer_is_read() -> None:
    problem = {
        "type": "about:blank", "title": "t", "status": 409, "detail": "d", "code": "conflict", "instance": "/",
        "invented": 1,
    }  # fmt: skip
    assert Problem.model_validate(problem).code == "conflict"
