"""Real processes in real boxes, ended at the end whatever happens."""

import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from podium.processes import send_signal, wait_exit
from podium.processes.sandbox import Box, Limits, python_roots, scrubbed_environment
from podium.processes.supervision import (
    Observed,
    Program,
    kill_left_over,
    launch,
    observe,
    prepare,
    private_folder,
)

PYTHON = Path(sys.executable)
GIB = 2**30


def until(what: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Boxes:
    """Makes folders with Python programs and starts them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: list[Path] = []

    def program(self, code: Sequence[str], folder: Path, **changes: object) -> Program:
        box: dict[str, object] = {"run": python_roots(PYTHON), "require": "full"}
        box |= changes.pop("box", {})  # type: ignore[arg-type]
        limits: dict[str, object] = {"memory": GIB} | changes.pop("limits", {})  # type: ignore[operator]
        env = scrubbed_environment(PYTHON, private_folder(folder), threads=1)
        return Program(
            (str(PYTHON), "-I", "-B", "-u", *code),
            env,
            Box(**box),  # type: ignore[arg-type]
            Limits(**limits),  # type: ignore[arg-type]
            **changes,  # type: ignore[arg-type]
        )

    def folder(self) -> Path:
        folder = self.root / f"r{len(self.folders)}"
        self.folders.append(folder)
        return folder

    def start(self, code: str, **changes: object) -> Path:
        folder = self.folder()
        prepare(folder, self.program(["-c", code], folder, **changes))
        launch(folder)
        return folder

    def ended(self, folder: Path, seconds: float = 30.0) -> Observed:
        until(lambda: (seen := observe(folder)) is not None and seen.phase == "exited", seconds)
        seen = observe(folder)
        assert seen is not None
        return seen


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[Boxes]:
    made = Boxes(tmp_path)
    yield made
    for folder in made.folders:
        with contextlib.suppress(Exception):
            seen = observe(folder)
            if seen is None:
                continue
            if seen.phase != "exited":
                send_signal(seen.shim, signal.SIGKILL)
                wait_exit(seen.shim, 10)
            # Also where the shim was killed on purpose: what it left behind would go on for ever.
            kill_left_over(seen.shim.token)
