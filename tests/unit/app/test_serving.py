"""The folders of `podium model serve`: one per run, in a place where other runs and strangers' files are too."""

import fcntl
import threading
from pathlib import Path

from podium.app.serving import work_folder


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir()}


def test_a_folder_goes_with_its_run(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    with work_folder(root) as work:
        (work / "file").write_text("x")
        assert names(root) == {work.name}
        with work_folder(root) as other:
            assert names(root) == {work.name, other.name}, "a run that goes on keeps its folder"
        assert names(root) == {work.name}
    assert names(root) == set()


def test_what_killed_runs_left_goes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("x")
    (tmp_path / "0123456789ab").write_text("a file with a run's name")
    (tmp_path / "notes").mkdir()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    killed, unmarked = tmp_path / ("a" * 12), tmp_path / ("b" * 12)
    (killed / "blobs").mkdir(parents=True)
    (killed / "lock").touch()
    unmarked.mkdir()
    with work_folder(tmp_path) as work:
        assert names(tmp_path) == {work.name, "notes"}
    assert (tmp_path / ".DS_Store").read_text() == "x"
    assert (tmp_path / "0123456789ab").exists()
    assert (tmp_path / "gone").is_symlink()


def test_runs_that_start_and_end_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    problems: list[str] = []

    def start_and_end() -> None:
        for _ in range(40):
            try:
                with work_folder(tmp_path) as work, (work / "lock").open("r+") as lock:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        problems.append("nobody holds it")
                    except BlockingIOError:
                        (work / "file").touch()
            except OSError as error:
                problems.append(repr(error))

    threads = [threading.Thread(target=start_and_end) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert names(tmp_path) == set()
