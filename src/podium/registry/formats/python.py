"""A folder with a podium.yaml that names a Python class.

    class: churn_model:Model          # a module of the folder, and a class in it
    python: "3.11"                    # optional
    requirements: [scikit-learn==1.9.1]
    signature: {inputs: [...], outputs: [...]}

Called by `intake`. The module is not imported here.
"""

import re
from collections.abc import Sequence
from typing import Any

from packaging.requirements import Requirement
from pydantic import ValidationError

from podium.registry import requirements
from podium.registry.formats.port import FlavorName, PushedFiles, Reading
from podium.registry.yaml_text import parse_yaml
from podium.resources.errors import InvalidInput, Issue
from podium.resources.issues import issues_of
from podium.resources.manifest import Flavor, Signature

FILE = "podium.yaml"
_MAX_BYTES = 1024 * 1024
_KEYS = ("class", "python", "requirements", "signature")
_CLASS = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)


class PythonFolder:
    """Implements Format."""

    name: FlavorName = "python"
    description = f"a folder with a {FILE} that names a Python class (class: module:Class)"

    def recognises(self, files: PushedFiles) -> bool:
        return FILE in files.entries

    def read(self, files: PushedFiles, given: Sequence[Requirement]) -> Reading:
        if FILE not in files.entries:
            raise InvalidInput(Issue("files", f"expected a file {FILE}"))
        document = parse_yaml(files.read(FILE, _MAX_BYTES), FILE)
        issues = [
            Issue(f"{FILE}: {key[:60]}", f"unknown; known: {', '.join(_KEYS)}")
            for key in document
            if key not in _KEYS
        ]
        if issues:
            raise InvalidInput(issues)
        texts = document.get("requirements") or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InvalidInput(Issue(f"{FILE}: requirements", "expected a list of texts"))
        return Reading(
            Flavor(name="python", options={"class": _class(document.get("class"), files)}),
            requirements.parse_all(texts, f"{FILE}: requirements"),
            _python(document.get("python")),
            _signature(document.get("signature")),
        )


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


def _python(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"3\.[0-9]{1,2}(\.[0-9]{1,3})?", value):
        # 3.10 without quotes is the number 3.1 in YAML.
        raise InvalidInput(Issue(f"{FILE}: python", 'expected a version in quotes, such as "3.11"'))
    return ".".join(value.split(".")[:2])


def _signature(value: Any) -> Signature | None:
    if value is None:
        return None
    try:
        return Signature.model_validate(value)
    except ValidationError as error:
        raise InvalidInput(issues_of(error, f"{FILE}: signature")[:20]) from None
