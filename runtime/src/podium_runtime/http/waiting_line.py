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
_LOOK_SECONDS, _LOOK_AT_ONE = 0.001, 2e-6
"""Between two looks, and more for each connection, so that thousands are not looked through all the time."""


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

    def is_silent(self) -> bool:
        """Has nothing been asked yet?"""
        return self._first is None

    def is_arriving(self) -> bool:
        """Is the size of its body still unknown? That of one that has arrived is in the listener's account."""
        return self._first is None or not self._first.complete


def _begun_streams(listener: HttpServer) -> int:
    """Requests that are not answered to the end, and hold up nobody."""
    latest = [connection.latest for connection in listener.connections]
    return sum(one is not None and one.streaming and not one.answered for one in latest)


async def take_over(listening: socket.socket, listener: HttpServer, at_once: int) -> int:
    """Accept until the queue is empty; `at_once` requests may be unanswered. Returns how many were accepted."""
    loop = asyncio.get_running_loop()
    places: list[_Place] = []
    count = 0
    while True:
        places = [place for place in places if not place.is_free()]
        arriving = sum(place.is_arriving() for place in places)
        # A connection whose first request is answered brings the next one while others are still to be accepted.
        taken = listener.active + sum(place.is_silent() for place in places)
        if taken >= at_once:
            taken -= _begun_streams(listener)
        if taken >= at_once or (places and (arriving + 1) * listener.max_body > listener.room):
            await asyncio.sleep(_LOOK_SECONDS + _LOOK_AT_ONE * len(listener.connections))
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
