"""Folders that were made to be hard to remove."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from podium.processes import removal
from podium.processes.removal import remove_tree


def nest(folder: Path, depth: int) -> None:
    """Folders in folders, each with a file, far beyond the longest path and the deepest recursion."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        os.mkdir("deeper", dir_fd=at)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)


def test_folders_without_end(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    nest(folder, 2500)
    remove_tree(folder)
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    folder = tmp_path / "r"
    (folder / "inner").mkdir(parents=True)
    (folder / "link").symlink_to(kept)
    (folder / "inner" / "link").symlink_to(kept)
    (folder / "inner" / "broken").symlink_to("nowhere")
    os.mkfifo(folder / "inner" / "pipe")
    remove_tree(folder)
    assert (kept / "file").read_text() == "kept"
    assert not folder.exists()
    with pytest.raises(FileNotFoundError):
        remove_tree(folder)
    (tmp_path / "to-kept").symlink_to(kept)
    with pytest.raises(NotADirectoryError):
        remove_tree(tmp_path / "to-kept")
    assert (kept / "file").exists()


def test_folders_that_may_not_be_listed(tmp_path: Path) -> None:
    """As an ordinary user: root may list everything."""
    folder = tmp_path / "r"
    hidden = folder / "a" / "hidden"
    hidden.mkdir(parents=True)
    (hidden / "inner").mkdir()
    (hidden / "inner" / "file").touch()
    for path in (hidden / "inner", hidden):
        path.chmod(0o300)
    if os.geteuid() != 0:
        remove_tree(folder)
        assert not folder.exists()
        return
    python = Path("/usr/bin/python3")
    if not python.exists():
        pytest.skip("needs a Python that other users may run: /usr/bin/python3")
    place = Path("/tmp") / f"podium-removal-{os.getpid()}"
    place.mkdir(mode=0o755)
    try:
        shutil.move(folder, place / "r")
        shutil.copy(removal.__file__, place / "removal.py")
        for path in (place, *place.rglob("*")):
            os.lchown(path, 65534, 65534)
        code = (
            "import pathlib, sys; sys.path[:0] = sys.argv[1:]; import removal\n"
            "removal.remove_tree(pathlib.Path(sys.argv[1]) / 'r')"
        )
        subprocess.run(
            [python, "-c", code, place],
            user=65534,
            group=65534,
            extra_groups=[],
            check=True,
            timeout=30,
            cwd="/",
        )
        assert not (place / "r").exists()
    finally:
        shutil.rmtree(place)
