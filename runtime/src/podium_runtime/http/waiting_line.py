"""Accepts who connected while the model was loading, no faster than they can be answered.

Called by `server` for a replica that a request has started. They may be thousands, each with a body: accepted all at
once they would be more than a replica takes, and the rest would be turned away. In the kernel's queue they cost nothing
and wait on, as they have done so far.
"""

import asyncio
import contextlib
import socket
import time

from podium_runtime.http.connection import Connection
from podium_runtime.http.exchange import Exchange
from podium_runtime.http.listener import HttpServer

_SILENT_SECONDS = 0.1
"""A connection that says nothing for so long holds up nobody behind it: its client has gone, or is slow."""
_LOOK_SECONDS = 0.001


class _Place:
    """One accepted connection, until its first request is answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._accepted_at = time.monotonic()
        self._first: Exchange | None = None

    def is_free(self) -> bool:
        """Answered (of a stream: begun to be), or gone, or silent."""
        latest = self._connection.latest
        if self._first is None:
            self._first = latest
        if self._connection not in self._connection.listener.connections:
            return True
        if self._first is None:
            return time.monotonic() - self._accepted_at > _SILENT_SECONDS
        return self._first.answered or self._first.streaming or latest is not self._first

    def is_arriving(self) -> bool:
        """Is the size of its body still unknown? That of one that has arrived is in the listener's account."""
        return self._first is None or not self._first.complete


async def take_over(listening: socket.socket, listener: HttpServer, at_once: int) -> int:
    """Accept until the queue is empty; `at_once` requests may be unanswered. Returns how many were accepted."""
    loop = asyncio.get_running_loop()
    places: list[_Place] = []
    count = 0
    while True:
        places = [place for place in places if not place.is_free()]
        arriving = sum(place.is_arriving() for place in places)
        if len(places) >= at_once or (places and (arriving + 1) * listener.max_body > listener.room):
            await asyncio.sleep(_LOOK_SECONDS)
            continue
        try:
            accepted, _ = listening.accept()
        except BlockingIOError:
            return count
        accepted.setblocking(False)
        # A client that has hung up may be found out here.
        with contextlib.suppress(OSError):
            _, connection = await loop.connect_accepted_socket(listener.accept, accepted)
            places.append(_Place(connection))
            count += 1
