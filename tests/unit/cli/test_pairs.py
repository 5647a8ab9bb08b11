"""NAME=VALUE and headers as people type them."""

import pytest

from podium.cli.pairs import headers_of, pairs_of
from podium.resources.errors import InvalidInput


def test_what_comes_after_the_first_mark_is_the_value_as_it_stands() -> None:
    assert pairs_of(["a=b=c", "b= x ", "c="], "--query") == [("a", "b=c"), ("b", " x "), ("c", "")]
    assert pairs_of(None, "--query") == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a"], "--query: expected NAME=NUMBER, got 'a'"),
        (["=a"], "--query: expected NAME=NUMBER, got '=a'"),
        (["a=1", "a=1"], "--query: a: expected once, got twice"),
        (["x" * 10_000], f"--query: expected NAME=NUMBER, got '{'x' * 60}'"),
    ],
)
def test_what_is_wrong_is_named_by_its_option(given: list[str], words: str) -> None:
    with pytest.raises(InvalidInput) as error:
        pairs_of(given, "--query", value="NUMBER")
    assert str(error.value) == words


def test_a_header_loses_the_blanks_around_and_may_come_again() -> None:
    assert headers_of(["X-A: b:c ", "x-a:", "x-a: d"]) == [("X-A", "b:c"), ("x-a", ""), ("x-a", "d")]


@pytest.mark.parametrize("text", ["X-A", ": b", "  : b"])
def test_a_header_has_a_name(text: str) -> None:
    with pytest.raises(InvalidInput, match="--header: expected NAME: VALUE"):
        headers_of([text])
