"""Values that no database takes as they are."""

from hypothesis import given
from hypothesis import strategies as st

from podium.store.columns import clean
from podium.store.pages import above, below, make_token, read_token


@given(st.text(st.characters(), max_size=50))
def test_clean_text_can_be_stored(text: str) -> None:
    kept = clean(text)
    assert "\x00" not in kept
    kept.encode()
    assert len(kept) == len(text)
    assert clean(kept) == kept


def test_ordinary_text_is_left_alone() -> None:
    for text in ("", "plain", "two\nlines\t", "Grüße 日本 🎉", "\ufffd"):
        assert clean(text) is text or clean(text) == text
    assert clean("a\x00b\ud800c\udfff") == "a\ufffdb\ufffdc\ufffd"


@given(st.integers())
def test_any_number_makes_a_cursor(number: int) -> None:
    assert -1 <= above(number) < 2**63
    assert 0 <= below(number) < 2**63


@given(st.integers(0, 2**62), st.text(), st.text())
def test_page_tokens_come_back(version: int, workspace: str, name: str) -> None:
    workspace, name = clean(workspace), clean(name)
    assert read_token(make_token(version, workspace, name)) == (version, workspace, name)
