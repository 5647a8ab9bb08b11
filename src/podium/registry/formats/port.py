"""The port behind which every flavor stands at intake: which files it recognises, and what it reads out of them.

Called by `intake`. A format only ever sees bytes: nothing of the model is imported, unpickled or executed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from packaging.requirements import Requirement

from podium.registry.blobs import CHUNK, BlobStore
from podium.resources.errors import InvalidInput, Issue, TooLarge
from podium.resources.manifest import FileEntry, Flavor, FlavorName, Signature

__all__ = ["FlavorName", "Format", "PushedFiles", "Reading"]


class PushedFiles:
    """The pushed files by path, their bytes in the blob store."""

    def __init__(self, files: Sequence[FileEntry], blobs: BlobStore) -> None:
        self.entries: Mapping[str, FileEntry] = {file.path: file for file in files}
        self._blobs = blobs

    @property
    def paths(self) -> list[str]:
        return sorted(self.entries)

    def holds(self, path: str) -> bool:
        """Is this a file, or a folder with a file in it?"""
        return path in self.entries or any(known.startswith(path + "/") for known in self.entries)

    def read(self, path: str, max_bytes: int) -> bytes:
        """A small file as a whole, checked against its hash. Raises InvalidInput when it is too long."""
        try:
            return self._blobs.read(self.entries[path].sha256, max_bytes)
        except TooLarge:
            raise InvalidInput(Issue(path, f"expected at most {max_bytes} bytes")) from None

    def text(self, path: str, max_bytes: int) -> str:
        """A small file as text. Raises InvalidInput naming the file when it is not UTF-8."""
        try:
            return self.read(path, max_bytes).decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidInput(Issue(path, "expected UTF-8 text")) from None

    def chunks(self, path: str) -> Iterator[bytes]:
        """The bytes in chunks. Not checked against the hash: for looking for hints only."""
        with self.open(path) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk

    def open(self, path: str) -> BinaryIO:
        return self._blobs.open(self.entries[path].sha256)


@dataclass(frozen=True)
class Reading:
    """What a format read. `python` and `signature` are None where the files do not say."""

    flavor: Flavor
    requirements: list[Requirement] = field(default_factory=list)
    python: str | None = None
    signature: Signature | None = None
    notes: tuple[str, ...] = ()
    """What a person should know about choices that were made, in sentences."""


class Format(Protocol):
    """One flavor's way of being stored."""

    name: FlavorName
    description: str
    """What is recognised, for the message when nothing was."""

    def recognises(self, files: PushedFiles) -> bool:
        """By names (and podium.yaml): cheap, and no two formats say yes to the same files unless a person must
        choose."""
        ...

    def read(self, files: PushedFiles, given: Sequence[Requirement]) -> Reading:
        """`given` are the pusher's own requirements, which take the place of the files' for the same package.

        Raises InvalidInput naming the file and what is wrong with it."""
        ...
