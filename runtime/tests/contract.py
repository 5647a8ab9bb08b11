"""Checks real answers against spec/open-inference.yaml. Used by the tests that talk to a replica."""

from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from runtime.tests.replica import Answer

SPEC = Path(__file__).parents[2] / "spec" / "open-inference.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(SPEC.read_text())


def _resolved(node: Any) -> Any:
    while isinstance(node, dict) and "$ref" in node:
        target: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator for one schema of the description."""
    return Draft202012Validator({"components": DOCUMENT["components"], **schema})


def conforms(answer: Answer, path: str = "/v2/models/{name}/infer", method: str = "post") -> Answer:
    """Assert that an answer has a status, headers and a body that the description lists for the path; return it."""
    responses = DOCUMENT["paths"][path][method]["responses"]
    assert str(answer.status) in responses, (
        f"{answer.status} is not described for {method} {path}: {answer.body!r}"
    )
    response = _resolved(responses[str(answer.status)])
    for name, header in response.get("headers", {}).items():
        if _resolved(header).get("required"):
            assert name in answer.headers, f"{answer.status} without {name}"
    (content_type, content), *_ = response["content"].items()
    assert answer.headers["content-type"].startswith(content_type)
    if content_type == "application/json":
        validator(content["schema"]).validate(answer.json())
    return answer
