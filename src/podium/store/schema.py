"""Migrations: bringing the tables up to date, all or nothing, however many servers start at once.

Called by `store`; runs Alembic on `migrations/`. One history serves both databases.

A plugin's migration is an Alembic revision file in a folder of its own, named in `Store.open(version_locations=...)`.
It either follows Podium's newest revision (`down_revision`), or is a branch of its own (`branch_labels`, and
`depends_on` what it needs of Podium's). It runs in the one transaction of all migrations, so it must not commit.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from podium.resources.errors import InvalidInput, Issue, Refused
from podium.store.database import Database, spoken
from podium.store.engine import WRITES

_ALEMBIC = threading.Lock()  # its environment is one global of the process
_FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x706F6469756D  # "podium", the key of PostgreSQL's advisory lock


def migrate(database: Database, version_locations: Sequence[Path]) -> None:
    """Runs every migration that is missing, in one transaction. Raises InvalidInput for a folder that is not there,
    Refused when the database is at a revision that this Podium does not know."""
    for folder in version_locations:
        if not folder.is_dir():
            raise InvalidInput(Issue("version_locations", f"{folder} is not a folder"))
    config = _config(version_locations)
    with _ALEMBIC, _alone(database) as connection:
        known = _known(config)
        unknown = [
            head for head in MigrationContext.configure(connection).get_current_heads() if head not in known
        ]
        if unknown:
            raise Refused(
                f"the database is at schema {', '.join(unknown)}, which this Podium does not know",
                next_step="start the Podium that made it, or a newer one, with the same plugins",
            )
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "heads")
        except CommandError as error:
            raise Refused(f"the migrations do not fit together: {error}") from error


def version(connection: Connection) -> str:
    """The revisions that the database is at; empty if none."""
    return ",".join(sorted(MigrationContext.configure(connection).get_current_heads()))


def _config(version_locations: Sequence[Path]) -> Config:
    config = Config()
    folders = [_FOLDER / "versions", *version_locations]
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option(
        "version_locations", "\n".join(str(folder) for folder in folders).replace("%", "%%")
    )
    return config


def _known(config: Config) -> set[str]:
    try:
        return {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    except KeyError as error:  # Alembic's answer to a `down_revision` that no file has
        raise Refused(
            f"the migrations do not fit together: one follows {error}, which is not there"
        ) from error
    except CommandError as error:
        raise Refused(f"the migrations do not fit together: {error}") from error


@contextlib.contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    """A transaction that no other server's migration runs beside."""
    with spoken(), database.engine.connect() as connection:
        if database.shared:
            with connection.begin():
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
                connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
                yield connection
            return
        # A table that is rebuilt is dropped, which would take the rows that refer to it along.
        raw: Any = connection.connection.driver_connection
        raw.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.execution_options(**{WRITES: "FULL"}).begin():
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                if broken is not None:
                    raise Refused(
                        f"a migration left rows of {broken[0]} without what they refer to; nothing was changed"
                    )
        finally:
            raw.execute("PRAGMA foreign_keys=ON")
