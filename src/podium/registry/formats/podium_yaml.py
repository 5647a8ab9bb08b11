"""podium.yaml: what a folder with a class of the user's own says about itself.

    class: churn_model:Model          # a module of the folder, and a class in it
    python: "3.11"                    # optional
    requirements: [scikit-learn==1.9.1]
    signature: {inputs: [...], outputs: [...]}
    weights: model.safetensors        # the class is a torch.nn.Module, and these are its weights
    arguments: {hidden: 16}           # what such a class is made with
    flavor: pytorch                   # optional: which format reads the folder

Called by the formats `python`, `pytorch` and `custom`. The module is not imported here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packaging.requirements import Requirement
from pydantic import ValidationError

from podium.registry import requirements
from podium.registry.formats.port import PushedFiles
from podium.registry.yaml_text import parse_yaml
from podium.resources.errors import InvalidInput, Issue
from podium.resources.issues import issues_of
from podium.resources.manifest import Signature

FILE = "podium.yaml"
_MAX_BYTES = 1024 * 1024
_MAX_ARGUMENTS = 64 * 1024
_KEYS = ("class", "python", "requirements", "signature", "weights", "arguments", "flavor")
_CLASS = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)


@dataclass(frozen=True)
class PodiumYaml:
    """The file's contents, checked."""

    options: Mapping[str, str]
    """For the flavor: `class`, and `arguments` and `outputs` as JSON where there are any."""
    requirements: list[Requirement]
    python: str | None
    signature: Signature | None
    weights: str | None


def names_weights(files: PushedFiles) -> bool:
    """Does the folder belong to PyTorch? Whatever is wrong with the file is said by whoever reads it."""
    if FILE not in files.entries:
        return False
    try:
        return "weights" in _document(files)
    except InvalidInput:
        return False


def read(files: PushedFiles) -> PodiumYaml:
    """Raises InvalidInput naming each wrong key."""
    if FILE not in files.entries:
        raise InvalidInput(Issue("files", f"expected a file {FILE}"))
    document = _document(files)
    issues = [
        Issue(f"{FILE}: {key[:60]}", f"unknown; known: {', '.join(_KEYS)}")
        for key in document
        if key not in _KEYS
    ]
    if issues:
        raise InvalidInput(issues)
    options = {"class": _class(document.get("class"), files)}
    weights = _weights(document.get("weights"), files)
    if document.get("arguments") is not None:
        options["arguments"] = _arguments(document["arguments"], weights)
    signature = signature_of(document.get("signature"))
    if signature is not None and signature.outputs:
        # A class may answer with arrays that have no names.
        options["outputs"] = json.dumps([output.name for output in signature.outputs])
    return PodiumYaml(
        options,
        requirements_of(document.get("requirements")),
        python_of(document.get("python")),
        signature,
        weights,
    )


def _document(files: PushedFiles) -> dict[str, Any]:
    return parse_yaml(files.read(FILE, _MAX_BYTES), FILE)


def _weights(value: object, files: PushedFiles) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in files.entries or not value.endswith(".safetensors"):
        known = [path for path in files.paths if path.endswith(".safetensors")]
        found = f"; there: {', '.join(known[:10])}" if known else ""
        raise InvalidInput(Issue(f"{FILE}: weights", f"expected a .safetensors file of this folder{found}"))
    return value


def _arguments(value: object, weights: str | None) -> str:
    field = f"{FILE}: arguments"
    if weights is None:
        raise InvalidInput(Issue(field, "only a class with weights is made with arguments"))
    if not isinstance(value, dict) or not all(isinstance(key, str) and key.isidentifier() for key in value):
        raise InvalidInput(Issue(field, "expected names with values"))
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise InvalidInput(Issue(field, "expected texts, numbers, true, false, lists and objects")) from None
    if len(text) > _MAX_ARGUMENTS:
        raise InvalidInput(Issue(field, f"expected at most {_MAX_ARGUMENTS} bytes as JSON"))
    return text


def _class(named: object, files: PushedFiles) -> str:
    field = f"{FILE}: class"
    match = _CLASS.fullmatch(named) if isinstance(named, str) else None
    if match is None:
        raise InvalidInput(Issue(field, "expected module:Class, a module of this folder and a class in it"))
    module = match.group(1).replace(".", "/")
    if not any(path in files.entries for path in (f"{module}.py", f"{module}/__init__.py")):
        known = [path for path in files.paths if path.endswith(".py")]
        found = f"; Python files there: {', '.join(known[:10])}" if known else ""
        raise InvalidInput(Issue(field, f"the folder has no {module}.py or {module}/__init__.py{found}"))
    return match.group(0)


def requirements_of(value: object) -> list[Requirement]:
    """The list in a podium.yaml. Raises InvalidInput."""
    texts = value or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidInput(Issue(f"{FILE}: requirements", "expected a list of texts"))
    return requirements.parse_all(texts, f"{FILE}: requirements")


def python_of(value: object) -> str | None:
    """The version in a podium.yaml, as `3.11`. Raises InvalidInput."""
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"3\.[0-9]{1,2}(\.[0-9]{1,3})?", value):
        # 3.10 without quotes is the number 3.1 in YAML.
        raise InvalidInput(Issue(f"{FILE}: python", 'expected a version in quotes, such as "3.11"'))
    return ".".join(value.split(".")[:2])


def signature_of(value: Any) -> Signature | None:
    """The signature in a podium.yaml. Raises InvalidInput."""
    if value is None:
        return None
    try:
        return Signature.model_validate(value)
    except ValidationError as error:
        raise InvalidInput(issues_of(error, f"{FILE}: signature")[:20]) from None
