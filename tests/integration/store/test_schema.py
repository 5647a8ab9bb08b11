"""Migrations: one history for both databases, all or nothing, whoever starts when."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from podium.resources.errors import InvalidInput, Refused, Unavailable
from podium.store import Store
from podium.store.tables import metadata
from tests.integration.store.objects import ALICE, create, deployment, now

LATEST = "0008"
"""Podium's own newest migration."""
# What a plugin or the next Podium would bring: a new column with data in it, a rebuilt table, a table of its own.
NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{down}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("gateways") as batch:
        batch.add_column(sa.Column("zone", sa.Text, nullable=False, server_default="here"))
    with op.batch_alter_table("resources") as batch:
        batch.create_check_constraint("some_name", "name <> ''")
    op.create_table("prices", sa.Column("uid", sa.Text, sa.ForeignKey("resources.uid"), primary_key=True))
    op.execute("INSERT INTO prices (uid) SELECT uid FROM resources")
    {more}
"""


def migration(folder: Path, *, revision: str = "9001", down: str = LATEST, more: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{revision}_next.py").write_text(NEXT.format(revision=revision, down=down, more=more))
    return folder


def rows(store: Store, query: str) -> list[tuple[object, ...]]:
    with store._database.reading() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def test_the_migrations_make_the_tables_that_the_code_knows(store: Store) -> None:
    with store._database.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_a_fresh_database_says_so_and_migrating_twice_is_once(database_url: str) -> None:
    store = Store.open(database_url)
    try:
        assert store.schema_version() == ""
        with pytest.raises(Unavailable, match="no Podium tables") as caught:
            create(store, deployment())
        assert caught.value.next_step is not None
        store.migrate()
        assert store.schema_version() == LATEST
        create(store, deployment())
        store.migrate()
        assert store.current_version() == 1
    finally:
        store.close()


def test_an_upgrade_keeps_everything(store: Store, database_url: str, tmp_path: Path) -> None:
    made = create(store, *(deployment(f"d{number}", labels={"a": "b"}) for number in range(20)))
    store.claim("w", kinds=["Deployment"], limit=3, lease_seconds=60, now=now())
    tables = ["resources", "selectors", "work", "changes", "audit"]
    before = {table: rows(store, f"SELECT count(*) FROM {table}") for table in tables}
    store.close()
    newer = Store.open(database_url, version_locations=[migration(tmp_path / "100%s next")])
    try:
        newer.migrate()
        assert newer.schema_version() == "9001"
        assert {table: rows(newer, f"SELECT count(*) FROM {table}") for table in tables} == before
        assert rows(newer, "SELECT count(*) FROM prices") == [(20,)]
        with newer.read() as snapshot:
            page = snapshot.list("Deployment", labels="a=b")
            assert sorted(page.items, key=lambda item: item.key) == sorted(made, key=lambda item: item.key)
            assert len(snapshot.changes(0)) == 20
        create(newer, deployment("after"))
        # The rebuilt table is still what the others refer to, and the trail still can't be changed.
        with pytest.raises(DBAPIError), newer._database.writing() as connection:
            connection.exec_driver_sql("INSERT INTO selectors VALUES ('nobody', 'label', 'a', 'b')")
    finally:
        newer.close()
    older = Store.open(database_url)
    try:
        with pytest.raises(Refused, match="9001, which this Podium does not know"):
            older.migrate()
    finally:
        older.close()


def test_a_migration_that_fails_changes_nothing(store: Store, database_url: str, tmp_path: Path) -> None:
    (made,) = create(store, deployment())
    broken = Store.open(
        database_url, version_locations=[migration(tmp_path / "next", more="raise ZeroDivisionError")]
    )
    try:
        with pytest.raises(ZeroDivisionError):
            broken.migrate()
        assert broken.schema_version() == LATEST
        with pytest.raises((DBAPIError, Unavailable)):
            rows(broken, "SELECT zone FROM gateways")
        with broken.read() as snapshot:
            assert snapshot.list("Deployment").items == [made]
        create(broken, deployment("after"))
    finally:
        broken.close()


@pytest.mark.filterwarnings("ignore:Revision 0815 referenced")
def test_bad_folders_and_histories_are_refused(database_url: str, tmp_path: Path) -> None:
    missing = Store.open(database_url, version_locations=[tmp_path / "nowhere"])
    astray = Store.open(database_url, version_locations=[migration(tmp_path / "next", down="0815")])
    try:
        with pytest.raises(InvalidInput, match="version_locations"):
            missing.migrate()
        with pytest.raises(Refused, match="0815"):
            astray.migrate()
        assert astray.schema_version() == ""
    finally:
        missing.close()
        astray.close()


def test_servers_that_start_together_migrate_once(database_url: str, tmp_path: Path) -> None:
    folder = migration(tmp_path / "next")
    script = (
        "import sys; from pathlib import Path; from podium.store import Store\n"
        "store = Store.open(sys.argv[1], version_locations=[Path(sys.argv[2])])\n"
        "store.migrate(); print(store.schema_version()); store.close()"
    )

    def start(_number: int) -> str:
        command = [sys.executable, "-c", script, database_url, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        return done.stdout.strip() or done.stderr

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(start, range(4))) == ["9001"] * 4
    store = Store.open(database_url)
    try:
        create(store, deployment(), actor=ALICE)
        assert store.current_version() == 1
    finally:
        store.close()
