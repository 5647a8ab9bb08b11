"""Every test of the store runs on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from podium.store import Store
from tests.migrated import migrated
from tests.postgres import postgres_url

__all__ = ["postgres_url"]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.integration)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'podium.db'}"


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A store with its tables."""
    if database_url.startswith("sqlite"):
        migrated(Path(database_url.removeprefix("sqlite:///")))
    opened = Store.open(database_url)
    try:
        if opened.schema_version() == "":
            opened.migrate()
        yield opened
    finally:
        opened.close()


@pytest.fixture
def other_server(store: Store, database_url: str) -> Iterator[Store]:
    """A second server's store on the same database."""
    opened = Store.open(database_url)
    try:
        yield opened
    finally:
        opened.close()
