"""The replica's log, cut into files of limited size, so that it can neither fill the disk nor need a server to rotate.

Called by `supervise` with whatever the replica writes. Never raises for a full disk: what cannot be written is
counted, and the log says so when it can be written again.
"""

import json
import os
from pathlib import Path

from .state import now

_TAIL_BYTES = 16 * 1024


class RotatingLog:
    """`log` is the newest file, `log.1` the one before, up to `log.<keep>`."""

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._file: int | None = None
        self._size = 0
        self._tail = b""
        self._dropped = 0
        self._full = False

    def write(self, chunk: bytes) -> None:
        """Append; at a line's end, go on in a new file when this one is full."""
        self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
        if self._full:
            self._rotate()
        end = chunk.rfind(b"\n") + 1
        if self._size + len(chunk) <= self._max_bytes:
            self._append(chunk)
        elif end or self._size >= 2 * self._max_bytes:  # a line without an end must not defeat the limit
            end = end or len(chunk)
            self._append(chunk[:end])
            # Only with something to write: the newest file is never missing.
            self._full = True
            if chunk[end:]:
                self._rotate()
                self._append(chunk[end:])
        else:
            self._append(chunk)

    def say(self, level: str, message: str) -> None:
        """Write a line of the shim's own, in the form of the runtime's log."""
        start = b"" if self._tail.endswith(b"\n") or not self._tail else b"\n"
        self.write(start + _line(level, message))

    def tail(self, lines: int = 40, width: int = 2000) -> list[str]:
        """The last lines, each cut to `width` characters."""
        text = self._tail.decode(errors="replace")
        return [clean(line[:width]) for line in text.splitlines()[-lines:]]

    def _append(self, chunk: bytes) -> None:
        if not chunk:
            return
        try:
            if self._file is None:
                self._open()
            if self._dropped:
                self._put(
                    _line("warning", f"{self._dropped} bytes of this log could not be written and are lost")
                )
                self._dropped = 0
            self._put(chunk)
        except OSError:
            self._dropped += len(chunk)

    def _put(self, chunk: bytes) -> None:
        assert self._file is not None  # noqa: S101 - for the type checker: `_append` opened it
        view = memoryview(chunk)
        while view:
            written = os.write(self._file, view)
            self._size += written
            view = view[written:]

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._size = 0
        self._full = False
        for number in range(self._keep, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path.with_name(f"{self._path.name}.{number - 1}") if number > 1 else self._path
            try:
                newer.replace(older)
            except FileNotFoundError:
                continue
            except OSError:
                break


def clean(line: str) -> str:
    """Without what would drive a terminal: a log is a stranger's text, and somebody will print it."""
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in line)


def _line(level: str, message: str) -> bytes:
    """A line in the form of the runtime's own log."""
    return (
        json.dumps({"time": now(), "level": level, "logger": "podium.shim", "message": message}).encode()
        + b"\n"
    )
