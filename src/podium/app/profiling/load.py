"""Requests to a replica over its Unix socket, as fast as it answers or at random moments, and how long each took.

A process of its own, run as a file by `driver`. Reads jobs as lines of JSON on stdin, answers each with one line on
stdout, and ends when stdin closes, also in the middle of a job. Standard library only.

    job     {"socket", "path", "bodies": [text], "connections": N, "rate": R or null, "settle": s, "seconds": s}
    answer  {"requests", "failed", "seconds", "p50", "p99", "max" (seconds), "status", "error"}
"""

import collections
import json
import math
import os
import random
import selectors
import socket
import sys
import time
from typing import Any

_PIECE = 256 * 1024
_LONGEST_HEAD = 64 * 1024
_SEED = 20
_OK = 200


class _Connection:
    """One keep-alive connection; one request at a time."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self.started = 0.0
        self.unsent = memoryview(b"")
        self._received = bytearray()
        self._length: int | None = None
        self.status = 0

    def send(self, payload: bytes, started: float) -> None:
        """Begin a request that was due at `started`."""
        self.started, self.unsent = started, memoryview(payload)
        self._received.clear()
        self._length, self.status = None, 0
        self.push()

    def push(self) -> None:
        """Send what the socket takes."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return

    def read(self) -> bool:
        """Read what is there; True when the answer is whole. Raises ConnectionError, ValueError."""
        chunk = self.socket.recv(_PIECE)
        if not chunk:
            raise ConnectionError("the replica closed the connection")
        self._received += chunk
        if self._length is None:
            self._read_head()
        return self._length is not None and len(self._received) >= self._length

    def _read_head(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            if len(self._received) > _LONGEST_HEAD:
                raise ValueError("the answer's head does not end")
            return
        lines = bytes(self._received[:end]).split(b"\r\n")
        self.status = int(lines[0].split(b" ")[1])
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                self._length = end + 4 + int(value)
                return
        raise ValueError("the answer says no content-length")

    def body(self) -> bytes:
        """What was answered."""
        return bytes(self._received).partition(b"\r\n\r\n")[2]


class Run:
    """One job. `settle` seconds are not counted, then `seconds` are."""

    def __init__(self, job: dict[str, Any], payloads: list[bytes], stdin: int) -> None:
        self._job, self._payloads, self._stdin = job, payloads, stdin
        self._rate: float | None = job["rate"]
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Connection] = []
        self._open = 0
        self._next = 0
        self._chance = random.Random(_SEED)  # noqa: S311 - arrivals that come alike in every run, no secret
        self._due: collections.deque[float] = collections.deque()
        self._arrival = self._from = self._until = 0.0
        self._latencies: list[float] = []
        self._failed = 0
        self._error = ""
        self._status = 0

    def measure(self) -> dict[str, Any]:
        """The answer. Raises EOFError when nobody waits for it any more."""
        begin = time.perf_counter()
        self._from = begin + self._job["settle"]
        self._until = self._from + self._job["seconds"]
        self._arrival = begin
        self._selector.register(self._stdin, selectors.EVENT_READ, None)
        try:
            if self._rate is None:
                for _ in range(self._job["connections"]):
                    self._begin(begin)
            while (now := time.perf_counter()) < self._until:
                self._step(now)
        finally:
            for key in list(self._selector.get_map().values()):
                if isinstance(key.data, _Connection):
                    key.data.socket.close()
            self._selector.close()
        return self._answer()

    def _step(self, now: float) -> None:
        if self._rate is not None:
            while self._arrival <= now:
                self._due.append(self._arrival)
                self._arrival += self._chance.expovariate(self._rate)
            while self._due and (self._idle or self._open < self._job["connections"]):
                self._begin(self._due.popleft())
        until = self._until if self._rate is None else min(self._until, self._arrival)
        for key, events in self._selector.select(max(0.0, until - time.perf_counter())):
            if key.data is None:
                self._listen()
            else:
                self._serve(key.data, events)

    def _listen(self) -> None:
        """Nothing is said in the middle of a job but the end."""
        if not os.read(self._stdin, 1):
            raise EOFError
        raise ValueError("a job came while another was under way")

    def _begin(self, started: float) -> None:
        connection: _Connection | None = None
        try:
            connection = self._idle.pop() if self._idle else self._connect()
            self._ask(connection, started)
        except OSError as error:
            if connection is not None:
                self._drop(connection)
            self._fail(f"the replica takes no request: {error.strerror}", 0)
            # A dead replica must not turn the rest of the time into a busy loop.
            time.sleep(0.05)

    def _connect(self) -> _Connection:
        connection = _Connection(self._job["socket"])
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._open += 1
        return connection

    def _drop(self, connection: _Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self._open -= 1

    def _ask(self, connection: _Connection, started: float) -> None:
        connection.send(self._payloads[self._next % len(self._payloads)], started)
        self._next += 1
        if connection.unsent:
            self._selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)

    def _serve(self, connection: _Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                connection.push()
                if not connection.unsent:
                    self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            if not events & selectors.EVENT_READ or not connection.read():
                return
        except BlockingIOError:
            return
        except (OSError, ValueError, IndexError) as error:
            self._drop(connection)
            if connection in self._idle:
                self._idle.remove(connection)
                return
            self._fail(str(error), 0)
            if self._rate is None:
                self._begin(time.perf_counter())
            return
        self._count(connection)

    def _count(self, connection: _Connection) -> None:
        now = time.perf_counter()
        if connection.status != _OK:
            self._fail(connection.body()[:500].decode(errors="replace"), connection.status)
        elif self._from <= now <= self._until:
            self._latencies.append(now - connection.started)
        self._idle.append(connection)
        if self._rate is None:
            self._begin(now)

    def _fail(self, words: str, status: int) -> None:
        self._failed += 1
        self._error, self._status = self._error or words, self._status or status

    def _answer(self) -> dict[str, Any]:
        latencies = sorted(self._latencies)
        return {
            "requests": len(latencies),
            "failed": self._failed,
            "seconds": self._job["seconds"],
            "p50": quantile(latencies, 0.5),
            "p99": quantile(latencies, 0.99),
            "max": latencies[-1] if latencies else 0.0,
            "status": self._status,
            "error": self._error,
        }


def quantile(ordered: list[float], share: float) -> float:
    """The nearest-rank quantile of ascending values: the smallest that `share` of all do not exceed; 0 for none."""
    # Rounded: 0.07 * 100 is a little over 7, and the seventh is meant.
    return ordered[max(0, math.ceil(round(share * len(ordered), 9)) - 1)] if ordered else 0.0


def payload(path: str, body: bytes) -> bytes:
    """A whole request."""
    head = f"POST {path} HTTP/1.1\r\nHost: replica\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def main() -> int:
    """Jobs until stdin closes."""
    stdin = sys.stdin.fileno()
    with open(stdin, "rb", buffering=0, closefd=False) as lines:
        # Unbuffered, so that the end of stdin can be seen while a job is under way.
        while line := _line(lines.fileno()):
            job = json.loads(line)
            payloads = [payload(job["path"], body.encode()) for body in job["bodies"]]
            try:
                answer = Run(job, payloads, stdin).measure()
            except EOFError:
                return 0
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    return 0


def _line(handle: int) -> bytes:
    """One line, nothing after it; empty at the end."""
    found = bytearray()
    while not found.endswith(b"\n"):
        piece = os.read(handle, 2**20)
        if not piece:
            return b""
        found += piece
    return bytes(found)


if __name__ == "__main__":
    sys.exit(main())
