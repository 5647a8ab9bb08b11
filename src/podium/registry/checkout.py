"""A version's files as a read-only folder, for the process that loads them.

Called by the reconcilers before a replica starts. Calls the blob store. Files are copied, never linked: a model's
process runs as the same user as the server, and a link would share its inode with the store's own bytes
(docs/decisions/041).
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from podium.registry.blobs import CHUNK, BlobStore, damaged
from podium.resources.durable import flush_folder
from podium.resources.errors import IntegrityError, InvalidInput, Issue, NotFound, PodiumError, Unavailable
from podium.resources.manifest import FileEntry, Manifest, check_path

_MODEL = "model"
_MANIFEST = "manifest.json"
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class CheckedOut:
    """One folder under the root. `used_at`: seconds since 1970 of the last `ensure`."""

    digest: str
    path: Path
    bytes: int
    used_at: float


class Checkout:
    """Folders under `root`, one per manifest digest: `<hex>/model/...` and `<hex>/manifest.json`.

    Safe for threads and processes: a folder is made once under a file lock and appears whole, by one rename.
    """

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self._root = root
        self._blobs = blobs
        self._building = root / ".building"
        self._locks = root / ".locks"
        with _on_disk():
            for folder in (root, self._building, self._locks):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def ensure(self, manifest: Manifest) -> tuple[Path, Path]:
        """(folder of the model's files, file of the manifest's canonical bytes), made now if they are not there.

        Every byte is hashed while it is copied; a folder that is there already is checked by names and sizes (a replica
        hashes it all again before it loads). Raises IntegrityError (bytes missing or damaged in the store: nothing is
        left behind) and Unavailable (disk full, store gone). Blocks while another caller makes the same folder.
        """
        digest = manifest.digest().removeprefix("sha256:")
        final = self._root / digest
        with _on_disk(), self._locked(digest):
            if final.exists():
                if _looks_whole(final, manifest):
                    os.utime(final)
                    return final / _MODEL, final / _MANIFEST
                self._take_away(final)
            self._build(manifest, final)
        return final / _MODEL, final / _MANIFEST

    def discard(self, digest: str) -> bool:
        """Remove a folder (`sha256:<hex>`), so that the next `ensure` makes it anew; True if it was there.

        For whoever keeps the disk's size in bounds, and for a replica that found its files damaged.
        """
        name = digest.removeprefix("sha256:")
        if len(name) != 64 or not set(name) <= _HEX:
            raise InvalidInput(Issue("digest", "expected sha256: and 64 hexadecimal digits"))
        with _on_disk(), self._locked(name):
            if not (self._root / name).exists():
                return False
            self._take_away(self._root / name)
        return True

    def entries(self) -> list[CheckedOut]:
        """What is checked out, least recently used first."""
        found = []
        with _on_disk():
            for path in self._root.iterdir():
                if len(path.name) == 64 and set(path.name) <= _HEX:
                    with contextlib.suppress(FileNotFoundError):
                        used_at = path.stat().st_mtime
                        size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
                        found.append(CheckedOut(f"sha256:{path.name}", path, size, used_at))
        return sorted(found, key=lambda entry: entry.used_at)

    def sweep(self) -> int:
        """Remove what was left by callers that died in the middle; how many."""
        removed = 0
        with _on_disk():
            for path in self._building.iterdir():
                # The name starts with the digest: whoever holds that lock is still building, and is left alone.
                with self._locked(path.name[:64], wait=False) as got:
                    if got:
                        _remove(path)
                        removed += 1
        return removed

    @contextlib.contextmanager
    def _locked(self, digest: str, wait: bool = True) -> Iterator[bool]:
        """The lock of one folder; it goes with the process that holds it, however that ends."""
        descriptor = os.open(
            self._locks / digest, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                got = True
            except BlockingIOError:
                got = False
            yield got
        finally:
            os.close(descriptor)

    def _build(self, manifest: Manifest, final: Path) -> None:
        building = self._building / f"{final.name}.{uuid.uuid4().hex}"
        try:
            model = building / _MODEL
            model.mkdir(mode=0o700, parents=True)
            for file in manifest.files:
                target = model / check_path(file.path)
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._copy(file, target)
            _write(building / _MANIFEST, iter([manifest.canonical_bytes()]))
            _seal(building)
            # A folder without write permission cannot be renamed by everyone; its entries are sealed, it follows.
            os.chmod(building, 0o700)
            os.rename(building, final)
            os.chmod(final, 0o500)
            flush_folder(self._root)
        except BaseException:
            with contextlib.suppress(OSError):
                _remove(building)
            raise

    def _copy(self, file: FileEntry, target: Path) -> None:
        try:
            _write(target, self._checked(file))
        except NotFound:
            raise IntegrityError(
                f"{file.path}: blob {file.sha256} is missing from the store",
                next_step="push the same files again, or restore the blob from a backup",
                details={"path": file.path, "sha256": file.sha256},
            ) from None
        except IntegrityError as error:
            details = {"path": file.path, **error.details}
            raise IntegrityError(
                f"{file.path}: {error.message}", next_step=error.next_step, details=details
            ) from None

    def _checked(self, file: FileEntry) -> Iterator[bytes]:
        size = 0
        for chunk in self._blobs.iterate(file.sha256):
            size += len(chunk)
            yield chunk
        if size != file.size:
            raise damaged(file.sha256)

    def _take_away(self, path: Path) -> None:
        """Out of sight by one rename, then removed: nobody ever sees half a folder."""
        aside = self._building / f"{path.name}.{uuid.uuid4().hex}"
        os.chmod(path, 0o700)
        os.rename(path, aside)
        _remove(aside)


def _write(path: Path, chunks: Iterator[bytes]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb", buffering=CHUNK) as stream:
        for chunk in chunks:
            stream.write(chunk)
        stream.flush()
        os.fchmod(stream.fileno(), 0o400)
        os.fsync(stream.fileno())


def _seal(folder: Path) -> None:
    """Folders read-only and flushed, the innermost first."""
    for parent, _, _ in os.walk(folder, topdown=False):
        os.chmod(parent, 0o500)
        flush_folder(Path(parent))


def _remove(folder: Path) -> None:
    for parent, _, _ in os.walk(folder):
        os.chmod(parent, 0o700)
    shutil.rmtree(folder)


def _looks_whole(folder: Path, manifest: Manifest) -> bool:
    """Exactly the manifest's files with their sizes, and the manifest's own bytes."""
    expected = {file.path: file.size for file in manifest.files}
    model = folder / _MODEL
    try:
        if (folder / _MANIFEST).read_bytes() != manifest.canonical_bytes():
            return False
        for parent, folders, names in os.walk(model):
            if any(os.path.islink(os.path.join(parent, name)) for name in folders):
                return False
            for name in names:
                path = Path(parent, name)
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode):
                    return False
                if expected.pop(path.relative_to(model).as_posix(), None) != status.st_size:
                    return False
    except FileNotFoundError:
        return False
    return not expected


@contextlib.contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except PodiumError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise Unavailable(
            f"the model's files cannot be laid out: {error.strerror or type(error).__name__}",
            next_step="free some space" if full else "see to the disk of the server's folder",
        ) from error
