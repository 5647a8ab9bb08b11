"""The load, as a process of its own: `python client.py`, a plan as JSON on stdin, what was measured as JSON on stdout.

Started by `load` with the interpreter of this project, for every contestant alike. Closed loop: each connection asks
again as soon as it has its answer. `busy` is the share of the time that this process itself computed: near 1 the client
is the bottleneck, and the figure says more about it than about the server.
"""

import json
import math
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.runtime.talk import Broken, GrpcTalk, HttpTalk, Talk


def requests_of(path: Path) -> list[bytes]:
    """The requests in a file: each with its length in four bytes before it."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        found.append(content[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def talks(plan: dict[str, Any]) -> Callable[[], Talk]:
    """What makes one connection of the plan."""
    requests = requests_of(Path(plan["requests"]))
    address = plan["address"]
    if plan["protocol"] == "grpc":
        headers = [(str(name), str(value)) for name, value in plan["headers"]]
        return lambda: GrpcTalk(address, requests, headers)
    return lambda: HttpTalk(address, requests)


def closed_loop(make: Callable[[], Talk], connections: int, seconds: float, warm: float) -> dict[str, Any]:
    """Ask on `connections` connections for `warm` + `seconds` seconds; only answers that come after `warm` count."""
    poll = select.epoll()
    by_fd: dict[int, Talk] = {}
    started: dict[int, float] = {}
    latencies: list[float] = []
    failed = asked = 0
    clock = time.perf_counter
    writable = select.EPOLLIN | select.EPOLLOUT
    try:
        for _ in range(connections):
            talk = make()
            fd = talk.sock.fileno()
            by_fd[fd] = talk
            poll.register(fd, select.EPOLLIN)
        begin = clock()
        count_from, end = begin + warm, begin + warm + seconds
        busy_from = time.process_time()
        for fd, talk in by_fd.items():
            started[fd] = clock()
            talk.begin(asked)
            asked += 1
            if talk.flush():
                poll.modify(fd, writable)
        now = begin
        while now < end:
            for fd, event in poll.poll(0.1):
                talk = by_fd[fd]
                if event & select.EPOLLOUT and not talk.flush():
                    poll.modify(fd, select.EPOLLIN)
                if not event & ~select.EPOLLOUT:
                    continue
                done = talk.receive()
                if done is None:
                    continue
                now = clock()
                if now >= count_from:
                    latencies.append(now - started[fd])
                    failed += not done
                started[fd] = now
                talk.begin(asked)
                asked += 1
                if talk.flush():
                    poll.modify(fd, writable)
            now = clock()
        busy = (time.process_time() - busy_from) / (now - begin)
    finally:
        for talk in by_fd.values():
            talk.sock.close()
        poll.close()
    return summary(latencies, seconds, failed, busy)


def summary(latencies: list[float], seconds: float, failed: int, busy: float) -> dict[str, Any]:
    """Rate and latencies in milliseconds."""
    ordered = sorted(latencies)
    return {
        "requests": len(ordered),
        "failed": failed,
        "per_second": len(ordered) / seconds,
        "p50_ms": 1000 * quantile(ordered, 0.5),
        "p99_ms": 1000 * quantile(ordered, 0.99),
        "busy": busy,
    }


def quantile(ordered: list[float], share: float) -> float:
    """The nearest-rank quantile of ascending values; 0 without any."""
    # Rounded: 0.07 * 100 is a little over 7, and the seventh is meant.
    return ordered[max(0, math.ceil(round(share * len(ordered), 9)) - 1)] if ordered else 0.0


def main() -> int:
    """Entry point."""
    plan = json.load(sys.stdin)
    if plan["core"] is not None:
        os.sched_setaffinity(0, {plan["core"]})
    try:
        found = closed_loop(talks(plan), plan["connections"], plan["seconds"], plan["warm"])
    except (Broken, OSError) as error:
        found = {"error": str(error)}
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
