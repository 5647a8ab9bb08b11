"""Zip archives from strangers, opened for a look.

Called by the formats whose files are zip archives (skops, PyTorch).
"""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from podium.resources.errors import InvalidInput, Issue

_MAX_DIRECTORY = 64 * 2**20
"""Bytes of a zip archive's directory, which the standard library reads into memory at once."""
_END_BYTES = 65_557
"""The end record and the longest comment behind it."""


@contextlib.contextmanager
def opened(stream: BinaryIO, path: str, what: str) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever is wrong with it, also while it is read, is an InvalidInput "not `what`"."""
    try:
        _check_directory(stream)
        with zipfile.ZipFile(stream) as archive:
            yield archive
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        words = str(error)[:120] or type(error).__name__
        raise InvalidInput(Issue(path, f"not {what} ({words})")) from None


def read_start(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """The first bytes of a member, however large it says that it is."""
    with archive.open(name) as member:
        return member.read(max_bytes)


def _check_directory(stream: BinaryIO) -> None:
    """Raises BadZipFile when the archive has no end, or a directory too large to be read at once."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - _END_BYTES))
    end = stream.read()
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) < at + 22:
        raise zipfile.BadZipFile("no end of the archive's directory")
    directory = int.from_bytes(end[at + 12 : at + 16], "little")
    # 0xffffffff: the true size stands in a record of its own (zip64), whose directory is not looked at unbounded.
    if directory > _MAX_DIRECTORY:
        raise zipfile.BadZipFile(f"its directory has {directory} bytes")
    stream.seek(0)
