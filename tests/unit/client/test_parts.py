"""The parts of the SDK that need no server."""

import json
from pathlib import Path
from typing import Any

import pytest

from podium.client.answers import error_of
from podium.client.connection import Connection
from podium.client.prediction import tensor
from podium.client.watching import PATIENCE, WatchSession
from podium.resources.errors import Conflict, InvalidInput, PodiumError, Refused, Unavailable


def test_problem_documents_become_errors() -> None:
    body = {
        "type": "urn:podium:problem:conflict", "title": "t", "status": 409, "detail": "moved on", "code": "conflict",
        "instance": "urn:podium:request:1", "nextStep": "read it", "resourceVersion": 9,
    }  # fmt: skip
    error = error_of(
        409, {"content-type": "application/problem+json; charset=utf-8"}, json.dumps(body).encode()
    )
    assert isinstance(error, Conflict)
    assert (error.message, error.next_step, error.details["resourceVersion"]) == ("moved on", "read it", 9)
    issues = {**body, "code": "invalid", "issues": [{"field": "spec.x", "message": "no"}]}
    error = error_of(422, {"content-type": "application/problem+json"}, json.dumps(issues).encode())
    assert isinstance(error, InvalidInput)
    assert error.issues[0].field == "spec.x"
    unknown = {**body, "code": "somethingNewer"}
    error = error_of(409, {"content-type": "application/problem+json"}, json.dumps(unknown).encode())
    assert type(error) is PodiumError


@pytest.mark.parametrize(("status", "kind"), [(502, Unavailable), (404, PodiumError), (302, PodiumError)])
def test_answers_of_something_else(status: int, kind: type[PodiumError]) -> None:
    assert type(error_of(status, {"content-type": "text/html"}, b"<html>")) is kind
    assert type(error_of(status, {"content-type": "application/problem+json"}, b"{}")) is kind


def test_arguments_come_before_the_environment_and_that_before_files(tmp_path: Path) -> None:
    (tmp_path / "connection.json").write_text(json.dumps({"url": "http://h:1", "gateway": "http://h:2"}))
    (tmp_path / "admin.token").write_text("filetoken\n")
    (tmp_path / "admin.token").chmod(0o600)
    home = {"PODIUM_HOME": str(tmp_path)}
    assert Connection.resolve(environ=home) == Connection("http://h:1", "filetoken", "http://h:2")
    env = {**home, "PODIUM_URL": "http://e:1/", "PODIUM_TOKEN": "envtoken"}
    assert Connection.resolve(environ=env) == Connection("http://e:1", "envtoken", None)
    assert Connection.resolve("https://a", "arg", "http://g", environ=env) == Connection(
        "https://a", "arg", "http://g"
    )
    assert Connection.resolve(environ={**home, "PODIUM_URL": "http://e:1"}).token is None
    assert "filetoken" not in repr(Connection.resolve(environ=home))


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://", "http://u:p@h", "http://h?x=1"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Connection.resolve(url, environ={"PODIUM_HOME": "/nonexistent"})
    assert caught.value.issues[0].field == "url"


def test_a_broken_connection_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "connection.json").write_text("{")
    with pytest.raises(Refused, match="cannot be read"):
        Connection.resolve(environ={"PODIUM_HOME": str(tmp_path)})


def event(version: int, kind: str, position: int | None = None) -> bytes:
    data = {"version": version, "type": kind, "object": {"n": version}}
    return f"id: {position or version}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_a_stream_in_any_pieces(size: int) -> None:
    stream = event(5, "ADDED", 4) + event(5, "MODIFIED") + b": comment\n\n" + event(9, "BOOKMARK")
    session = WatchSession(["d"], None, None, bookmarks=False)
    found = [
        item.version
        for start in range(0, len(stream), size)
        for item in session.feed(stream[start : start + size])
    ]
    assert found == [5, 5]
    assert session.query == {"kinds": "Deployment", "after": "9"}


def test_who_breaks_off_in_a_commit_gets_it_again() -> None:
    session = WatchSession(None, None, 3, bookmarks=True)
    events = session.feed(event(5, "ADDED", 4) + event(5, "ADDED") + event(5, "BOOKMARK"))
    next(events)
    assert session.position == 3
    next(events)
    assert session.position == 4
    assert [item.type for item in events] == ["BOOKMARK"]
    assert session.position == 5


def test_a_watch_is_patient_and_gives_up() -> None:
    session = WatchSession(None, None, 3, bookmarks=True)
    pauses = [session.pause(now) for now in (0.0, 1.0, 2.0, 30.0)]
    assert all(pause is not None and 0 < pause <= 2 for pause in pauses)
    assert session.pause(PATIENCE + 1) is None
    list(session.feed(event(4, "BOOKMARK")))
    assert session.pause(PATIENCE + 2) is not None


@pytest.mark.parametrize(
    ("value", "shape", "datatype"),
    [
        ([[1.0, None], [2, 3.5]], [2, 2], "FP64"),
        ([1, 2, 3], [3], "INT64"),
        ([True, False], [2], "BOOL"),
        ([["a"], ["b"]], [2, 1], "BYTES"),
        ([1, None], [2], "FP64"),
        (3, [1], "INT64"),
        ([], [0], "FP64"),
    ],
)
def test_lists_become_tensors(value: Any, shape: list[int], datatype: str) -> None:
    made = tensor("x", value, {})
    assert (made["shape"], made["datatype"]) == (shape, datatype)
    assert tensor("x", value, {"x": "FP32"})["datatype"] == "FP32"


@pytest.mark.parametrize("value", [[[1, 2], [3]], [1, [2]], [[1], 2]])
def test_uneven_rows_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        tensor("x", value, {})
    assert caught.value.issues[0].field == "inputs.x"
    with pytest.raises(InvalidInput, match="known: y"):
        tensor("x", [1], {"y": "FP64"})
