"""Files that are whole or not there, whatever lies in the way and however full the disk is."""

import os
import stat
import threading
from pathlib import Path

import pytest

from podium.resources.durable import create_file, replace_file


@pytest.mark.parametrize("several", [False, True])
def test_it_replaces_what_was_there_and_is_the_owners_alone(tmp_path: Path, several: bool) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(0o644)
    replace_file(path, b"new", several_writers=several)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("several", [False, True])
def test_on_a_full_disk_the_old_content_stays_and_nothing_is_left_over(
    tmp_path: Path, several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "x"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new", several_writers=several)
    with pytest.raises(OSError, match="No space left"):
        create_file(tmp_path / "y", b"new")
    assert os.listdir(tmp_path) == ["x"]
    assert path.read_bytes() == b"old"


def test_a_folder_in_the_way_is_an_error_and_nothing_is_left_over(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError):
        replace_file(tmp_path / "x", b"new")
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("kind", ["a killed writer's", "a link", "a second name of another file"])
def test_what_lies_under_the_drafts_name_is_neither_written_to_nor_kept(tmp_path: Path, kind: str) -> None:
    folder, other, draft = tmp_path / "folder", tmp_path / "other", tmp_path / "folder" / ".x.new"
    folder.mkdir()
    other.write_bytes(b"another's, and longer than what comes")
    other.chmod(0o644)
    if kind == "a link":
        draft.symlink_to(other)
    elif kind == "a second name of another file":
        draft.hardlink_to(other)
    else:
        draft.write_bytes(b"half of something")
    replace_file(folder / "x", b"whole")
    assert (folder / "x").read_bytes() == b"whole"
    assert stat.S_IMODE((folder / "x").stat().st_mode) == 0o600
    assert other.read_bytes() == b"another's, and longer than what comes"
    assert os.listdir(folder) == ["x"]


def test_a_folder_that_cannot_be_flushed_is_an_error_and_the_content_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(5, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    with pytest.raises(OSError, match="Input/output"):
        replace_file(tmp_path / "x", b"whole")
    assert (tmp_path / "x").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["x"]


def test_of_several_that_create_one_wins_and_the_others_know(tmp_path: Path) -> None:
    path, start, won = tmp_path / "x", threading.Barrier(8), []

    def write(number: int) -> None:
        start.wait(10)
        if create_file(path, b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(won) == 1
    assert path.read_bytes() == b"%d" % won[0]
    assert os.listdir(tmp_path) == ["x"]


def test_several_that_replace_never_leave_a_mixture(tmp_path: Path) -> None:
    path, start = tmp_path / "x", threading.Barrier(4)
    contents = [bytes([letter]) * 100_000 for letter in b"abcd"]

    def write(content: bytes) -> None:
        start.wait(10)
        for _ in range(5):
            replace_file(path, content, several_writers=True)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["x"]
