"""A constant stream of requests at a stated rate, and what became of each one.

Open loop: a slow answer does not slow the stream down, so that slowness shows. Keep-alive connections over one
asyncio thread; parsing is httptools'. Called by the demo, the tests and the benchmarks.
"""

import asyncio
import contextlib
import itertools
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httptools

_MAX_CONNECTIONS = 256


@dataclass(frozen=True)
class Answer:
    """One request. `started`: seconds since the epoch; `seconds`: until the whole answer was there; `status` 0: no
    answer (`error` says why)."""

    started: float
    seconds: float
    status: int
    revision: str
    error: str = ""

    @property
    def failed(self) -> bool:
        """No answer, or one that is not a 2xx."""
        return not 200 <= self.status < 300


@dataclass
class Answers:
    """All answers so far; safe to read while the stream goes on."""

    rows: list[Answer] = field(default_factory=list)

    def since(self, moment: float) -> list[Answer]:
        """Those that were started at or after `moment` (seconds since the epoch)."""
        return [row for row in list(self.rows) if row.started >= moment]

    def failures(self) -> list[Answer]:
        """Those that failed."""
        return [row for row in list(self.rows) if row.failed]

    def by_revision(self) -> Counter[str]:
        """How many each revision answered."""
        return Counter(row.revision for row in list(self.rows))


class _Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[tuple[int, str]] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._revision = ""
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_connection gives
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError(str(exc) if exc else "the connection was closed"))

    def data_received(self, data: bytes) -> None:
        if self._parser is not None:
            self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-podium-revision":
            self._revision = value.decode("latin-1")

    def on_message_complete(self) -> None:
        parser, done = self._parser, self._done
        if parser is None or done is None or done.done():
            return
        if not parser.should_keep_alive():
            self.close()
        done.set_result((parser.get_status_code(), self._revision))

    async def request(self, payload: bytes) -> tuple[int, str]:
        """Status and revision of the answer. Raises ConnectionError."""
        if self._transport is None or self.closed:
            raise ConnectionError("the connection is closed")
        self._parser, self._revision = httptools.HttpResponseParser(self), ""
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(payload)
        return await self._done

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()


class Load:
    """A context manager: the stream runs in a thread of its own from entry to exit.

    url: the full address to POST to. bodies: JSON bodies, taken in turn. rate: requests per second. tls: for https, how
    the server is known.
    """

    def __init__(
        self,
        url: str,
        bodies: Sequence[bytes],
        *,
        rate: float,
        token: str | None = None,
        timeout: float = 30.0,
        limit: int = 1_000_000,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._tls = tls
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._payloads = itertools.cycle([_payload(parts.path, parts.netloc, body, token) for body in bodies])
        self._rate, self._timeout, self._limit = rate, timeout, limit
        self.answers = Answers()
        self._idle: list[_Connection] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the stream and wait for the answers under way."""
        self._stop.set()
        self._thread.join(self._timeout + 5)

    def wait_until(self, condition: Callable[[Answers], bool], timeout: float) -> bool:
        """Poll until `condition(answers)` holds; False when `timeout` seconds have passed without it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if condition(self.answers):
                return True
            time.sleep(0.02)
        return condition(self.answers)

    def _main(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        start, tasks = time.monotonic(), set[asyncio.Task[None]]()
        gate = asyncio.Semaphore(_MAX_CONNECTIONS)
        for number in range(self._limit):
            if self._stop.is_set():
                break
            wait = start + number / self._rate - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._one(gate))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks, timeout=self._timeout)
        for connection in self._idle:
            connection.close()

    async def _one(self, gate: asyncio.Semaphore) -> None:
        async with gate:
            started, clock = time.time(), time.monotonic()
            status, revision, error = 0, "", ""
            connection: _Connection | None = None
            try:
                async with asyncio.timeout(self._timeout):
                    connection = self._take() or await self._connect()
                    status, revision = await connection.request(next(self._payloads))
            except (OSError, TimeoutError, httptools.HttpParserError) as problem:
                error = f"{type(problem).__name__}: {problem}"
            if connection is not None and not error and not connection.closed:
                self._idle.append(connection)
            elif connection is not None:
                connection.close()
            self.answers.rows.append(Answer(started, time.monotonic() - clock, status, revision, error))

    def _take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        return connection


def _payload(path: str, host: str, body: bytes, token: str | None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    return head.encode() + b"\r\n" + body


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@contextlib.contextmanager
def running(load: Load, requests: int, timeout: float = 30.0) -> Iterator[Load]:
    """The stream, entered once its first `requests` answers are there. Raises TimeoutError."""
    with load:
        if not load.wait_until(lambda answers: len(answers.rows) >= requests, timeout):
            raise TimeoutError(f"{len(load.answers.rows)} answers in {timeout:g} s, waited for {requests}")
        yield load
