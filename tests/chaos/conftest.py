"""One installation for all chaos tests: starting it and pushing real versions is what takes time."""

from collections.abc import Iterator

import pytest

from benchmarks.world import World, world


@pytest.fixture(scope="session")
def installed() -> Iterator[World]:
    with world() as made:
        made.settle("first")
        yield made
