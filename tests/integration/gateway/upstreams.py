"""Tiny replicas inside the test's own process: what each one answers is a function, and what each one got is kept."""

import asyncio
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    delay: float = 0.0
    """Seconds before it begins."""
    pause: float = 0.0
    """Seconds between its head and its body."""


Answering = Callable[[Request], Reply | None]
"""None: no answer ever, until the other side gives up."""


class Upstream:
    """One replica on a Unix socket. `answering` may be exchanged while it runs; `got` grows."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.got: list[Request] = []
        self.given_up = 0
        """Requests without an answer that the other side has given up."""
        self.answering: Answering = lambda _: Reply()
        self.server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    async def serve(self) -> None:
        self.server = await asyncio.start_unix_server(self._connection, self.path, backlog=1024)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _read(reader):
                self.got.append(request)
                reply = self.answering(request)
                if reply is None:
                    await reader.read()
                    self.given_up += 1
                    return
                await asyncio.sleep(reply.delay)
                headers = {
                    "content-type": "application/json", "x-name": self.name, **reply.headers,
                    "content-length": str(len(reply.body)),
                }  # fmt: skip
                lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                writer.write(f"HTTP/1.1 {reply.status} X\r\n{lines}\r\n".encode())
                if reply.pause:
                    await writer.drain()
                    await asyncio.sleep(reply.pause)
                writer.write(reply.body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines if line)}
    method, path, _ = first.split(" ")
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


class Upstreams:
    """All replicas of a test, on one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Upstream] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, name: str, answering: Answering | None = None) -> Upstream:
        made = Upstream(self._folder / f"{name}.sock", name)
        if answering is not None:
            made.answering = answering
        asyncio.run_coroutine_threadsafe(made.serve(), self._loop).result(30)
        self._started.append(made)
        return made

    def nobody(self, name: str) -> Upstream:
        """A socket that was never bound."""
        return Upstream(self._folder / f"{name}.sock", name)

    def close(self) -> None:
        async def end() -> None:
            for upstream in self._started:
                if upstream.server is not None:
                    upstream.server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


@contextmanager
def upstreams() -> Iterator[Upstreams]:
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="pup"))
    made = Upstreams(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


def says(content: object, status: int = 200, **headers: str) -> Answering:
    """Always the same answer; `x_some_header` becomes `x-some-header`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Reply(status, named, json.dumps(content).encode())
