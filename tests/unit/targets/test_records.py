"""Reading a replica's records: from where a reader left off, whatever was rotated away, torn or made up meanwhile."""

import os
from pathlib import Path

import numpy as np
import pytest

from podium.analysis.answers import read_answer
from podium.targets.port import RecordMark, ReplicaRecords
from podium.targets.process.records import FOLDER, read
from podium_runtime.recording import Recorder


def write(folder: Path, first: int, last: int, **limits: int) -> Recorder:
    recorder = Recorder(folder, **limits)
    for number in range(first, last):
        recorder.add({b"x-request-id": b"%d" % number}, 200, 0.001, {"y": np.arange(4.0)})
    recorder.close()
    return recorder


def ids(found: ReplicaRecords) -> list[int]:
    answers = [read_answer(line) for line in found.lines]
    return [int(answer.id) for answer in answers if answer is not None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / FOLDER
    made.mkdir()
    return made


def test_nothing_was_written(tmp_path: Path) -> None:
    found = read(tmp_path / "none", "r-1", None)
    assert (found.lines, found.lost, found.more, found.mark) == ((), 0, False, RecordMark(0, 0, 0))


def test_a_reader_goes_on_where_it_was(folder: Path) -> None:
    write(folder, 0, 10)
    first = read(folder.parent, "r-1", None)
    assert (ids(first), first.lost, first.more) == (list(range(10)), 0, False)
    again = read(folder.parent, "r-1", first.mark)
    assert (again.lines, again.lost, again.mark) == ((), 0, first.mark)
    write(folder, 10, 15)
    assert ids(read(folder.parent, "r-1", first.mark)) == list(range(10, 15))


def test_a_little_at_a_time_is_all_of_it(folder: Path) -> None:
    write(folder, 0, 300, segment_bytes=20_000)
    mark, found = None, []
    for _ in range(1000):
        some = read(folder.parent, "r-1", mark, most_bytes=700)
        found += ids(some)
        mark = some.mark
        if not some.more:
            break
    assert found == list(range(300 - len(found), 300))
    assert found == ids(read(folder.parent, "r-1", None))


def test_what_was_rotated_away_unread_is_counted(folder: Path) -> None:
    recorder = Recorder(folder, segment_bytes=5000)
    mark, seen, lost = None, 0, 0
    for number in range(1000):
        recorder.add({b"x-request-id": b"%d" % number}, 200, 0.001, {"y": np.arange(4.0)})
        if number == 9:
            recorder._writer.write(list(recorder._lines), 0)
            recorder._lines.clear()
            first = read(folder.parent, "r-1", None)
            mark, seen, lost = first.mark, len(ids(first)), first.lost
    recorder.close()
    rest = read(folder.parent, "r-1", mark)
    assert seen + lost == 10
    assert len(ids(rest)) + rest.lost == 990
    assert rest.lost > 0


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(folder: Path) -> None:
    path = folder / "0000000001.jsonl"
    path.write_bytes(b'{"before":0}\n{"id":"1","at":1,"s":0,"stat')
    first = read(folder.parent, "r-1", None)
    assert first.lines == ()
    with path.open("ab") as file:
        file.write(b'us":500}\n')
    assert ids(read(folder.parent, "r-1", first.mark)) == [1]


def test_lines_without_an_end_do_not_stop_the_reader(folder: Path) -> None:
    path = folder / "0000000001.jsonl"
    path.write_bytes(b"x" * 300_000)
    first = read(folder.parent, "r-1", None, most_bytes=100_000)
    assert first.mark.offset == 100_000
    second = read(folder.parent, "r-1", first.mark)
    assert second.mark.offset == 300_000
    assert all(read_answer(line) is None for line in (*first.lines, *second.lines))


def test_nothing_but_regular_files_in_a_real_folder_is_read(tmp_path: Path, folder: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"id":"1","at":1,"s":0,"status":500}\n')
    os.mkfifo(folder / "0000000001.jsonl")
    (folder / "0000000002.jsonl").symlink_to(secret)
    (folder / "0000000003.jsonl").mkdir()
    (folder / "notes.jsonl").write_text(secret.read_text())
    assert read(tmp_path, "r-1", None).lines == ()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "0000000001.jsonl").write_text(secret.read_text())
    private = tmp_path / "private"
    private.mkdir()
    (private / FOLDER).symlink_to(elsewhere)
    assert read(private, "r-1", None).lines == ()


def test_thousands_of_files_are_not_gone_through(folder: Path) -> None:
    for number in range(1000):
        (folder / f"{number:010}.jsonl").write_text('{"lost":1}\n')
    assert read(folder.parent, "r-1", None).lost <= 8


def test_a_replica_that_starts_anew_in_its_folder_loses_nothing(folder: Path) -> None:
    write(folder, 0, 5)
    first = read(folder.parent, "r-1", None)
    write(folder, 5, 8)
    second = read(folder.parent, "r-1", first.mark)
    assert (ids(second), second.lost) == ([5, 6, 7], 0)
