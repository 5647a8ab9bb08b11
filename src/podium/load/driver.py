"""Processes that ask: started once, given one job after the other.

Called by `podium load`, the profiler and the benchmarks.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from podium.load.generator import Found

_LOOK_SECONDS = 0.1
_PATIENCE_SECONDS = 30.0
_ENTRY = Path(__file__).with_name("__main__.py")


class DriverFailed(Exception):
    """A process that asks ended or hangs; or it could not begin, and the message says why."""


@dataclass(frozen=True)
class Job:
    """One run, shared by all processes: connections, rate and limit are divided among them. Times in seconds."""

    place: dict[str, Any]
    """`{"unix": path}`, or `{"address", "port", "tls"}` as in `bounds.Destination.place`."""
    requests: Sequence[bytes]
    connections: int
    seconds: float
    settle: float = 0.0
    rate: float | None = None
    random: bool = False
    limit: int | None = None
    timeout: float = 30.0

    def share(self, index: int, count: int, core: int | None) -> dict[str, Any]:
        """What the process `index` of `count` is told."""

        def part(whole: int) -> int:
            return whole // count + (index < whole % count)

        return {
            "place": self.place, "requests": [request.decode("latin-1") for request in self.requests],
            "connections": part(self.connections), "seconds": self.seconds, "settle": self.settle,
            "rate": None if self.rate is None else self.rate / count, "random": self.random,
            "limit": None if self.limit is None else part(self.limit), "timeout": self.timeout,
            "first": index * len(self.requests) // count, "core": core,
        }  # fmt: skip


class Driver:
    """A context manager. Its processes end with it, and by themselves when this process dies."""

    def __init__(self, processes: int = 1, cores: Sequence[int] = ()) -> None:
        """`cores`: which core each process is bound to, in turn; none: not bound."""
        self._cores = [cores[index % len(cores)] if cores else None for index in range(processes)]
        self._processes = [_Process() for _ in range(processes)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.close()

    def run(
        self,
        job: Job,
        tick: Callable[[], None] = lambda: None,
        progress: Callable[[Found], None] = lambda found: None,
    ) -> Found:
        """What became of one job. `tick` is called ten times a second meanwhile, and may raise or call `stop`;
        `progress` is given what all have found so far, about once per second. Raises DriverFailed."""
        count = min(len(self._processes), job.connections, job.limit or job.connections)
        taking = self._processes[:count]
        for index, process in enumerate(taking):
            process.begin(job.share(index, count, self._cores[index]))
        deadline = time.monotonic() + job.settle + job.seconds + job.timeout + _PATIENCE_SECONDS
        latest: dict[int, Found] = {}
        ended: set[int] = set()
        looked = time.monotonic()
        while len(ended) < count:
            waiting = {process.output: index for index, process in enumerate(taking) if index not in ended}
            ready, _, _ = select.select(list(waiting), [], [], _LOOK_SECONDS)
            for handle in ready:
                for done, found in taking[waiting[handle]].hear():
                    latest[waiting[handle]] = found
                    if done:
                        ended.add(waiting[handle])
            if ready and not ended and len(latest) == count:
                progress(_sum(latest.values()))
            if time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                tick()
                if looked > deadline:
                    raise DriverFailed("the process that asks hangs")
        return _sum(latest.values())

    def stop(self) -> None:
        """The job under way asks nothing more: `run` returns with what there is."""
        for process in self._processes:
            process.say(b"stop\n")


class _Process:
    def __init__(self) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_ENTRY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            # Ctrl-C is for whoever started it: this one is told to stop, and answers.
            start_new_session=True,
        )
        self._pending = b""

    @property
    def output(self) -> int:
        """Its descriptor, for select."""
        assert self._popen.stdout is not None  # noqa: S101 - a pipe
        return self._popen.stdout.fileno()

    def begin(self, job: dict[str, Any]) -> None:
        if not self.say(json.dumps(job).encode() + b"\n"):
            raise DriverFailed("the process that asks ended")

    def say(self, line: bytes) -> bool:
        assert self._popen.stdin is not None  # noqa: S101 - a pipe
        try:
            self._popen.stdin.write(line)
            self._popen.stdin.flush()
        except (BrokenPipeError, ValueError):
            return False
        return True

    def hear(self) -> list[tuple[bool, Found]]:
        """What it has said meanwhile: whether the job is over, and what was found so far. Raises DriverFailed."""
        piece = os.read(self.output, 2**20)
        if not piece:
            raise DriverFailed("the process that asks ended")
        *lines, self._pending = (self._pending + piece).split(b"\n")
        said = []
        for line in lines:
            document = json.loads(line)
            if "error" in document:
                raise DriverFailed(document["error"])
            said.append(("found" in document, Found.parse(document.get("found") or document["progress"])))
        return said

    def close(self) -> None:
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def _sum(parts: Iterable[Found]) -> Found:
    total = Found()
    for part in parts:
        total.merge(part)
    return total
