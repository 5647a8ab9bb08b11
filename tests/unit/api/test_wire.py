"""Strict reading of JSON."""

from typing import Any

import pytest

from podium.api.wire import MAX_DEPTH, parse_json, validated
from podium.resources.errors import InvalidInput
from podium.resources.requests import AliasRequest, TokenRequest


@pytest.mark.parametrize(
    "text", ['{"a": [1, 2.5, "x", null, true]}', "[]", '"é"', "9223372036854775807", "{}"]
)
def test_good_json_is_read(text: str) -> None:
    parse_json(text.encode())


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b'{"a": {"b": [1, "\\ud800"]}}', "a.b[1]", "surrogates"),
        (b'{"a": "x\\u0000"}', "a", "NUL"),
        (b'{"a": 9223372036854775808}', "a", "64 bits"),
        (b"1e400", "body", "range"),
        (b"-Infinity", "body", "no JSON number"),
        (b'{"a": {"b": 1, "b": 2}}', "body", "'b' is given twice"),
        (b'{"a" 1}', "body", "line 1 column 6"),
        ("{}".encode("utf-16"), "body", "UTF-8"),
    ],
)
def test_bad_json_is_named(body: bytes, field: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_json(body)
    (issue,) = caught.value.issues
    assert issue.field == field
    assert words in issue.message


def test_depth_has_a_limit_at_every_size() -> None:
    parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(InvalidInput, match="nested deeper"):
            parse_json(b"[" * depth + b"]" * depth)


@pytest.mark.parametrize("given", [[], "x", None, 3])
def test_a_body_is_an_object(given: Any) -> None:
    with pytest.raises(InvalidInput, match="expected an object"):
        validated(AliasRequest, given)


def test_nothing_is_coerced_and_every_field_is_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        validated(TokenRequest, {"subject": 1, "role": "x", "workspaces": "default", "more": 1})
    assert {issue.field.partition("[")[0] for issue in caught.value.issues} == {
        "subject", "role", "workspaces", "more",
    }  # fmt: skip
