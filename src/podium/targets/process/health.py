"""Asks replicas over their Unix sockets whether they are ready, all at once. Called by `target`.

A replica is a stranger's code: whatever it sends, however slowly, costs one deadline and a kilobyte.
"""

import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

Answer = Literal["ready", "notReady", "silent", "gone"]
"""`notReady`: it answered something else than 200. `silent`: it did not answer in time. `gone`: nobody listens."""

_REQUEST = b"GET /v2/health/ready HTTP/1.1\r\nHost: replica\r\nConnection: close\r\n\r\n"
_MAX_STATUS_LINE = 1024


def ask(sockets: Sequence[Path], timeout: float) -> list[Answer]:
    """One answer per socket, after at most `timeout` seconds for all together."""
    answers: list[Answer] = ["silent"] * len(sockets)
    deadline = time.monotonic() + timeout
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for index, path in enumerate(sockets):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            connection.setblocking(False)
            try:
                # On Unix sockets connect and a short send happen at once or not at all.
                connection.connect(str(path))
                connection.send(_REQUEST)
            except BlockingIOError:
                continue  # its queue is full: as silent as one that does not answer
            except OSError:
                answers[index] = "gone"
                continue
            selector.register(connection, selectors.EVENT_READ, (index, bytearray()))
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                index, received = key.data
                answer = _read(key.fileobj, received)
                if answer is not None:
                    answers[index] = answer
                    selector.unregister(key.fileobj)
    return answers


def _read(connection: object, received: bytearray) -> Answer | None:
    """None: the status line is not whole yet."""
    assert isinstance(connection, socket.socket)  # noqa: S101 - nothing else was registered
    try:
        chunk = connection.recv(_MAX_STATUS_LINE - len(received))
    except BlockingIOError:
        return None
    except OSError:
        return "gone"
    received += chunk
    line, ended, _ = received.partition(b"\r\n")
    if ended:
        return "ready" if line.split(b" ")[1:2] == [b"200"] else "notReady"
    return "notReady" if not chunk or len(received) >= _MAX_STATUS_LINE else None
