"""Small files that appear whole or not at all and survive a power cut: keys, tokens, markers, identities, documents.

Called by every part that keeps such a file. Knows nothing of what they hold.
"""

import contextlib
import os
import secrets
from pathlib import Path


def replace_file(path: Path, content: bytes, *, several_writers: bool = False) -> None:
    """Write a file that only its owner reads, in one step; on the disk, with its name, when it returns.

    With one writer the draft has a fixed name, so that a killed writer leaves at most one behind; `several_writers`
    at the same time do not meet, and the last one wins. Raises OSError: the old content is still in place then, unless
    it was the folder that could not be flushed: the new one is, but might not survive a power cut.
    """
    draft = _written(path, content, several_writers=several_writers)
    try:
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def create_file(path: Path, content: bytes) -> bool:
    """As `replace_file`, but an existing file stays as it is: False then. Of several writers one wins."""
    draft = _written(path, content, several_writers=True)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    flush_folder(path.parent)
    return True


def flush_folder(folder: Path) -> None:
    """Make the names in the folder durable: a rename is, only after this. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _written(path: Path, content: bytes, *, several_writers: bool) -> Path:
    """A draft beside `path`, on the disk: a new file always, whatever lies under its name."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8) if several_writers else 'new'}")
    if not several_writers:
        draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        # A disk that refused to write may refuse this too; the first error is the one to tell.
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    return draft
