"""YAML from strangers: bombs, tags, depth, duplicates."""

import pytest

from podium.registry.yaml_text import MAX_DEPTH, parse_yaml
from podium.resources.errors import InvalidInput

LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "aliases followed"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a {b: *a}", "contains itself"),
        ("[" * 100_000, r"levels|YAML"),
        ("a: " + "{b: " * (MAX_DEPTH + 5) + "1" + "}" * (MAX_DEPTH + 5), "levels"),
        ("".join(f"{'-' * 1} " for _ in range(50_000)) + "x", "levels"),
        ("x: !!python/object/apply:os.system ['touch /tmp/owned']", "not YAML"),
        ("!!python/name:os.system", "not YAML"),
        ("a: 1\na: 2", "stands there twice"),
        ("a: {b: 1, b: 2}", "stands there twice"),
        ("a: [1, 2", ":1|:2"),
        ("- a\n- b", "keys and values"),
        ("1: a", "keys and values"),
        ("", "empty"),
        ("a: 2026-99-99", "cannot be read"),
        ("a: " + "9" * 5000, "cannot be read"),
        ("? [a, b]\n: c", r"not YAML|cannot be read"),
        ("a: \x00", "not YAML"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_tricks_are_refused_naming_the_file(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as error:
        parse_yaml(text.encode(), "podium.yaml")
    assert error.value.issues[0].field.startswith("podium.yaml")


def test_many_values_are_refused() -> None:
    with pytest.raises(InvalidInput, match="values"):
        parse_yaml(b"a: [" + b"1," * 300_000 + b"]", "MLmodel")


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(InvalidInput, match="UTF-8"):
        parse_yaml(b"a: \xff\xfe", "MLmodel")


def test_plain_yaml_with_a_few_aliases_passes() -> None:
    text = b"a: &x [1, two]\nb: *x\nc: {d: null, e: true, f: 1.5}\n"
    assert parse_yaml(text, "MLmodel") == {
        "a": [1, "two"],
        "b": [1, "two"],
        "c": {"d": None, "e": True, "f": 1.5},
    }
