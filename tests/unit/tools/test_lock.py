"""The locks: a changed requirement is noticed, and so is a line that is neither a pin nor a hash."""

import re
import shutil
from pathlib import Path

import pytest

from tools import lock


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of everything that the locks are made from."""
    for source in {source for sources in lock.LOCKS.values() for source in sources}:
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(lock.ROOT / source, tmp_path / source)
    for name in lock.LOCKS:
        shutil.copy(lock.ROOT / lock.FOLDER / f"{name}.txt", tmp_path / lock.FOLDER)
    return tmp_path


def test_the_locks_of_the_repository_are_in_step(copy: Path) -> None:
    assert {name: lock.faults_of(copy, name) for name in lock.LOCKS} == {name: [] for name in lock.LOCKS}


def test_a_comment_changes_nothing(copy: Path) -> None:
    source = copy / "requirements" / "dev.in"
    source.write_text(f"# another\n{source.read_text()}\n\n")
    assert lock.faults_of(copy, "dev") == []


@pytest.mark.parametrize(
    ("source", "before", "after", "out_of_step"),
    [
        ("requirements/dev.in", "mlflow-skinny==3.17.2", "mlflow-skinny==3.17.1", {"dev"}),
        ("requirements/build.in", "hatchling", "hatchling\nwheel", {"dev", "build"}),
        ("pyproject.toml", '"s3fs>=2024.6"', '"s3fs>=2025.1"', {"dev", "podium"}),
        ("pyproject.toml", '"orjson>=3.10",', "", {"dev", "podium"}),
        ("runtime/pyproject.toml", '"orjson>=3.9",', "", {"dev", "flavors", "podium"}),
    ],
)
def test_a_changed_requirement_is_noticed(
    copy: Path, source: str, before: str, after: str, out_of_step: set[str]
) -> None:
    text = (copy / source).read_text()
    assert before in text
    (copy / source).write_text(text.replace(before, after, 1))
    assert {name for name in lock.LOCKS if lock.faults_of(copy, name)} == out_of_step
    assert all("make lock" in fault for name in out_of_step for fault in lock.faults_of(copy, name))


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "orjson==3.13.0",
        "orjson @ https://example.org/orjson",
        "-e .",
        "    # via nobody",
    ],
)
def test_a_line_that_is_neither_a_pin_nor_a_hash_is_named(copy: Path, line: str) -> None:
    path = copy / "requirements" / "build.txt"
    path.write_text(f"{path.read_text()}{line}\n")
    (fault,) = lock.faults_of(copy, "build")
    assert f"requirements/build.txt:{len(path.read_text().splitlines())}: " in fault
    assert line.strip() in fault


def test_a_missing_lock_is_named(copy: Path) -> None:
    (copy / "requirements" / "build.txt").unlink()
    assert lock.faults_of(copy, "build") == ["requirements/build.txt is missing: run `make lock`"]


def test_one_set_of_versions(copy: Path) -> None:
    """What people install, what builds podium and what the tests ran with are the same versions."""
    pins = {
        name: set(
            re.findall(r"^[^#\s]+==\S+", (copy / lock.FOLDER / f"{name}.txt").read_text(), re.MULTILINE)
        )
        for name in lock.LOCKS
    }
    assert len(pins["podium"]) > 20
    assert pins["podium"] <= pins["dev"]
    assert pins["build"] <= pins["dev"]
