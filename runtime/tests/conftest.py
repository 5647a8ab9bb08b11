"""Replicas that several files of tests ask, one per file."""

import pytest

from runtime.tests.replica import python_version, running
from runtime.tests.sources import ANYTHING, TYPED


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    with running(python_version(tmp_path_factory.mktemp("typed"), TYPED).write()) as made:
        yield made


@pytest.fixture(scope="module")
def anything(tmp_path_factory):
    with running(python_version(tmp_path_factory.mktemp("anything"), ANYTHING).write()) as made:
        yield made
