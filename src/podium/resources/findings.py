"""Pydantic's findings in our words: what was expected and what came. Called by `issues`.

What came is told by its kind, and by its value only where that is a number or is compared with a list of words: a text
may be a secret, and is never repeated.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

PATTERNS = {
    r"^[1-9][0-9]{0,8}$": "expected a version's number, such as 3",
    r"^sha256:[0-9a-f]{64}$": "expected sha256: and 64 hexadecimal digits",
    r"^3\.[0-9]{1,2}$": "expected a Python version such as 3.11",
    r"^/[!-~]{0,1023}$": "expected a path that begins with '/', at most 1024 visible ASCII characters",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$": "expected 1 to 128 letters, digits and . _ -, starting with a letter or "
    "digit",
    r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}$": "expected an output's name of 1 to 128 letters, digits and _ . : / -",
    r"^([a-z]([-a-z0-9]{0,51}[a-z0-9])?/)?[a-z]([-a-z0-9]{0,51}[a-z0-9])?$": "expected NAME or WORKSPACE/NAME, each 1 "
    "to 53 lower-case letters, digits and '-', starting with a letter and not ending with '-'",
    r"^[\x21-\x7e]+( [\x21-\x7e]+)*$": "expected visible ASCII characters",
    r"^[0-9a-f]{40,64}$": "expected a commit's 40 to 64 hexadecimal digits",
    r"^(/[!-~]*)?$": "expected a path that begins with '/', such as /infer, or nothing",
    r"^[A-Za-z0-9][-A-Za-z0-9_.@]{0,127}$": "expected 1 to 128 letters, digits and - _ . @, "
    "starting with a letter or digit",
}
_EXPECTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "datetime_type": "a time such as 2026-01-31T12:00:00Z",
    "datetime_parsing": "a time such as 2026-01-31T12:00:00Z",
    "datetime_from_date_parsing": "a time such as 2026-01-31T12:00:00Z",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_LENGTHS = {
    "too_short": ("at least", "min_length", "item"),
    "too_long": ("at most", "max_length", "item"),
    "string_too_short": ("at least", "min_length", "character"),
    "string_too_long": ("at most", "max_length", "character"),
}
_SHOWN = 40


def words_of(finding: ErrorDetails) -> str:
    """One sentence without the field's name, which the caller has."""
    kind, given = finding["type"], finding.get("input")
    told: Mapping[str, Any] = finding.get("ctx", {})
    if kind == "missing":
        return "required, and not there"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {_kind(given)}{_hint(kind, given)}"
    if kind in _BOUNDS:
        how, key = _BOUNDS[kind]
        return f"expected {how} {_number(told[key])}, got {_kind(given)}"
    if kind in _LENGTHS:
        how, key, what = _LENGTHS[kind]
        count = told[key]
        length = told.get("actual_length") or _length(given)
        return f"expected {how} {count} {what}{'' if count == 1 else 's'}" + (
            f", got {length}" if length is not None else ""
        )
    if kind == "literal_error":
        return f"expected one of {_choices(str(told['expected']))}, got {_word(given)}"
    if kind == "string_pattern_mismatch":
        pattern = str(told.get("pattern"))
        return PATTERNS.get(pattern, f"expected a text that the pattern {pattern} matches")
    return finding["msg"].removeprefix("Value error, ")


def _kind(value: object) -> str:
    """Numbers as they are, anything else by what it is."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, str):
        return "a text"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, (list, tuple, set)) else type(value).__name__


def _word(value: object) -> str:
    return repr(value[:_SHOWN]) if isinstance(value, str) else _kind(value)


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)[:_SHOWN]


def _hint(kind: str, value: object) -> str:
    """YAML reads `yes`, `1` and `1.10` as something else than a text."""
    return ": write it in quotes" if kind == "string_type" and isinstance(value, (bool, int, float)) else ""


def _length(value: object) -> int | None:
    return len(value) if isinstance(value, (str, list, Mapping)) else None


def _choices(expected: str) -> str:
    """`'a', 'b' or 'c'` as `a, b, c`."""
    return ", ".join(re.findall(r"'((?:[^'\\]|\\.)*)'", expected)) or expected
