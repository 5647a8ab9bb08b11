"""Reading what a person wrote: nothing passes unchecked, and every error says where."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.cli.manifests import read
from podium.resources.errors import InvalidInput
from podium.resources.shape import NAME_RULE

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "podium/v1",
    "kind": "Deployment",
    "metadata": {"name": "churn"},
    "spec": {"model": {"name": "churn", "version": "1"}},
}


def named(name: str, kind: str = "Model", **spec: Any) -> str:
    return json.dumps({"apiVersion": "podium/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})


def refused(text: str | bytes, tmp_path: Path, name: str = "a.yaml") -> list[str]:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidInput) as caught:
        read([str(path)])
    return [
        f"{issue.field.replace(str(tmp_path) + '/', '')}: {issue.message}" for issue in caught.value.issues
    ]


def test_a_folder_is_read_by_name_and_what_others_need_goes_first(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(named("second"))
    (tmp_path / "a.json").write_text(json.dumps(DEPLOYMENT))
    (tmp_path / "c.yaml").write_text(named("team", "Workspace"))
    (tmp_path / "notes.txt").write_text("not: [yaml")
    (tmp_path / "folder.yaml").mkdir()
    found = read([str(tmp_path)])
    assert [document.label for document in found] == ["Workspace team", "Model second", "Deployment churn"]


def test_many_documents_empty_ones_aside(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(f"---\n{named('one')}\n---\n---\n# nothing\n---\n{named('two')}\n")
    found = read([str(path)])
    assert [(document.label, document.source) for document in found] == [
        ("Model one", f"{path}, document 1"),
        ("Model two", f"{path}, document 2"),
    ]


def test_the_list_that_get_prints_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"items": [json.loads(named("one")), json.loads(named("two"))]}))
    assert [document.source for document in read([str(path)])] == [f"{path}, items[0]", f"{path}, items[1]"]


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(named("one").encode())))
    [document] = read(["-"])
    assert (document.source, document.label) == ("stdin", "Model one")


def test_the_workspace_of_the_command_line_is_filled_in(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(named("one"))
    [document] = read([str(tmp_path)], "team-a")
    assert document.resource.metadata.workspace == "team-a"


def test_every_wrong_field_of_every_document_is_named(tmp_path: Path) -> None:
    text = f"{named('one', colour='red')}\n---\n{named('Two', owner=3)}"
    assert refused(text, tmp_path) == [
        "a.yaml, document 1: spec.colour: unknown field; known: description, owner, riskTier",
        f"a.yaml, document 2: metadata.name: expected {NAME_RULE}",
        "a.yaml, document 2: spec.owner: expected a text, got 3: write it in quotes",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "not YAML or JSON"),
        ("{{{{", "not YAML or JSON"),
        ("just words", "expected an object"),
        ("", "expected at least one document"),
        ("# nothing", "expected at least one document"),
        ("kind: Model\nkind: Deployment", "the key 'kind' stands there twice"),
        ("kind: Gizmo\napiVersion: podium/v1", "unknown kind 'Gizmo'"),
        ("kind: Rollout\napiVersion: podium/v1", "made by Podium, not applied"),
        (b"\xff\xfe\x00", "expected UTF-8 text"),
        ("x: \x07", "characters that YAML does not allow"),
        ("kind: Model\nspec: {description: 2024-01-01}", "YAML reads this as a date: put it in quotes"),
        ("kind: Model\nspec: {1: x}", "expected a text as the key, got 1 (int)"),
        ("kind: Model\nspec: {description: .nan}", "expected a finite number"),
        ("kind: Model\nspec: {description: !!binary aGk=}", "YAML reads this as a bytes"),
        ("kind: Model\nspec: !!python/object/apply:os.system [id]", "not YAML or JSON"),
        ("? [a, b]\n: c", ""),
        ("[" * 3000 + "]" * 3000, "expected at most 40 levels"),
        ("- 2024-13-45", ""),
    ],
)
def test_what_is_no_manifest(text: str | bytes, words: str, tmp_path: Path) -> None:
    messages = refused(text, tmp_path)
    assert any(words in message for message in messages)
    assert all(str(tmp_path.name) in message or message.startswith("a.yaml") for message in messages)


def test_aliases_do_not_make_a_small_text_a_huge_document(tmp_path: Path) -> None:
    lines = ["kind: Model", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert any("aliases followed" in message for message in refused("\n".join(lines), tmp_path))


def test_a_value_that_contains_itself(tmp_path: Path) -> None:
    assert refused("kind: Model\nspec: &a {description: *a}", tmp_path)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    assert "expected at most 8 MiB" in refused("#" * (8 * 2**20 + 1), tmp_path)[0]


def test_the_same_object_twice(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(named("one"))
    assert "Model one stands in" in refused(named("one") + "\n---\n" + named("one"), tmp_path)[0]
    with pytest.raises(InvalidInput, match="stands in"):
        read([str(tmp_path / "b.json"), str(tmp_path / "b.json")])


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such file or folder"):
        read([str(tmp_path / "nosuch.yaml")])
    with pytest.raises(InvalidInput, match="a folder without"):
        read([str(tmp_path)])


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stream = io.TextIOWrapper(io.BytesIO(text.encode("utf-8", "surrogatepass")))
        patch.setattr(sys, "stdin", stream)
        with pytest.raises(InvalidInput):
            read(["-"])
