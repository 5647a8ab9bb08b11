"""Reads what a replica wrote down about its answers (`podium_runtime.recording`), from where a reader left off.

Called by `target`. The files lie where model code may write, so nothing about them is believed: no link is followed,
only regular files are read, and a call reads a bounded number of bytes, whatever is there.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from podium.targets.port import RecordMark, ReplicaRecords

FOLDER = "podium-records"
"""Within a replica's private folder."""
MOST_BYTES = 2 * 2**20
"""Of one replica in one call; a segment may be twice as long."""
_SEGMENT = re.compile(r"([0-9]{10})\.jsonl")
_MOST_NAMES = 256
_MOST_SEGMENTS = 8
_LINE_BYTES = 64 * 2**10
_TOLD = re.compile(rb'\{"(before|lost)":([0-9]{1,15})\}')
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read(
    private: Path, replica: str, mark: RecordMark | None, most_bytes: int = MOST_BYTES
) -> ReplicaRecords:
    """The answers after `mark`; None: all that there are. `private` is the replica's private folder."""
    reader = _Reader(mark)
    with contextlib.suppress(OSError), _folder(private) as folder:
        for number in _segments(folder, reader.mark.segment):
            most_bytes -= reader.segment(folder, number, most_bytes)
            if most_bytes <= 0:
                break
    return ReplicaRecords(replica, tuple(reader.lines), reader.mark, reader.lost, more=most_bytes <= 0)


@contextlib.contextmanager
def _folder(private: Path) -> Iterator[int]:
    opened = os.open(private, _FLAGS | os.O_DIRECTORY)
    try:
        inner = os.open(FOLDER, _FLAGS | os.O_DIRECTORY, dir_fd=opened)
    finally:
        os.close(opened)
    try:
        yield inner
    finally:
        os.close(inner)


def _segments(folder: int, least: int) -> list[int]:
    found = []
    with os.scandir(folder) as entries:
        for entry, _ in zip(entries, range(_MOST_NAMES), strict=False):
            named = _SEGMENT.fullmatch(entry.name)
            if named is not None and int(named[1]) >= least:
                found.append(int(named[1]))
    return sorted(found)[:_MOST_SEGMENTS]


class _Reader:
    """Goes through the segments of one replica."""

    def __init__(self, mark: RecordMark | None) -> None:
        self._first = mark is None
        self.mark = mark or RecordMark(0, 0, 0)
        self.lines: list[bytes] = []
        self.lost = 0

    def segment(self, folder: int, number: int, most_bytes: int) -> int:
        """Read on in that segment; how many bytes were read."""
        offset = self.mark.offset if number == self.mark.segment else 0
        try:
            content = _content(folder, number, offset, most_bytes)
        except OSError:
            return 0
        end = content.rfind(b"\n") + 1
        if end == 0 and len(content) > _LINE_BYTES:
            # No line is that long: over it, to whatever comes next.
            end = len(content)
        # What has no end yet is still being written, or was when its writer died.
        for line in content[:end].split(b"\n"):
            self._line(line)
        self.mark = RecordMark(number, offset + end, self.mark.seen)
        return len(content)

    def _line(self, line: bytes) -> None:
        if not line:
            return
        told = _TOLD.fullmatch(line)
        if told is None:
            self.lines.append(line)
            seen = self.mark.seen + 1
        elif told[1] == b"lost":
            self.lost += int(told[2])
            seen = self.mark.seen + int(told[2])
        else:
            # A reader that begins has lost nothing of what was there before.
            missed = int(told[2]) - self.mark.seen
            self.lost += 0 if self._first else max(0, missed)
            seen = int(told[2]) if self._first else max(self.mark.seen, int(told[2]))
        self._first = False
        self.mark = RecordMark(self.mark.segment, self.mark.offset, seen)


def _content(folder: int, number: int, offset: int, most_bytes: int) -> bytes:
    file = os.open(f"{number:010}.jsonl", _FLAGS, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return b""
        return os.pread(file, most_bytes, offset)
    finally:
        os.close(file)
