"""Constant load over kept-alive connections, in a thread with a loop of its own."""

import asyncio
import contextlib
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Load:
    """`rate` requests/s over `connections` connections, from `start` to `stop`. A failure is every answer that is not
    200 and every connection that breaks under a request; a connection that the gateway closed between two requests is
    opened again, as any client does."""

    port: int
    path: str = "/v2/models/churn/infer"
    rate: float = 400.0
    connections: int = 8
    headers: str = ""
    body: bytes = b"{}"
    tls: ssl.SSLContext | None = None
    statuses: Counter[str] = field(default_factory=Counter)
    revisions: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[float, str]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)
    last_start: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    @property
    def total(self) -> int:
        return sum(self.statuses.values())

    def wait_more(self, requests: int, seconds: float = 20.0) -> None:
        """Until so many more requests were answered."""
        wanted, deadline = self.total + requests, time.monotonic() + seconds
        while self.total < wanted:
            assert time.monotonic() < deadline, (self.total, wanted, self.failures[-5:])
            time.sleep(0.01)

    async def _run(self) -> None:
        await asyncio.gather(*(self._connection(number) for number in range(self.connections)))

    async def _connection(self, number: int) -> None:
        pause = self.connections / self.rate
        due = time.monotonic() + pause * number / self.connections
        request = (
            f"POST {self.path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {len(self.body)}\r\n{self.headers}\r\n"
        ).encode() + self.body
        reader = writer = None
        while not self._stop.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + pause, time.monotonic() - 1)
            began = time.monotonic()
            try:
                if writer is None or reader is None or reader.at_eof():
                    await _leave(writer)
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
                writer.write(request)
                async with asyncio.timeout(20):
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                answer = await reader.readexactly(int(fields["content-length"]))
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self._count("broken", began, repr(error))
                await _leave(writer)
                reader = writer = None
                continue
            status = head.split(" ")[1]
            self._count(status, began, answer[:300].decode(errors="replace"))
            revision = fields.get("x-podium-revision")
            if revision:
                self.revisions[revision] += 1
                self.last_start[revision] = began
            if fields.get("connection") == "close":
                await _leave(writer)
                reader = writer = None
        await _leave(writer)

    def _count(self, status: str, began: float, words: str) -> None:
        self.statuses[status] += 1
        if status == "200":
            self.latencies.append(time.monotonic() - began)
            self.answered_at.append(time.monotonic())
        else:
            self.failures.append((began, f"{status} {words}"))


async def _leave(writer: asyncio.StreamWriter | None) -> None:
    """Closed when it returns: TLS takes leave of the other side first, which the end of the loop would cut short."""
    if writer is not None:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                await writer.wait_closed()
