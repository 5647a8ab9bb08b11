"""JSON on the wire: strict reading of bodies, fast writing of answers. Called by every route.

Reading refuses whatever two readers could understand differently or the store cannot hold: bytes that are not UTF-8,
a key given twice, NaN, numbers beyond 64 bits, lone surrogates, NUL, nesting deeper than any of our documents.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse

from podium.resources.errors import InvalidInput, Issue, TooLarge
from podium.resources.issues import issues_of

M = TypeVar("M", bound=BaseModel)
MAX_DEPTH = 40
"""Levels of nesting. The deepest document that we know has 12; free-form lineage gets the rest."""
_MAX_INTEGER = 2**63 - 1


def encode(value: Any) -> bytes:
    """JSON bytes of data that came from our own models or the store."""
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


class JSON(JSONResponse):
    """An answer in JSON, written by orjson."""

    def render(self, content: Any) -> bytes:
        """Bytes of the body."""
        return encode(content)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body, at most `limit` bytes. Raises TooLarge as soon as it is known to be longer."""
    too_large = TooLarge(f"the body is over {limit} bytes", details={"field": "body"})
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 15 or int(declared) > limit):
        raise too_large
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        parts.append(chunk)
    return b"".join(parts)


def parse_json(body: bytes) -> Any:
    """The value that the bytes say. Raises InvalidInput naming `body`, or the path of what cannot be stored."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(Issue("body", "expected JSON in UTF-8")) from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite)
    except InvalidInput:
        raise
    except RecursionError:
        raise InvalidInput(Issue("body", f"nested deeper than {MAX_DEPTH} levels")) from None
    except json.JSONDecodeError as error:
        raise InvalidInput(
            Issue("body", f"expected JSON: {error.msg} at line {error.lineno} column {error.colno}")
        ) from None
    except ValueError:  # a number of thousands of digits
        raise InvalidInput(Issue("body", "a number is beyond 64 bits")) from None
    _check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidInput(Issue("body", f"the key {_shown(twice)} is given twice in one object"))
    return found


def _no_constant(name: str) -> Any:
    raise InvalidInput(Issue("body", f"{name} is no JSON number"))


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidInput(Issue("body", "a number is beyond the range of a 64-bit float"))
    return number


def _shown(key: str) -> str:
    return repr(key[:60].encode("utf-8", "replace").decode())


def _check(value: Any) -> None:
    """Walks without recursion: depth, integers and texts."""
    pending: list[tuple[str, Any, int]] = [("", value, 1)]
    while pending:
        path, item, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise InvalidInput(Issue("body", f"nested deeper than {MAX_DEPTH} levels"))
        if isinstance(item, str):
            if (fault := _fault(item)) is not None:
                raise InvalidInput(Issue(path or "body", fault))
        elif isinstance(item, dict):
            for key, child in item.items():
                if (fault := _fault(key)) is not None:
                    raise InvalidInput(Issue(path or "body", f"a key: {fault}"))
                pending.append((f"{path}.{key[:60]}" if path else key[:60], child, depth + 1))
        elif isinstance(item, list):
            pending.extend((f"{path}[{index}]", child, depth + 1) for index, child in enumerate(item))
        elif isinstance(item, int) and not -_MAX_INTEGER <= item <= _MAX_INTEGER:
            raise InvalidInput(Issue(path or "body", "expected a number within 64 bits"))


def _fault(text: str) -> str | None:
    if "\x00" in text:
        return "expected text without NUL"
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "expected text without lone surrogates"
    return None


async def read_json(request: Request, limit: int) -> Any:
    """The body as data. Raises TooLarge, InvalidInput."""
    return parse_json(await read_body(request, limit))


async def read_model(request: Request, model: type[M], limit: int) -> M:
    """The body as one of the request models; nothing is coerced (`"3"` is no number). An empty body is `{}`."""
    body = await read_body(request, limit)
    data = parse_json(body) if body.strip() else {}
    return validated(model, data)


def validated(model: type[M], data: Any) -> M:
    """Data as a model, strictly. Raises InvalidInput naming each field."""
    if not isinstance(data, Mapping):
        raise InvalidInput(Issue("body", "expected an object"))
    try:
        return model.model_validate(data, strict=True)
    except ValidationError as error:
        raise InvalidInput(issues_of(error, model=model)) from None
