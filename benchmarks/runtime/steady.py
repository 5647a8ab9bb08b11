"""A steady stream as a process of its own: `python -m benchmarks.runtime.steady`, a plan as JSON on stdin.

Started by `soak`. Open loop: requests are due at a constant rate whether or not earlier ones have been answered, and a
latency counts from the moment a request was due. The stream ends when its time is over, or when the server has gone:
each connection is opened anew after the server closed it, until that is refused.

Which requests count: each whose first byte was given to an open connection has to be answered with 200. Being refused
a connection is none; neither is a connection that the server's kernel had taken but the server never did (it was opened
after the server had been told to stop, and was closed without a byte): those are counted apart.
"""

import array
import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.runtime.client import quantile, requests_of
from benchmarks.runtime.talk import Broken, HttpTalk


class Stream:
    """All connections of the stream and what came of its requests."""

    def __init__(self, connect: Callable[[], HttpTalk], connections: int, windows: int) -> None:
        self._connect = connect
        self._poll = select.epoll()
        self._by_fd: dict[int, HttpTalk] = {}
        self._idle: deque[int] = deque()
        self._under_way: dict[int, float] = {}
        """When the request was due, by connection."""
        self._opened: dict[int, float] = {}
        self._sent = 0
        self.latencies = [array.array("d") for _ in range(windows)]
        self.failed = 0
        self.lost: list[dict[str, Any]] = []
        self.refused = 0
        for _ in range(connections):
            self._open()

    @property
    def gone(self) -> bool:
        """No connection is left."""
        return not self._by_fd

    @property
    def free(self) -> bool:
        """Some connection has nothing to do."""
        return bool(self._idle)

    def _open(self) -> None:
        try:
            talk = self._connect()
        except OSError:
            self.refused += 1
            return
        fd = talk.sock.fileno()
        self._by_fd[fd], self._opened[fd] = talk, time.monotonic()
        self._poll.register(fd, select.EPOLLIN)
        self._idle.append(fd)

    def _close(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._by_fd.pop(fd).sock.close()
        if fd in self._idle:
            self._idle.remove(fd)

    def ask(self, due: float) -> None:
        """Send the next request on the connection that has been idle for longest."""
        fd = self._idle.popleft()
        talk = self._by_fd[fd]
        self._under_way[fd] = due
        try:
            talk.begin(self._sent)
            if talk.flush():
                self._poll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
        except Broken as error:
            self._broken(fd, error)
        self._sent += 1

    def turn(self, seconds: float, window: int) -> None:
        """Wait for `seconds` at most and take what comes."""
        for fd, event in self._poll.poll(max(0.0, seconds)):
            talk = self._by_fd[fd]
            try:
                if event & select.EPOLLOUT and not talk.flush():
                    self._poll.modify(fd, select.EPOLLIN)
                done = talk.receive() if event & ~select.EPOLLOUT else None
            except Broken as error:
                self._broken(fd, error)
                continue
            if done is None:
                continue
            self.latencies[window].append(time.monotonic() - self._under_way.pop(fd))
            self.failed += not done
            if talk.closing:
                self._close(fd)
                self._open()
            else:
                self._idle.append(fd)

    def _broken(self, fd: int, error: Broken) -> None:
        due = self._under_way.pop(fd, None)
        if due is not None:
            told = {"due": due, "opened": self._opened[fd], "partly": error.answered, "words": str(error)}
            self.lost.append(told)
        self._close(fd)
        self._open()


def run(plan: dict[str, Any]) -> dict[str, Any]:
    """The stream from its start to its end."""
    requests = requests_of(Path(plan["requests"]))
    address, rate, seconds = plan["address"], plan["rate"], plan["seconds"]
    count = plan["windows"]
    stream = Stream(lambda: HttpTalk(address, requests), plan["connections"], count)
    begin = time.monotonic()
    busy_from = time.process_time()
    now, due = begin, begin
    while now < begin + seconds and not stream.gone:
        while due <= now and stream.free:
            stream.ask(due)
            due += 1 / rate
        stream.turn(
            min(0.05, due - now) if stream.free else 0.05,
            min(count - 1, int(count * (now - begin) / plan["span"])),
        )
        now = time.monotonic()
    return {
        "busy": (time.process_time() - busy_from) / (now - begin),
        "seconds": now - begin,
        "gone": stream.gone,
        "failed": stream.failed,
        "lost": stream.lost,
        "refused": stream.refused,
        "windows": [_window(found) for found in stream.latencies],
    }


def _window(latencies: "array.array[float]") -> dict[str, float]:
    ordered = sorted(latencies)
    return {
        "requests": len(ordered),
        "p50_ms": 1000 * quantile(ordered, 0.5),
        "p99_ms": 1000 * quantile(ordered, 0.99),
    }


def main() -> int:
    """Entry point."""
    plan = json.load(sys.stdin)
    if plan["core"] is not None:
        os.sched_setaffinity(0, {plan["core"]})
    json.dump(run(plan), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
