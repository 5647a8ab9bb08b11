"""What a person applies, checked whole: every wrong field is named, and what `get` printed may be applied again."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from podium.resources.descriptions import Described
from podium.resources.errors import InvalidInput
from podium.resources.kinds import KINDS, json_schema, kind_of, parse_applied
from podium.resources.shape import Spec

DEPLOYMENT = {
    "apiVersion": "podium/v1",
    "kind": "Deployment",
    "metadata": {"name": "churn"},
    "spec": {"model": {"name": "churn", "version": 1}},
}


def refused(document: object, **more: Any) -> dict[str, str]:
    """Field -> message."""
    with pytest.raises(InvalidInput) as error:
        parse_applied(document, **more)
    assert error.value.issues
    return {issue.field: issue.message for issue in error.value.issues}


def test_what_get_prints_may_be_applied_again_and_its_status_is_not_looked_at() -> None:
    made = parse_applied(DEPLOYMENT)
    printed = {**made.document(), "status": {"phase": "Failed", "invented": True}}
    assert parse_applied(printed) == made


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"apiVersion": "v1"}, "apiVersion", "expected podium/v1"),
        ({"apiVersion": None}, "apiVersion", "expected podium/v1"),
        ({"kind": None}, "kind", "expected one of Workspace, Model, "),
        ({"kind": "Deploymnet"}, "kind", "unknown kind 'Deploymnet'; known: Workspace, "),
        ({"kind": "Revision"}, "kind", "a Revision is made by Podium, not applied"),
        ({"metadata": None}, "metadata", "expected an object with at least a name"),
        ({"metadata": {}}, "metadata.name", "required"),
        ({"metadata": {"name": "Churn"}}, "metadata.name", "expected 1 to 53 lower-case letters"),
        ({"metadata": {"name": "churn", "lables": {}}}, "metadata.lables", "did you mean labels?"),
        ({"spec": None}, "spec.model", "required"),
        (
            {"spec": {"model": {"name": "m", "version": 1}, "replica": 2}},
            "spec.replica",
            "did you mean replicas?",
        ),
        ({"sepc": {}}, "sepc", "unknown field; expected apiVersion, kind, metadata, spec"),
        ({"x" * 999: 1}, "x" * 60, "unknown field"),
    ],
    ids=str,
)
def test_every_wrong_part_is_named(change: dict[str, Any], field: str, words: str) -> None:
    said = refused({**DEPLOYMENT, **change})
    assert words in said[field]


def test_metadata_and_spec_are_both_told_of_at_once() -> None:
    said = refused({**DEPLOYMENT, "apiVersion": "v2", "metadata": {"name": "-"}, "spec": {"model": {}}})
    assert set(said) == {"apiVersion", "metadata.name", "spec.model.name"}


@pytest.mark.parametrize("document", [None, [], "kind: Deployment", 5, True])
def test_what_is_no_object_is_told_what_one_has(document: object) -> None:
    assert refused(document) == {"body": "expected an object with apiVersion, kind, metadata and spec"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["apiVersion", "kind", "metadata", "spec", "extra"]), json_values),
    json_values,
)
def test_whatever_is_sent_is_taken_or_refused_in_words(document: dict[str, Any], model: Any) -> None:
    whole = {**DEPLOYMENT, "spec": {"model": model}}
    for sent in (document, {**DEPLOYMENT, **document}, whole):
        try:
            parse_applied(sent)
        except InvalidInput as error:
            assert error.issues
            assert all(issue.field and issue.message for issue in error.issues)


def test_the_workspace_is_the_requests_and_no_other_may_be_named() -> None:
    assert parse_applied(DEPLOYMENT, workspace="risk").metadata.workspace == "risk"
    assert parse_applied(DEPLOYMENT).metadata.workspace == "default"
    other = {**DEPLOYMENT, "metadata": {"name": "churn", "workspace": "sales"}}
    assert "expected risk" in refused(other, workspace="risk")["metadata.workspace"]


def test_a_workspace_stands_in_the_default_one_wherever_it_is_applied() -> None:
    document = {
        "apiVersion": "podium/v1",
        "kind": "Workspace",
        "metadata": {"name": "risk", "workspace": "sales"},
    }
    assert parse_applied(document, workspace="sales").metadata.workspace == "default"


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_a_kind_is_found_by_every_name_that_it_has(kind: Any) -> None:
    for name in (kind.name, kind.plural, kind.short, kind.name.upper()):
        assert kind_of(name) is kind


def test_no_two_kinds_share_a_name_and_an_unknown_one_is_told_them_all() -> None:
    names = [name for kind in KINDS.values() for name in (kind.name.lower(), kind.plural, kind.short)]
    assert len(names) == len(set(names))
    with pytest.raises(InvalidInput, match=r"unknown kind 'pod'; known: Workspace, Model, .*Rollout"):
        kind_of("pod")


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_the_published_schema_is_the_kinds_own(kind: Any) -> None:
    schema = json_schema(kind)
    assert schema["title"] == kind.name
    assert schema["properties"]["kind"] == {"const": kind.name}
    assert schema["required"] == ["apiVersion", "kind", "metadata", "spec"]
    fields = {field.alias or name for name, field in kind.spec.model_fields.items()}
    assert set(schema["$defs"][kind.spec.__name__].get("properties", {})) == fields


def test_a_published_schema_says_what_the_fields_mean() -> None:
    parts = json_schema(KINDS["Deployment"])["$defs"]
    window = parts["Scaling"]["properties"]["stableWindow"]
    assert window["description"] == "Over which the load is averaged."
    # Of a base class, and over several lines.
    baseline = parts["CanaryStrategy"]["properties"]["baseline"]["description"]
    assert "as many as the candidate has, started when it is" in baseline
    assert "\n" not in baseline


def test_a_description_names_other_fields_as_they_are_written() -> None:
    class Here(Spec):
        """A model in this test."""

        the_most: int = 1
        """No more than `the_least` and `other.the_least`."""
        the_least: int = Field(default=0, description="Given.")
        """Not this."""
        silent: int = 0

    # A class within a function has no place in its module: nothing is told of it, and nothing fails.
    assert "description" not in Here.model_json_schema(schema_generator=Described)["properties"]["theMost"]
    found = Outside.model_json_schema(schema_generator=Described)["properties"]
    assert found["theMost"]["description"] == "No more than `theLeast` and `other.theLeast`, `x` times."
    assert found["theLeast"]["description"] == "Given."
    assert "description" not in found["silent"]


class Outside(Spec):
    """A model at the top of a module."""

    the_most: int = 1
    """No more than `the_least`
    and `other.the_least`, `x` times."""
    the_least: int = Field(default=0, description="Given.")
    """Not this."""
    silent: int = 0
