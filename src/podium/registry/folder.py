"""A folder of the server's own disk into the blob store.

Called after an import (`mlflow_source`), which leaves its files in a folder. A push from the command line does not come
here: it uploads blob by blob.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from podium.registry.blobs import CHUNK, BlobStore
from podium.registry.paths import check_portable
from podium.resources.errors import InvalidInput, Issue, TooLarge
from podium.resources.manifest import FileEntry


def store_folder(folder: Path, blobs: BlobStore, *, max_files: int = 10_000) -> list[FileEntry]:
    """Store every file of the folder; the entries, sorted by path. Links and special files are refused, never followed.

    Raises InvalidInput naming the path, TooLarge, Unavailable.
    """
    return [_store(folder, path, blobs) for path in list_files(folder, max_files=max_files)]


def list_files(folder: Path, *, max_files: int = 10_000) -> list[str]:
    """Paths of the regular files in the folder, POSIX, sorted. Errors as in `store_folder`."""
    found: list[str] = []
    for parent, folders, names in os.walk(folder):
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(parent, name)))]:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            try:
                check_portable(relative)
            except ValueError as error:
                raise InvalidInput(Issue(f"files: {ascii(relative)[:200]}", str(error))) from None
            if not stat.S_ISREG(path.lstat().st_mode):
                raise InvalidInput(
                    Issue(f"files: {relative[:200]}", "expected a regular file, not a link or a device")
                )
            found.append(relative)
            if len(found) > max_files:
                raise TooLarge(
                    f"files: the folder has more than the {max_files} files that are allowed in a version"
                )
    return sorted(found)


def _store(folder: Path, relative: str, blobs: BlobStore) -> FileEntry:
    hasher = hashlib.sha256()
    size = 0
    for chunk in _chunks(folder / relative):
        hasher.update(chunk)
        size += len(chunk)
    entry = FileEntry(path=relative, size=size, sha256=hasher.hexdigest())
    # Read twice: the store's address is the hash, which is known only at the end. What changed in between is refused.
    blobs.put(_chunks(folder / relative), entry.sha256)
    return entry


def _chunks(path: Path) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK):
            yield chunk
