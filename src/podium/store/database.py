"""Transactions: one writer at a time where it must be, a snapshot for readers, errors in our words.

Called by `store`; calls `engine`.
"""

import contextlib
import threading
from collections.abc import Iterator

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from podium.resources.errors import Unavailable
from podium.store import engine as engines

_WRITER_SECONDS = 60


class Database:
    """An engine and the rules of its transactions. Safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shared = engines.is_postgres(engine)
        """Other servers may write to it too."""
        self._reading = self._reader_engine()
        # SQLite's writers wait for each other by sleeping and trying again, PostgreSQL's each on a connection of its
        # own that readers then lack; in one process a lock is fairer, and waits without either.
        self._writer = threading.Lock()
        self._inside = threading.local()

    def _reader_engine(self) -> Engine:
        if not self.shared:
            return self.engine
        return self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextlib.contextmanager
    def writing(self, *, ordered: bool = False, durable: bool = True) -> Iterator[Connection]:
        """A transaction that may write; committed at the end unless it was rolled back inside.

        ordered: it will take the clock, so it has to wait for every other such transaction anyway. On SQLite they all
        wait for each other.
        durable: the commit waits for the disk. Without that the death of the process loses nothing; the death of the
        machine loses it on SQLite, where it takes along whoever could have relied on it. PostgreSQL, which can go down
        alone, always waits.
        """
        with self._alone(ordered or not self.shared), spoken(), self.engine.connect() as connection:
            transaction = connection.execution_options(
                **{engines.WRITES: "FULL" if durable else "NORMAL"}
            ).begin()
            try:
                yield connection
                if transaction.is_active:
                    transaction.commit()
            finally:
                transaction.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees the database as it was at its first statement."""
        with spoken(), self._reading.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def _alone(self, wait: bool) -> Iterator[None]:
        if getattr(self._inside, "writing", False):
            raise RuntimeError("a write transaction inside another one, in one thread, would wait for itself")
        if wait and not self._writer.acquire(timeout=_WRITER_SECONDS):
            raise Unavailable("another write has kept the database for too long")
        self._inside.writing = True
        try:
            yield
        finally:
            self._inside.writing = False
            if wait:
                self._writer.release()

    def close(self) -> None:
        """Gives every idle connection back; on SQLite the last one folds the WAL into the file."""
        self.engine.dispose()


@contextlib.contextmanager
def spoken() -> Iterator[None]:
    """The database's failures as Podium's errors."""
    try:
        yield
    except SQLAlchemyError as error:
        if isinstance(error, StatementError) and not isinstance(error, DBAPIError) and error.orig is not None:
            raise error.orig from None  # a value that one of our column types refuses
        words = engines.in_words(error)
        if words is None:
            raise
        raise words from error
