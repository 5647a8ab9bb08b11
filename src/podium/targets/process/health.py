"""Asks replicas whether they are ready, over their Unix sockets or loopback ports, all at once. Called by `target`.

A replica is a stranger's code: whatever it sends, however slowly, costs one deadline and a kilobyte.
"""

import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Answer = Literal["ready", "notReady", "silent", "gone"]
"""`notReady`: it answered something else than 200. `silent`: it did not answer in time. `gone`: nobody listens."""

LOOPBACK = "127.0.0.1"
READY_PATH = "/v2/health/ready"
_MAX_STATUS_LINE = 1024


@dataclass(frozen=True)
class Question:
    """Whom to ask, and for which path. `place`: a Unix socket's path, or a port of the loopback address."""

    place: Path | int
    path: str = READY_PATH

    @property
    def request(self) -> bytes:
        """The path is printable ASCII without spaces: specs are checked for it."""
        host = "replica" if isinstance(self.place, Path) else f"{LOOPBACK}:{self.place}"
        return f"GET {self.path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()

    def connect(self, connection: socket.socket) -> None:
        """Raises BlockingIOError where it is not done yet, and other OSErrors where nobody listens."""
        if isinstance(self.place, Path):
            connection.connect(str(self.place))
        else:
            connection.connect((LOOPBACK, self.place))


@dataclass
class _Asked:
    index: int
    question: Question
    received: bytearray = field(default_factory=bytearray)


def ask(questions: Sequence[Question], timeout: float) -> list[Answer]:
    """One answer per question, after at most `timeout` seconds for all together."""
    answers: list[Answer] = ["silent"] * len(questions)
    deadline = time.monotonic() + timeout
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for index, question in enumerate(questions):
            local = isinstance(question.place, Path)
            family = socket.AF_UNIX if local else socket.AF_INET
            connection = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            connection.setblocking(False)
            wait_for = selectors.EVENT_READ
            try:
                question.connect(connection)
                connection.send(question.request)
            except BlockingIOError:
                if local:
                    # On Unix sockets connect and a short send happen at once or not at all: its queue is full, and it
                    # is as silent as one that does not answer.
                    continue
                wait_for = selectors.EVENT_WRITE
            except OSError:
                answers[index] = "gone"
                continue
            selector.register(connection, wait_for, _Asked(index, question))
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, events in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)  # noqa: S101 - nothing else was registered
                asked: _Asked = key.data
                if events & selectors.EVENT_WRITE:
                    answer = _send(key.fileobj, asked.question)
                    if answer is None:
                        selector.modify(key.fileobj, selectors.EVENT_READ, asked)
                else:
                    answer = _read(key.fileobj, asked.received)
                if answer is not None:
                    answers[asked.index] = answer
                    selector.unregister(key.fileobj)
    return answers


def _send(connection: socket.socket, question: Question) -> Answer | None:
    """The connection stands, or has failed."""
    try:
        connection.send(question.request)
    except OSError:
        return "gone"
    return None


def _read(connection: socket.socket, received: bytearray) -> Answer | None:
    """None: the status line is not whole yet."""
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
