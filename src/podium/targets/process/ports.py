"""Chooses loopback ports for replicas that listen on one. Called by `target`.

Ports are handed out in turn from a range below the one that the kernel gives to outgoing connections, so that a port is
used again only after thousands of others: a gateway that has not yet heard of a replica's end must not find another
model behind its port.
"""

import contextlib
import fcntl
import os
import random
import socket
from collections.abc import Container
from pathlib import Path

from podium.resources.errors import Refused

FIRST, LAST = 20_000, 29_999
LOOPBACK = "127.0.0.1"


class Ports:
    """The next port stands in a file of `folder`, which all servers of one installation share."""

    def __init__(self, folder: Path) -> None:
        self._cursor = folder / "next-port"

    def choose(self, count: int, taken: Container[int]) -> list[int]:
        """Ports that nobody listens on and that are not `taken`. Raises Refused when there are not enough.

        Somebody may bind one before its replica does: then that replica ends, and the next one gets other ports.
        """
        chosen: list[int] = []
        with open(os.open(self._cursor, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            port = _number(file.read())
            for _ in range(FIRST, LAST + 1):
                if len(chosen) == count:
                    break
                if port not in taken and is_free(port):
                    chosen.append(port)
                port = port + 1 if port < LAST else FIRST
            file.seek(0)
            file.write(f"{port}\n")
            file.truncate()
        if len(chosen) < count:
            raise Refused(f"no {count} ports are free between {FIRST} and {LAST}")
        return chosen


def is_free(port: int) -> bool:
    """Can it be listened on now?"""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return True
    return False


def _number(text: str) -> int:
    """A place of its own for each installation on a machine, where none is written down yet or it is damaged."""
    number = int(text) if text.strip().isdigit() else 0
    return number if FIRST <= number <= LAST else random.randint(FIRST, LAST)  # noqa: S311 - no secret
