"""Every error of the tree has a status, and its document says what it must."""

import pytest

from podium.api import problems
from podium.resources import errors
from podium.resources.errors import Conflict, InvalidInput, Issue, PodiumError, TooLarge

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PodiumError)]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status(kind: type[PodiumError]) -> None:
    assert kind in problems.STATUSES
    error = kind([Issue("a", "b")]) if kind is InvalidInput else kind("words", next_step="do this")
    document = problems.document(problems.problem_of(error, "r1"))
    assert document["status"] == problems.STATUSES[kind]
    assert document["type"] == f"urn:podium:problem:{kind.code}"
    assert document["title"]
    assert (document["status"] >= 500) == (
        kind.__name__ in ("PodiumError", "IntegrityError", "LeaseLost", "Unavailable")
    )


def test_fields_and_versions_are_told_and_other_details_are_not() -> None:
    error = Conflict(
        "moved", details={"resourceVersion": 7, "field": "metadata.resourceVersion", "secret": "s3cret"}
    )
    document = problems.document(problems.problem_of(error, "r1"))
    assert document["resourceVersion"] == 7
    assert document["issues"] == [{"field": "metadata.resourceVersion", "message": "moved"}]
    assert "s3cret" not in str(document)
    assert problems.problem_of(TooLarge("big", details={"field": "body"}), "r").issues


def test_an_unforeseen_error_tells_nothing() -> None:
    line = problems.problem_line(RuntimeError("the password is hunter2"), "r9")
    assert "hunter2" not in str(line)
    assert line["instance"] == "urn:podium:request:r9"
    assert line["status"] == 500
