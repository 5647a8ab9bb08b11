"""Small readers and writers of the command line: rows, logs, errors, formats."""

import io
import json
import sys
from typing import Any

import pytest
import typer
import yaml

from podium.cli.commands.models import differences, flat
from podium.cli.commands.predictions import _show
from podium.cli.commands.records import after
from podium.cli.exits import Exit
from podium.cli.following import Deadline, seconds_of, worst
from podium.cli.inputs import _tensors, _values
from podium.cli.output import as_yaml, emit_line, emit_list
from podium.cli.reporting import lines, reported
from podium.cli.session import Format, Session
from podium.resources.errors import Conflict, InvalidInput, Issue, NotFound, Unavailable


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2.5,null", [1, 2.5, None]),
        ("1, ,NaN,x", [1, None, None, "x"]),
        ('"a,b",true', ["a,b", True]),
        ("a b,007", ["a b", "007"]),
        ("", []),
    ],
)
def test_rows(text: str, values: list[Any]) -> None:
    assert _values(text) == values


def test_a_whole_request_is_taken_apart_and_nonsense_refused() -> None:
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [1]}
    assert _tensors({"inputs": [tensor]}, "--data", "--data") == [tensor]
    assert _tensors({"x": [[1]]}, "--data", "--data") == {"x": [[1]]}
    for given in ([], {}, 3, "text", None):
        # `podium predict` and `podium load` have other options; what is told is the one that was given.
        for source, option in (("--data", "--data"), ("--input", "--input"), ("x.json", "--input")):
            with pytest.raises(InvalidInput, match=source) as refused:
                _tensors(given, source, option)
            assert f"example {option} " in str(refused.value.next_step)
            assert ("--data" in f"{refused.value}{refused.value.next_step}") is (option == "--data")


def test_predictions_are_a_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = [
        {"name": "predict", "shape": [2], "datatype": "INT64", "data": [1, 0]},
        {"name": "proba", "shape": [2, 2], "datatype": "FP64", "data": [0.1, 0.9, 0.8, 0.2]},
    ]
    _show({"outputs": outputs})
    assert capsys.readouterr().out.splitlines() == [
        "predict  proba[0]  proba[1]",
        "1        0.1       0.9",
        "0        0.8       0.2",
    ]
    _show({"outputs": [{"name": "cube", "shape": [1, 1, 2], "datatype": "FP32", "data": [1, 2]}]})
    assert capsys.readouterr().out == "cube FP32 [1, 1, 2]: [1, 2]\n"


@pytest.mark.parametrize(
    ("before", "now", "fresh"),
    [
        (None, "abc", "abc"),
        ("abc", "abc", ""),
        ("abc", "abcd", "d"),
        ("abc", "cde", "de"),
        ("abc", "xyz", "xyz"),
        ("aaa", "aaaa", ""),
        ("", "ab", "ab"),
        ("abc", "", ""),
    ],
)
def test_new_lines_of_a_log_are_found_by_what_was_there(before: str | None, now: str, fresh: str) -> None:
    assert after(None if before is None else list(before), list(now)) == list(fresh)


def test_a_log_that_grew_by_more_than_is_fetched() -> None:
    everything = [f"line {number}" for number in range(300)]
    assert after(everything[:100], everything[60:160]) == everything[100:160]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NotFound("there is no x"), ["Error: there is no x"]),
        (NotFound("there is no x.", next_step="look"), ["Error: there is no x. Next: look"]),
        (Conflict("it changed", next_step="read it again"), ["Error: it changed. Next: read it again"]),
        (InvalidInput(Issue("a.b", "wrong"), next_step="fix it"), ["Error: a.b: wrong. Next: fix it"]),
        (
            InvalidInput([Issue("a", "x"), Issue("b", "y")], next_step="z"),
            ["Error: a: x", "Error: b: y", "Next: z"],
        ),
        (InvalidInput(Issue("a", "a: is named already")), ["Error: a: is named already"]),
        (Unavailable("two\nlines \x1b[2J"), ["Error: two lines \N{REPLACEMENT CHARACTER}[2J"]),
    ],
)
def test_errors_as_lines(error: Any, text: list[str]) -> None:
    assert lines(error) == text


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), Exit.INTERRUPTED, ""),
        (NotFound("gone"), Exit.ERROR, "Error: gone\n"),
        (
            PermissionError(13, "Permission denied", "/some/file"),
            Exit.ERROR,
            "Error: /some/file: Permission denied\n",
        ),
        (ZeroDivisionError("oh"), Exit.ERROR, "Error: podium failed unexpectedly: ZeroDivisionError: oh."),
        (typer.Exit(Exit.HELD), Exit.HELD, ""),
    ],
)
def test_whatever_goes_wrong_becomes_a_line_and_a_code(
    error: BaseException, code: Exit, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, reported(0):
        raise error
    said = capsys.readouterr()
    assert (caught.value.exit_code, said.out) == (code, "")
    assert said.err.startswith(words)
    assert "Traceback" not in said.err


def test_a_closed_pipe_is_no_error_of_ours() -> None:
    with pytest.raises(BrokenPipeError), reported(0):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("0.5", 0.5), ("2", 2)]
)
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "5 m", "1e99", "nan"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InvalidInput, match="--timeout"):
        seconds_of(text)


def test_the_worst_of_several_outcomes() -> None:
    assert worst([]) is Exit.OK
    assert worst([Exit.OK, Exit.TIMED_OUT, Exit.HELD]) is Exit.HELD
    assert worst([Exit.HELD, Exit.ROLLED_BACK]) is Exit.ROLLED_BACK
    assert worst([Exit.ROLLED_BACK, Exit.ERROR]) is Exit.ERROR
    assert Deadline(-1).left == 0


def test_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [{"b": 1, "a": "2026-01-01T00:00:00Z"}, {"b": None, "a": "ünïcode"}]

    def printed(output: Format) -> str:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stdout", stream)
        emit_list(Session(output=output), items, lambda: print("a table"))
        return stream.getvalue()

    assert json.loads(printed(Format.JSON)) == {"items": items}
    assert list(yaml.safe_load_all(printed(Format.YAML))) == items
    assert printed(Format.TABLE) == "a table\n"
    assert as_yaml(items[0]).startswith("b: 1\n")


def test_a_stream_is_a_line_of_json_each(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        emit_line(Session(output=Format.JSON), {"n": number}, "for people")
    assert [json.loads(line)["n"] for line in capsys.readouterr().out.splitlines()] == [0, 1]
    emit_line(Session(), {"n": 3}, "for people")
    assert capsys.readouterr().out == "for people\n"


def test_an_insertion_into_a_list_is_one_difference() -> None:
    one = {
        "files": [{"path": "b", "sha256": "1" * 64, "size": 1}],
        "metrics": {"auc": 0.9},
        "requirements": ["x==1"],
        "git": None,
    }
    two = {
        **one,
        "files": [{"path": "a", "sha256": "2" * 64, "size": 2048}, *one["files"]],  # type: ignore[misc]
        "metrics": {"auc": 0.95},
        "requirements": [],
    }
    assert differences(flat(one), flat(two)) == [
        ("requirements[x==1]", "x==1", None),
        ("metrics.auc", 0.9, 0.95),
        ("files[a]", None, "sha256:222222222222 (2.0 KiB)"),
    ]
