"""Names, labels and annotations: what may stand in the metadata of every object."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from podium.resources.kinds import KINDS
from podium.resources.shape import Metadata, Status, check_name


@pytest.mark.parametrize("name", ["a", "churn", "a-b", "a1", "a" * 53])
def test_a_name_is_lower_case_letters_digits_and_dashes(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "-a", "a-", "a_b", "a.b", "a" * 54, "a\n", "ä", "a/b", "../a", "a b", "a\x00"]
)
def test_no_other_name_is_taken(name: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 53 lower-case letters"):
        check_name(name)


@given(st.text(max_size=60))
def test_a_name_that_is_taken_is_safe_in_a_path_a_host_name_and_a_cluster(name: str) -> None:
    try:
        check_name(name)
    except ValueError:
        return
    assert name.isascii()
    assert not set(name) & set("/\\._: \n\x00")
    assert len(name) <= 53


@pytest.mark.parametrize(
    ("labels", "fine"),
    [
        ({"team": "risk", "app.example.org/tier": "1", "x": ""}, True),
        ({"-team": "x"}, False),
        ({"": "x"}, False),
        ({"a/b/c": "x"}, False),
        ({"team": "two words"}, False),
        ({"team": "x" * 64}, False),
        ({"team\n": "x"}, False),
        ({f"k{n}": "x" for n in range(65)}, False),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_label_is_short_and_plain(labels: dict[str, str], fine: bool) -> None:
    if fine:
        assert Metadata(name="a", labels=labels).labels == labels
        return
    with pytest.raises(ValidationError):
        Metadata(name="a", labels=labels)


def test_an_annotation_is_any_text_without_nul_up_to_a_limit() -> None:
    assert Metadata(name="a", annotations={"note": "Zeile\nzwei ✓" + "x" * 100}).annotations
    for value in ("a\x00b", "x" * 16_385):
        with pytest.raises(ValidationError, match="at most 16384 characters and no NUL"):
            Metadata(name="a", annotations={"note": value})
    with pytest.raises(ValidationError, match="annotation key"):
        Metadata(name="a", annotations={"no key": "x"})


def test_a_typo_in_a_spec_is_refused_and_a_newer_servers_status_is_read() -> None:
    class Seen(Status):
        """Knows one field."""

        ready: int = 0

    assert Seen.model_validate({"ready": 1, "inventedLater": True}) == Seen(ready=1)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Metadata.model_validate({"name": "a", "label": {}})


@pytest.mark.parametrize("change", [{"name": "b"}, {"labels": {"a": "b"}}])
def test_an_object_never_changes_under_its_reader(change: dict[str, Any]) -> None:
    meta = Metadata(name="a")
    with pytest.raises(ValidationError, match="frozen"):
        setattr(meta, *next(iter(change.items())))


def test_a_document_leaves_out_what_is_not_set_and_reads_as_the_same_object() -> None:
    kind = KINDS["Model"]
    made = kind.parse({"metadata": {"name": "churn", "generation": 0}, "spec": {"owner": "risk"}})
    document = made.document()
    assert document["metadata"] == {"name": "churn", "workspace": "default", "generation": 0}
    assert document["spec"] == {"description": "", "owner": "risk", "riskTier": "unrated"}
    assert kind.parse(document) == made
    assert (made.key, made.uid) == ("default/churn", "")
