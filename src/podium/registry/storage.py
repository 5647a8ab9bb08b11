"""The port behind the blob store: where bytes lie under a key. One file per technology: `local_folder`, `bucket`.

Called by `blobs` and `garbage` only. Keys are the blob store's own (`ab/cd/<sha256>`), never a caller's.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class Stored:
    """One stored object: size in bytes, and the time (UTC) at which it was written or last refreshed."""

    key: str
    size: int
    modified_at: datetime.datetime


class Staged(Protocol):
    """Bytes on their way in: nobody can see them before `commit`, and `abort` leaves nothing behind."""

    def write(self, chunk: bytes) -> None: ...

    def commit(self, key: str) -> None:
        """Make the bytes visible under the key, all at once and for good (flushed to the disk)."""
        ...

    def abort(self) -> None: ...


class Content(Protocol):
    """Bytes in and out. Every method raises Unavailable when the storage does not answer or is full."""

    def stage(self, key: str) -> Staged: ...

    def open(self, key: str) -> BinaryIO:
        """A seekable stream. Raises NotFound."""
        ...

    def find(self, key: str) -> Stored | None: ...

    def check(self) -> None:
        """Raise Unavailable, saying why, unless the storage can be reached and written to."""
        ...


class Upkeep(Protocol):
    """What keeping a storage in order needs on top of reading and writing."""

    def walk(self) -> Iterator[Stored]: ...

    def delete(self, key: str) -> bool:
        """True if it was there."""
        ...

    def refresh(self, key: str) -> None:
        """Set the object's time to now, its bytes untouched. Raises NotFound."""
        ...

    def sweep(self, before: datetime.datetime) -> int:
        """Remove what dead writers left unfinished before that time; how many."""
        ...


class Storage(Content, Upkeep, Protocol):
    """What a technology implements."""
