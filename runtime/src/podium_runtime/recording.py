"""Writes down what was answered to requests that the gateway copies to a shadow, so that both answers can be compared.

The gateway marks such a request, and its copy, with `x-podium-record`. `http.exchange` hands every answer of one to the
`Recorder`, which `server` makes where the environment names a folder. An answer becomes one line of JSON, in memory; a
thread writes the lines. Nothing here ever fails a request, or makes it wait: what cannot be kept is counted as lost.

    <folder>/<number>.jsonl   two at most, of 4 MiB at most. A new one begins with {"before": N}: N answers were
                              written or lost until then. {"lost": N} stands where N answers could not be kept.
"""

import contextlib
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from podium_runtime.jobs import Outputs

FOLDER_VARIABLE = "PODIUM_RECORDS"
"""Names the folder. A variable, and no field of the configuration, because earlier builds refuse fields."""
HEADER = b"x-podium-record"
COPY_HEADER = b"x-podium-shadow"
SEGMENT_BYTES = 4 * 2**20
SEGMENTS = 2
VALUES = 64
"""Values of one output that are kept. Of a larger one: whole rows, evenly spaced, and of a row that is wider than this
as many evenly spaced places; which ones follows from the shape alone, so that the other side keeps the same."""
_OUTPUTS = 16
_NAME_CHARACTERS = 256
_DIMENSIONS = 8
_LINE_BYTES = 64 * 2**10
_SHORT = 40
_KEPT_OF_LONG = 24
_WAITING_BYTES = 2**20
_FLUSH_SECONDS = 0.2


class Recorder:
    """One replica's records. `add` is called from the event loop only."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES, segments: int = SEGMENTS) -> None:
        self._writer = _Writer(folder, segment_bytes, segments)
        self._lines: deque[bytes] = deque()
        # Each is counted up by one thread only.
        self._added = self._taken = 0
        self._refused = self._told = 0
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def add(
        self, headers: Mapping[bytes, bytes], status: int, seconds: float, outputs: Outputs | None
    ) -> None:
        """Keep one answer. `headers` are the request's, `seconds` how long it took; `outputs` None: an error."""
        if self._added - self._taken > _WAITING_BYTES:
            self._refused += 1
            return
        try:
            line = _line(headers, status, seconds, outputs)
        except Exception:
            # Outputs are whatever a model makes.
            line = None
        if line is None:
            self._refused += 1
        else:
            self._lines.append(line)
            self._added += len(line)
        if not self._wake.is_set():
            self._awake()

    def close(self) -> None:
        """Write what is left."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2)

    def _awake(self) -> None:
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="records", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if not self._stopping:
                time.sleep(_FLUSH_SECONDS)
            self._wake.clear()
            self._flush()
            if self._stopping:
                self._writer.close()
                return

    def _flush(self) -> None:
        lines = []
        with contextlib.suppress(IndexError):
            while True:
                lines.append(self._lines.popleft())
        refused = self._refused
        if lines or refused != self._told:
            self._writer.write(lines, refused - self._told)
        self._told = refused
        self._taken += sum(map(len, lines))


class _Writer:
    """The files. Used from the recorder's thread only."""

    def __init__(self, folder: Path, segment_bytes: int, segments: int) -> None:
        self._folder, self._most, self._segments = folder, segment_bytes, segments
        self._file: int | None = None
        self._number = self._size = 0
        self._before = 0
        """Answers written or lost so far."""
        self._lost = 0
        """Of those, the ones that no file tells of yet."""
        self._torn = False

    def write(self, lines: list[bytes], lost: int) -> None:
        self._lost += lost
        while lines or self._lost:
            try:
                if self._file is None or self._size >= self._most:
                    self._next()
            except OSError:
                # A full disk, or a folder that the model took away.
                self._lost += len(lines)
                return
            if not self._tell_lost():
                self._lost += len(lines)
                return
            room, fitting = self._most - self._size, 0
            while fitting < len(lines) and (room := room - len(lines[fitting])) >= 0:
                fitting += 1
            if fitting == 0:
                self._size = self._most
                continue
            content = b"".join(lines[:fitting])
            done = self._append(content)
            whole = content.count(b"\n", 0, done)
            self._before += whole
            del lines[:whole]
            if done < len(content):
                self._lost += len(lines)
                return

    def _tell_lost(self) -> bool:
        """Write down how many answers could not be kept; return whether that could."""
        if not self._lost:
            return True
        content = b'{"lost":%d}\n' % self._lost
        if self._append(content) < len(content):
            return False
        self._before, self._lost = self._before + self._lost, 0
        return True

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _append(self, content: bytes) -> int:
        """Write; return how many bytes that could be done for. After a part of a line the next one begins anew."""
        assert self._file is not None  # noqa: S101 - for the type checker: `write` opened it
        done = 0
        try:
            if self._torn:
                self._size += os.write(self._file, b"\n")
                self._torn = False
            while done < len(content):
                written = os.write(self._file, memoryview(content)[done:])
                self._size, done = self._size + written, done + written
        except OSError:
            self._torn = True
        return done

    def _next(self) -> None:
        """Begin a segment, and let the oldest go."""
        self.close()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = sorted(int(name[:-6]) for name in os.listdir(self._folder) if _is_segment(name))
        for number in there[: max(0, len(there) + 1 - self._segments)]:
            os.unlink(self._folder / f"{number:010}.jsonl")
        self._number = max([self._number, *there]) + 1
        path = self._folder / f"{self._number:010}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size, self._torn = 0, False
        self._append(b'{"before":%d}\n' % self._before)


