"""A SQLite database with Podium's tables, copied from one that was migrated once per test process.

Called by the fixtures of tests that want a database and do not test how it is made: the migrations take 0.1 s.
"""

import contextlib
import functools
import os
import tempfile
from pathlib import Path

from podium.store import Store

_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY


def migrated(file: Path) -> str:
    """The URL of the database in `file`, which is made unless it is there."""
    with contextlib.suppress(FileExistsError), os.fdopen(os.open(file, _NEW, 0o600), "wb") as made:
        made.write(_template())
    return f"sqlite:///{file}"


@functools.cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        file = Path(folder) / "podium.db"
        store = Store.open(f"sqlite:///{file}")
        try:
            store.migrate()
        finally:
            store.close()
        # Closed by its last user, all of it is in the one file.
        assert [path.name for path in Path(folder).iterdir()] == [file.name]
        return file.read_bytes()
