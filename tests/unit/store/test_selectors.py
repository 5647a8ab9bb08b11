"""The text of a selector."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.resources.errors import InvalidInput
from podium.store.selectors import Term, parse


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("  ", []),
        ("a=b", [Term("a", ("b",))]),
        ("a == b , c!=d", [Term("a", ("b",)), Term("c", ("d",), negated=True)]),
        ("a in (x,y)", [Term("a", ("x", "y"))]),
        ("a notin ( x , y ),!b", [Term("a", ("x", "y"), negated=True), Term("b", None, negated=True)]),
        ("in=notin", [Term("in", ("notin",))]),
        ("in in (in)", [Term("in", ("in",))]),
        ("app.kubernetes.io/name=x_y.z", [Term("app.kubernetes.io/name", ("x_y.z",))]),
        ("a=", [Term("a", ("",))]),
        ("a in ()", [Term("a", ("",))]),
        ("inside", [Term("inside", None)]),
    ],
)
def test_what_is_understood(text: str, terms: list[Term]) -> None:
    assert parse(text, "labelSelector") == terms


@pytest.mark.parametrize(
    "text",
    ["=", "a=b=c", "a b", "a,", ",a", "a,,b", "a in x", "a in (x", "a in (x))", "!", "!a=b", "(a)", "a=(b)"],
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text, "labelSelector")
    assert [issue.field for issue in caught.value.issues] == ["labelSelector"]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        terms = parse(text, "fieldSelector")
    except InvalidInput as refused:
        assert refused.issues[0].field == "fieldSelector"
    else:
        assert bool(terms) == bool(text.strip())


WORDS = st.text("abcxyz019._/-", min_size=1, max_size=8).filter(lambda word: word not in ("in", "notin"))
TERMS = st.builds(
    Term, WORDS, st.one_of(st.none(), st.lists(WORDS, min_size=1, max_size=3).map(tuple)), st.booleans()
)


def written(term: Term) -> str:
    if term.values is None:
        return f"!{term.path}" if term.negated else term.path
    if len(term.values) == 1:
        return f"{term.path}{'!=' if term.negated else '='}{term.values[0]}"
    return f"{term.path} {'notin' if term.negated else 'in'} ({', '.join(term.values)})"


@given(st.lists(TERMS, min_size=1, max_size=6))
def test_what_is_written_is_what_is_read(terms: list[Term]) -> None:
    assert parse(",".join(map(written, terms)), "labelSelector") == terms