def from_environment() -> Recorder | None:
    """The recorder that whoever started this process wants, if any."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Recorder(Path(folder)) if folder else None


def _is_segment(name: str) -> bool:
    return len(name) == 16 and name.endswith(".jsonl") and name[:10].isascii() and name[:10].isdigit()


def _line(
    headers: Mapping[bytes, bytes], status: int, seconds: float, outputs: Outputs | None
) -> bytes | None:
    id_ = headers[b"x-request-id"]
    if not 1 <= len(id_) <= 128 or not id_.isascii():
        return None
    document: dict[str, Any] = {
        "id": id_.decode("ascii"),
        "at": time.time(),
        "s": round(seconds, 6),
        "status": status,
    }
    if headers.get(COPY_HEADER) == b"true":
        document["copy"] = True
    if outputs:
        names = list(outputs) if len(outputs) <= _OUTPUTS else sorted(outputs)[:_OUTPUTS]
        document["out"] = {
            name: _output(np.asarray(outputs[name])) for name in names if len(name) <= _NAME_CHARACTERS
        }
    line = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
    return line if len(line) <= _LINE_BYTES else None


def _output(array: np.ndarray[Any, Any]) -> tuple[str, tuple[int, ...], Any]:
    """Kind, shape and values: `t`ext, `b`oolean, `i`nteger or `f`loat. A float that is not finite becomes null."""
    shape = array.shape
    if len(shape) > _DIMENSIONS:
        raise ValueError("too many dimensions")
    values = array.ravel() if array.size <= VALUES else _some(array)
    kind = array.dtype.kind
    if kind in "iu":
        return "i", shape, values
    if kind == "f":
        # Half precision is written by the single one's digits.
        return "f", shape, values.astype(np.float32) if array.dtype.itemsize == 2 else values
    if kind == "b":
        return "b", shape, values
    return "t", shape, [_text(value) for value in values.tolist()]


def _some(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    rows: np.ndarray[Any, Any] = array.reshape(array.shape[0], -1)
    columns = min(rows.shape[1], VALUES)
    count = max(1, min(rows.shape[0], VALUES // columns))
    some: np.ndarray[Any, Any] = rows[_spaced(rows.shape[0], count)][:, _spaced(rows.shape[1], columns)]
    return some.ravel()


def _spaced(length: int, count: int) -> np.ndarray[Any, Any]:
    return np.arange(count) * length // count


def _text(value: object) -> str | None:
    """A text as it is; the beginning of a long one, with a hash of all of it."""
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if not isinstance(value, str):
        # Its own methods are the model's code.
        return f"<{type(value).__name__[:_SHORT]}>"
    if len(value) <= _SHORT:
        return value
    digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{value[:_KEPT_OF_LONG]}#{digest}"
