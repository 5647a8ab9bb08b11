"""Pydantic's findings in words that a person can act on: the field's path, what was expected, what may be meant."""

import difflib
import re
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from podium.resources.errors import Issue
from podium.resources.findings import words_of

_CHOICES = {"strategy": ("canary", "blueGreen", "recreate", "shadow", "abTest")}
"""Field -> its choices, whose names follow it in pydantic's locations. Anywhere else they are names like others."""
_UNNAMED_CHOICE = re.compile(r"(function-\w+|literal|constrained-\w+)\[.*\]", re.DOTALL)
"""How pydantic writes a choice that has no name, such as `function-after[check_name(), str]`."""
_LISTED = 12


def issues_of(
    error: ValidationError, prefix: str = "", *, model: type[BaseModel] | None = None
) -> list[Issue]:
    """One Issue per finding. `model`: what was validated; with it, an unknown field is told the known ones."""
    issues = []
    for finding in error.errors(include_url=False):
        location = _fields_of(finding["loc"])
        path = prefix
        for part in location:
            if isinstance(part, int):
                path += f"[{part}]"
            elif not isinstance(part, _Choice):
                path += f".{part}" if path else str(part)
        words = words_of(finding)
        if finding["type"] == "extra_forbidden":
            words = _unknown(str(location[-1]), _fields_at(model, location[:-1]) if model else [])
        elif finding["type"] in ("union_tag_invalid", "union_tag_not_found"):
            path = f"{path}.type"
            words = f"expected one of {', '.join(_CHOICES.get(str(location[-1]), ()))}"
        issues.append(Issue(path or "body", words))
    return issues


class _Choice(str):
    """A part of a location that says which choice of a union was tried; it is no field."""

    __slots__ = ()


def _fields_of(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The location with the choices in it marked, and without those that have no name."""
    parts: list[int | str] = []
    for part in location:
        if isinstance(part, str) and _UNNAMED_CHOICE.fullmatch(part):
            continue
        chosen = parts and part in _CHOICES.get(str(parts[-1]), ())
        parts.append(_Choice(part) if chosen else part)
    return tuple(parts)


def _unknown(name: str, known: list[str]) -> str:
    meant = difflib.get_close_matches(name.lower(), [field.lower() for field in known], n=1)
    if meant:
        return f"unknown field; did you mean {next(field for field in known if field.lower() == meant[0])}?"
    if known and len(known) <= _LISTED:
        return f"unknown field; known: {', '.join(known)}"
    return "unknown field"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The wire names of the fields that may stand there; those of all choices where the location names none."""
    models = [model]
    for part in location:
        if isinstance(part, int):
            continue
        if isinstance(part, _Choice):
            models = [one for one in models if _tag(one) in (None, part)]
            continue
        models = [
            inner
            for one in models
            for name, field in one.model_fields.items()
            if part in (name, field.alias)
            for inner in _models_in(field.annotation)
        ]
    return sorted({field.alias or name for one in models for name, field in one.model_fields.items()})


def _tag(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("type")
    return None if field is None else field.default


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model in `X | None`, `list[X]`, `Annotated[X | Y, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType) or get_args(annotation):
        for inner in get_args(annotation):
            yield from _models_in(inner)
