"""Fixtures: a model on its way from the pusher's files to the flavor that serves it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.flavors.cases import CASES, Case
from tests.flavors.pushing import pushed

# The frameworks of this environment warn about each other, and that is theirs.
collect_ignore_glob: list[str] = []


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """The case of a name."""
    return lambda name: CASES[name](tmp_path_factory.mktemp("made"))


@pytest.fixture
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Any]:
    """A case's model, pushed, and loaded by what the push found out."""
    from podium_runtime.flavors import load_model

    def load(case: Case) -> Any:
        # A folder for each: weights are mapped into memory, and writing into them ends the process.
        folder = tmp_path_factory.mktemp("model")
        flavor = pushed(tmp_path_factory.mktemp("blobs"), case.files).flavor
        for name, content in case.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return load_model(flavor.name, folder, flavor.entry, flavor.options, threads=1)

    return load
