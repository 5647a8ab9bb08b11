"""Text for people: aligned, and harmless to the terminal that shows it."""

import datetime
import io
import sys
import time

import pytest

from podium.cli.display import age, clean, clock, dig, plain_table, print_table, size, span, wants_colour
from podium.cli.progress import Activity

NOW = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_that_steers_a_terminal_is_printed() -> None:
    hostile = "a\x1b[2J\x1b]0;title\x07b\rc\x9b31m\u202ed\ttab\nsecond"
    assert not any(
        ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in clean(hostile).replace("\t", "")
    )
    assert "\u202e" not in clean(hostile)
    assert clean("two\nlines") == "two lines"


def test_columns_are_aligned_and_empty_ones_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain_table(["A", "B"], [["long cell", "x"], ["y", ""]]) == ["A          B", "long cell  x", "y"]
    print_table(["NAME", "ROLLOUT", "AGE"], [["churn", None, "3s"], ["other", "", "4s"]])
    assert capsys.readouterr().out.splitlines() == ["NAME   AGE", "churn  3s", "other  4s"]


def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colour(Terminal())
    assert not wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())


def test_a_table_on_a_terminal_has_colours_and_all_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    print_table(["NAME", "PHASE", "MESSAGE"], [["churn", "Ready", "[bold]not markup[/] " + "word " * 20]])
    text = terminal.getvalue()
    assert "\x1b[32mReady" in text
    assert "[bold]not markup[/]" in text
    assert text.count("word") == 20


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d")]
)
def test_ages(seconds: int, words: str) -> None:
    assert age(NOW - datetime.timedelta(seconds=seconds), NOW) == words
    assert age((NOW - datetime.timedelta(seconds=seconds)).isoformat(), NOW) == words


def test_what_is_no_time() -> None:
    assert (age(None), age("soon"), clock(None)) == ("", "", "")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.84, "0.8 s"), (42.2, "42 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1023, "1023 B"), (4200, "4.1 KiB"), (2**41, "2.0 TiB")]
)
def test_sizes(count: int, words: str) -> None:
    assert size(count) == words


def test_dig() -> None:
    document = {"status": {"phase": "Ready", "none": None}}
    assert dig(document, "status.phase") == "Ready"
    assert dig(document, "status.none.more") is None
    assert dig(document, "spec.model.name") is None


def test_progress_is_lines_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with Activity("pushing churn") as activity:
        for share in range(3):
            activity.advance(share, 3)
            activity.say("reading model.pkl")
        activity.say("done\x1b[2J")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "pushing churn: reading model.pkl\npushing churn: done\N{REPLACEMENT CHARACTER}[2J\n"


def test_progress_says_nothing_when_it_is_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    with Activity("pushing", quiet=True) as activity:
        activity.say("something")
    assert capsys.readouterr().err == ""


def test_a_bar_is_shown_on_a_terminal_after_a_second_and_is_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    deadline = time.monotonic() + 20
    with Activity("pushing") as activity:
        activity.say("at once")
        assert terminal.getvalue() == ""
        while "still at it" not in terminal.getvalue():
            assert time.monotonic() < deadline
            activity.advance(1, 2)
            activity.say("going on")
            activity.say("still at it")
    assert "pushing: " in terminal.getvalue()
