"""Blobs in a local folder, written so that a power cut or a full disk never leaves half a blob under its name.

Called by `blobs`. fsspec's local file system neither flushes to the disk nor creates files with a private mode, which
is why this file uses the operating system itself.
"""

import contextlib
import datetime
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from podium.registry.storage import Stored
from podium.resources.durable import flush_folder
from podium.resources.errors import NotFound, Unavailable

_BUFFER = 1024 * 1024
_INCOMING = "incoming"
_LOW_SPACE = 64 * 2**20


class LocalFolder:
    """Implements Storage. Files have mode 0400, folders 0700."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / _INCOMING
        with _answers("cannot be made"):
            self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)

    def stage(self, key: str) -> "StagedFile":
        return StagedFile(self._root, self._incoming / uuid.uuid4().hex)

    def open(self, key: str) -> BinaryIO:
        with _answers("cannot be read"):
            try:
                descriptor = os.open(self._root / key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                raise NotFound(f"blob {os.path.basename(key)} is not stored") from None
            return os.fdopen(descriptor, "rb", buffering=_BUFFER)

    def find(self, key: str) -> Stored | None:
        with _answers("cannot be read"):
            try:
                status = os.lstat(self._root / key)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return _stored(key, status) if stat.S_ISREG(status.st_mode) else None

    def check(self) -> None:
        with _answers("cannot be used"):
            if not os.access(self._incoming, os.W_OK | os.X_OK):
                raise Unavailable("the blob store's folder cannot be written to")
            free = shutil.disk_usage(self._root).free
        if free < _LOW_SPACE:
            raise Unavailable(f"the blob store's disk has {free} bytes left", next_step="free some space")

    def walk(self) -> Iterator[Stored]:
        with _answers("cannot be listed"):
            for outer in _folders(self._root):
                for inner in _folders(outer):
                    for entry in sorted(os.scandir(inner), key=lambda found: found.name):
                        # A blob that another process deletes meanwhile is simply not there any more.
                        with contextlib.suppress(FileNotFoundError):
                            if entry.is_file(follow_symlinks=False):
                                key = f"{outer.name}/{inner.name}/{entry.name}"
                                yield _stored(key, entry.stat(follow_symlinks=False))

    def delete(self, key: str) -> bool:
        path = self._root / key
        with _answers("cannot be deleted"):
            try:
                os.unlink(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
            flush_folder(path.parent)
        return True

    def refresh(self, key: str) -> None:
        with _answers("cannot be refreshed"):
            try:
                os.utime(self._root / key, follow_symlinks=False)
            except FileNotFoundError:
                raise NotFound(f"blob {os.path.basename(key)} is not stored") from None

    def sweep(self, before: datetime.datetime) -> int:
        removed = 0
        with _answers("cannot be swept"):
            for entry in os.scandir(self._incoming):
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < before.timestamp():
                        os.unlink(entry.path)
                        removed += 1
        return removed


class StagedFile:
    """Implements Staged: a file with a name of its own until it is whole, flushed and renamed."""

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        self._path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _answers("cannot be written to"):
            self._file = os.fdopen(os.open(path, flags, 0o600), "wb", buffering=_BUFFER)

    def write(self, chunk: bytes) -> None:
        with _answers("cannot be written to"):
            self._file.write(chunk)

    def commit(self, key: str) -> None:
        final = self._root / key
        with _answers("cannot be written to"):
            self._file.flush()
            os.fchmod(self._file.fileno(), 0o400)
            os.fsync(self._file.fileno())
            self._file.close()
            _make_folder(final.parent, self._root)
            os.rename(self._path, final)
            flush_folder(final.parent)

    def abort(self) -> None:
        # A buffer that could not be written makes close() fail once more: the descriptor is closed all the same.
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def _make_folder(folder: Path, root: Path) -> None:
    if folder.is_dir() or folder == root:
        return
    _make_folder(folder.parent, root)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    flush_folder(folder.parent)


def _folders(folder: Path) -> list[Path]:
    """The shard folders (two hexadecimal digits) in a folder, sorted."""
    found = []
    for entry in os.scandir(folder):
        if len(entry.name) == 2 and entry.is_dir(follow_symlinks=False):
            found.append(Path(entry.path))
    return sorted(found)


def _stored(key: str, status: os.stat_result) -> Stored:
    return Stored(key, status.st_size, datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC))


@contextlib.contextmanager
def _answers(trouble: str) -> Iterator[None]:
    """Whatever the operating system refuses (no space, no quota, no permission, a bad disk) is Unavailable, without
    the path: that is no caller's business."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"the blob store {trouble}: {error.strerror or type(error).__name__}",
            next_step="see to the disk of the blob store, then try again",
        ) from error
