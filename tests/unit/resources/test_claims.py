"""Claims that people put into tokens: which are taken, and their form as one text."""

import re

import pytest

from podium.resources.claims import RESERVED, as_text, check_asked, check_given, text_pattern
from podium.resources.patterns import matches_whole

GOOD = {"tier": "gold", "user": "u-17", "user_id": "a=b,c|d/e@f.org", "x": "~" * 128}


def test_a_claims_value_is_found_in_the_text_of_all() -> None:
    check_given(GOOD)
    text = as_text(GOOD)
    for name, value in GOOD.items():
        found = re.fullmatch(text_pattern(name), text)
        assert found is not None
        assert found[1] == value
        # RE2 is what the gateway has.
        assert matches_whole(text_pattern(name), text)
    for name in ("ser", "user_", "tie", "gold", "use"):
        assert re.fullmatch(text_pattern(name), text) is None


def test_a_value_cannot_pass_for_another_claim() -> None:
    given = {"a": "user=u-1", "b": "x=;"}
    with pytest.raises(ValueError, match="b: expected 1 to 128 visible ASCII characters but ';'"):
        check_given(given)
    text = as_text({"a": "user=u-1", "user": "u-2"})
    found = re.fullmatch(text_pattern("user"), text)
    assert found is not None
    assert found[1] == "u-2"
    assert re.fullmatch(text_pattern("user"), as_text({"a": "user=u-1"})) is None


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_names_are_named(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{name}: it has a meaning of its own, as have sub, role, jti, iss"
    ):
        check_given({name: "x"})


@pytest.mark.parametrize("name", ["", "Tier", "1a", "a.b", "a b", "a;b", "a" * 33, "é", "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="expected a claim's name"):
        check_given({name: "x"})
    with pytest.raises(ValueError, match="expected a claim's name"):
        check_asked(name)


@pytest.mark.parametrize("value", ["", " ", "a b", "a\r\nx: y", "a;b", "é", "\x7f", "x" * 129, "a\x00"])
def test_values_that_are_none(value: str) -> None:
    with pytest.raises(ValueError, match="tier: expected 1 to 128 visible ASCII characters"):
        check_given({"tier": value})


def test_all_together_are_bounded() -> None:
    with pytest.raises(ValueError, match="at most 1024 bytes of names and values together, got 1032"):
        check_given({f"c{number}": "x" * 127 for number in range(8)})


def test_a_rule_may_ask_for_our_own_and_for_given_ones() -> None:
    for name in ("sub", "role", "jti", "tier"):
        check_asked(name)
    for name in ("exp", "ws", "claims"):
        with pytest.raises(ValueError, match=f"{name}: expected sub, role, jti or a claim of"):
            check_asked(name)
