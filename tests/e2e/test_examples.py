"""Runs every example as a user would: its `steps.sh`, with the CLI, against one real Podium."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from podium.demo.installation import Installation

EXAMPLES = sorted(path.parent for path in (Path(__file__).parents[2] / "examples").glob("*/steps.sh"))
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="podium-e2e-"))
    try:
        with Installation(folder / "home") as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example(example: Path, installation: Installation, tmp_path: Path) -> None:
    folder = tmp_path / example.name
    shutil.copytree(example.parent, tmp_path, dirs_exist_ok=True)
    # The interpreter and the CLI of this environment, as if it were activated.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-x", "steps.sh"],
        cwd=folder,
        env={**installation.environment, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}\n{installation.last_words()}"
