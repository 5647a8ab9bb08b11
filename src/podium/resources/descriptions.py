"""What fields mean, in the JSON Schemas: the docstring under a field becomes its description. Called by `kinds` and by
the API's OpenAPI document.

Pydantic can do so itself (`use_attribute_docstrings`), but reads the source of every model when it is imported; here it
is read when a schema is made.
"""

import ast
import functools
import inspect
import itertools
import re
import sys
from typing import Any

from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import ModelSchema

_QUOTED = re.compile(r"(?<=`)[a-z0-9_.]+(?=`)")


class Described(GenerateJsonSchema):
    """Schemas whose properties say what they mean. A description that a field has already stays."""

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        """The schema of one model."""
        made = super().model_schema(schema)
        properties: dict[str, Any] = made.get("properties", {})
        model: type[BaseModel] = schema["cls"]
        texts = field_texts(model)
        for name, field in model.model_fields.items():
            known = properties.get(field.alias or name)
            if known is not None and name in texts:
                known.setdefault("description", texts[name])
        return made


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """Field -> its docstring, in one line, with other fields named as they are written on the wire."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= _texts_of(base.__module__).get(base.__qualname__.partition("[")[0], {})
    return found


@functools.cache
def _texts_of(module: str) -> dict[str, dict[str, str]]:
    """Class -> field -> docstring, for the classes of a module. Empty where its source is not at hand."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError):
        return {}
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return {one.name: dict(_described(one.body)) for one in classes}


def _described(body: list[ast.stmt]) -> list[tuple[str, str]]:
    found = []
    for field, after in itertools.pairwise(body):
        match field, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found.append((name, _one_line(text)))
    return found


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    return _QUOTED.sub(lambda name: ".".join(to_camel(part) for part in name[0].split(".")), words)
