"""The connection to the database: SQLite or PostgreSQL, their settings, and their errors in our words.

Called by `database` and `schema`. The only module that may import a database driver.
"""

import contextlib
import importlib.util
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from podium.resources.errors import InvalidInput, Issue, PodiumError, Unavailable
from podium.store.columns import to_json

SCHEMES = "sqlite:////absolute/path.db, postgresql://user@host/database"
WRITES = "podium_writes"
"""Execution option of a connection: its transaction takes SQLite's write lock at once. The value is what PRAGMA
synchronous shall be for it, FULL or NORMAL: whether the commit waits for the disk."""
_BUSY_SECONDS = 30
_STATEMENT_SECONDS = 30
_LOCK_SECONDS = 20
_IDLE_SECONDS = 30
_WAL_BYTES = 64 * 2**20


def open_engine(url: str, *, pool_size: int) -> Engine:
    """An engine for the URL; no connection is made yet. Raises InvalidInput for a URL that is not one of `SCHEMES`."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidInput(Issue("database", f"expected one of {SCHEMES}")) from None
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return _open_postgres(parsed, pool_size)
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return _open_sqlite(parsed, pool_size)
    raise InvalidInput(
        Issue("database", f"unknown scheme {parsed.drivername[:40]!r}; expected one of {SCHEMES}")
    )


def _options(pool_size: int) -> dict[str, Any]:
    return {
        "pool_size": pool_size,
        "max_overflow": pool_size,
        "pool_timeout": _BUSY_SECONDS,
        "hide_parameters": True,  # what people store must not reach a log by way of an error
        "json_serializer": to_json,
        "json_deserializer": orjson.loads,
    }


def _open_sqlite(url: URL, pool_size: int) -> Engine:
    path = Path(url.database or ":memory:")
    if url.database in (None, "", ":memory:") or not path.is_absolute():
        raise InvalidInput(
            Issue("database", "SQLite needs the absolute path of a file: sqlite:////absolute/path.db")
        )
    if not path.parent.is_dir():
        raise InvalidInput(Issue("database", f"the folder {path.parent} does not exist; make it first"))
    # Made here, not by SQLite, so that nobody else can read it; the WAL gets the same mode from SQLite.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, **_options(pool_size))

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # BEGIN and COMMIT are ours, not the driver's
        _use_wal(connection)
        for setting in (
            "synchronous=FULL",
            "foreign_keys=ON",
            f"journal_size_limit={_WAL_BYTES}",
            "trusted_schema=OFF",
        ):
            connection.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        # A transaction that reads first and writes then can fail with "locked" in the middle; this one can't.
        writes = connection.get_execution_options().get(WRITES)
        if writes is not None:
            connection.exec_driver_sql(f"PRAGMA synchronous={writes}")
        connection.exec_driver_sql("BEGIN" if writes is None else "BEGIN IMMEDIATE")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Readers never wait for the writer. The change needs the file alone for a moment: SQLite answers `locked` at
    once when several processes open a new file together, so it is tried again."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise sqlite3.OperationalError(f"the file system allows journal mode {mode} only; WAL is needed")
        return


def _open_postgres(url: URL, pool_size: int) -> Engine:
    if importlib.util.find_spec("psycopg") is None:
        raise InvalidInput(
            Issue("database", "PostgreSQL needs the psycopg driver"),
            next_step="pip install 'podium[postgres]'",
        )
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5, "application_name": "podium"},
        **_options(pool_size),
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        # A server that hangs in the middle of a transaction must not hold the clock's row for ever.
        with connection.cursor() as cursor:
            cursor.execute(
                f"SET statement_timeout = '{_STATEMENT_SECONDS}s'; SET lock_timeout = '{_LOCK_SECONDS}s'; "
                f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'; SET timezone = 'UTC'; "
                "SET synchronous_commit = on"
            )
        connection.commit()

    return engine


def is_postgres(engine: Engine) -> bool:
    """Whether several servers may share this database."""
    return engine.dialect.name == "postgresql"


def insert(engine: Engine, table: Table) -> sqlite.Insert | postgresql.Insert:
    """INSERT that knows ON CONFLICT, which both databases have in the same form."""
    return postgresql.insert(table) if is_postgres(engine) else sqlite.insert(table)


# What PostgreSQL answers by SQLSTATE class or code, in words: https://www.postgresql.org/docs/18/errcodes-appendix.html
_STATES = {
    "08": "the connection to the database was lost",
    "25P03": "the transaction was idle for too long",
    "25006": "the database is read-only",
    "28": "the database refused the login",
    "3D": "the database does not exist",
    "40": "the database gave up a transaction that stood in another's way",
    "42P01": "the database has no Podium tables",
    "53100": "the database's disk is full",
    "53": "the database is short of something",
    "55P03": "the database was busy for too long",
    "57014": "the database took too long",
    "57P": "the database is shutting down or starting",
    "58": "the database has trouble with its disk",
}
# What SQLite says: https://www.sqlite.org/rescode.html
_SQLITE = {
    "database or disk is full": "the disk that holds the database is full",
    "disk i/o error": "the disk that holds the database answered with an error",
    "database is locked": "the database was busy for too long",
    "readonly database": "the database file is read-only",
    "unable to open database file": "the database file can't be opened",
    "no such table": "the database has no Podium tables",
    "file is not a database": "the file is not a database",
    "disk image is malformed": "the database file is damaged",
    "journal mode": "the database file is on a file system that SQLite can't write safely to",
}
_NEXT_STEPS = {
    "the disk that holds the database is full": "free some space; nothing was written",
    "the database's disk is full": "free some space; nothing was written",
    "the database has no Podium tables": "start the server once, so that it migrates the database",
}


def in_words(error: SQLAlchemyError) -> PodiumError | None:
    """The database's failure as Unavailable, which a caller may retry; None for what is a bug of ours.

    The message carries the database's own first line, never a statement or its parameters.
    """
    if isinstance(error, PoolTimeout):
        return Unavailable(
            "every connection to the database is in use", next_step="retry; or raise the pool's size"
        )
    if not isinstance(error, DBAPIError):
        return None
    own = str(error.orig).strip().partition("\n")[0][:300]
    words = _reason(error, own)
    if words is None:
        return None
    return Unavailable(f"{words}: {own}", next_step=_NEXT_STEPS.get(words))


def _reason(error: DBAPIError, own: str) -> str | None:
    if isinstance(error.orig, sqlite3.Error):
        lowered = own.lower()
        return next((words for text, words in _SQLITE.items() if text in lowered), None)
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return _STATES.get(state) or _STATES.get(state[:3]) or _STATES.get(state[:2])
    if error.connection_invalidated or type(error.orig).__name__ in ("OperationalError", "ConnectionTimeout"):
        return "the database did not answer"
    return None
