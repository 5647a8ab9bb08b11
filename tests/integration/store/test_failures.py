"""What the database can do to us: full, locked, damaged, gone. The caller gets Unavailable in words, and may retry."""

import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import event

from podium.resources.errors import InvalidInput, Unavailable
from podium.store import Store
from tests.integration.store.objects import ALICE, create, deployment, now, replicas, uid_of
from tests.postgres import DATABASE, disconnect, server_url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "podium.db"


@pytest.fixture
def sqlite_store(file: Path) -> Iterator[Store]:
    store = Store.open(f"sqlite:///{file}")
    try:
        store.migrate()
        yield store
    finally:
        store.close()


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[Store]:
    store = Store.open(postgres_url)
    try:
        store.migrate()
        yield store
    finally:
        store.close()


def on_connect(store: Store, *statements: str) -> None:
    """The database's own settings, on every connection from now on."""
    store.close()

    @event.listens_for(store._database.engine, "connect")
    def _connected(connection: sqlite3.Connection | psycopg.Connection, _record: object) -> None:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_full_disk_is_said_and_nothing_is_half_written(sqlite_store: Store) -> None:
    (created,) = create(sqlite_store, deployment())
    with sqlite_store._database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    on_connect(sqlite_store, f"PRAGMA max_page_count={pages + 8}")
    made = 1
    with pytest.raises(Unavailable, match="disk that holds the database is full") as caught:
        for number in range(1000):
            create(sqlite_store, deployment(f"d{number}"))
            made += 1
    assert caught.value.retryable
    assert caught.value.next_step == "free some space; nothing was written"
    with sqlite_store.read() as snapshot:
        assert (
            snapshot.version
            == len(snapshot.list("Deployment").items)
            == len(snapshot.audit(limit=5000))
            == made
        )
        assert len(snapshot.changes(0)) == made
    on_connect(sqlite_store, "PRAGMA max_page_count=1000000")
    with sqlite_store.write(ALICE) as transaction:
        transaction.replace(uid_of(created), spec=replicas(created, 2), expected_version=1)
    assert sqlite_store.current_version() == made + 1


def test_a_file_that_another_process_keeps_locked(sqlite_store: Store, file: Path) -> None:
    on_connect(sqlite_store, "PRAGMA busy_timeout=50")
    other = sqlite3.connect(file, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="busy for too long"):
            create(sqlite_store, deployment())
        assert sqlite_store.current_version() == 0, "readers don't wait"
        other.execute("ROLLBACK")
    finally:
        other.close()
    assert len(create(sqlite_store, deployment())) == 1


def test_a_file_that_is_no_database(file: Path) -> None:
    file.write_bytes(b"not a database" * 1000)
    store = Store.open(f"sqlite:///{file}")
    try:
        with pytest.raises(Unavailable, match="not a database"):
            store.migrate()
    finally:
        store.close()


def test_a_damaged_file(sqlite_store: Store, file: Path) -> None:
    create(sqlite_store, *(deployment(f"d{number}") for number in range(50)))
    sqlite_store.close()
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(Unavailable, match="damaged"), sqlite_store.read() as snapshot:
        snapshot.list("Deployment")


def test_the_files_are_their_owners_only(sqlite_store: Store, file: Path) -> None:
    create(sqlite_store, deployment())
    files = list(file.parent.glob("podium.db*"))
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_every_connection_is_as_safe_as_it_must_be(sqlite_store: Store) -> None:
    for transaction in (sqlite_store._database.reading, sqlite_store._database.writing):
        with transaction() as connection:
            found = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema")
            }
        assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///relative.db",
        "sqlite:////nowhere/at/all/podium.db",
        "mysql://user@host/database",
        "postgresql+asyncpg://user@host/database",
        "\x00",
    ],
)
def test_bad_urls_name_the_setting(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Store.open(url)
    assert [issue.field for issue in caught.value.issues] == ["database"]


def test_no_server_is_said_without_the_password() -> None:
    store = Store.open("postgresql://podium:geheim@127.0.0.1:1/podium")
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        store.current_version()
    assert "geheim" not in str(caught.value) + str(caught.value.__cause__)
    assert time.monotonic() - started < 30


@pytest.mark.integration
def test_a_database_that_is_not_there(postgres_url: str) -> None:
    store = Store.open(postgres_url.replace(DATABASE, "nope"))
    with pytest.raises(Unavailable, match="does not exist"):
        store.migrate()


@pytest.mark.integration
def test_connections_that_were_cut_while_idle_are_made_again(
    postgres_store: Store, postgres_url: str
) -> None:
    create(postgres_store, deployment())
    for _ in range(3):
        disconnect()
        assert postgres_store.current_version() == 1
    assert len(create(postgres_store, deployment("second"))) == 1


@pytest.mark.integration
def test_a_connection_that_is_cut_in_a_write_leaves_nothing(postgres_store: Store) -> None:
    (created,) = create(postgres_store, deployment())
    with pytest.raises(Unavailable) as caught, postgres_store.write(ALICE) as transaction:
        transaction.create(deployment("second"))
        disconnect()
        transaction.create(deployment("third"))
    assert caught.value.retryable
    with pytest.raises(Unavailable), postgres_store.write(ALICE) as transaction:
        transaction.replace(uid_of(created), spec=replicas(created, 9), expected_version=1)
        disconnect()
    with postgres_store.read() as snapshot:
        assert snapshot.list("Deployment").items == [created]
        assert snapshot.version == len(snapshot.audit()) == 1
    assert len(create(postgres_store, deployment("second"))) == 1


@pytest.mark.integration
def test_a_server_that_hangs_in_a_write_holds_the_others_up_for_a_while_only(
    postgres_store: Store, postgres_url: str
) -> None:
    hanging = Store.open(postgres_url)
    on_connect(hanging, "SET idle_in_transaction_session_timeout = '300ms'")
    on_connect(postgres_store, "SET lock_timeout = '100ms'")
    try:
        with pytest.raises(Unavailable), hanging.write(ALICE) as transaction:
            transaction.create(deployment("hanging"))
            with pytest.raises(Unavailable, match="busy for too long"):
                _in_a_thread(postgres_store)
            deadline = time.monotonic() + 20
            while True:
                try:
                    _in_a_thread(postgres_store)
                    break
                except Unavailable:
                    assert time.monotonic() < deadline
    finally:
        hanging.close()
    with postgres_store.read() as snapshot:
        assert [item.metadata.name for item in snapshot.list("Deployment").items] == ["churn"]


def _in_a_thread(store: Store) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(create, store, deployment()).result(30)


@pytest.mark.integration
def test_a_database_that_turned_read_only(postgres_store: Store) -> None:
    create(postgres_store, deployment())
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = on".encode())
    postgres_store.close()
    with pytest.raises(Unavailable, match="read-only"):
        create(postgres_store, deployment("second"))
    with pytest.raises(Unavailable, match="read-only"):
        postgres_store.claim("w", kinds=["Deployment"], limit=1, lease_seconds=1, now=now())
    assert postgres_store.current_version() == 1
