"""One HTTP/1.1 connection: from bytes to exchanges, and back, in order.

An `asyncio.Protocol` over httptools; `listener` makes one per accepted connection. Requests of one connection are
answered one after the other, pipelined ones wait here. Reading goes on while one is being answered, because that is
how a client's hanging up is seen; it stops when whole requests pile up. What is refused before its body has come is
answered at once, and the rest of that body is read past, so that the connection can go on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from podium_runtime.errors import BodyTooLarge, QueueFull, RequestError, TooSlow
from podium_runtime.http.exchange import Exchange
from podium_runtime.http.statuses import Malformed
from podium_runtime.raw import Buffer

if TYPE_CHECKING:
    from podium_runtime.http.listener import HttpServer

MAX_HEAD = 64 * 1024
"""Bytes of a request's first line and headers; also of what else comes without bringing a body forward."""
MAX_DISCARDED = 64 * 1024 * 1024
"""Bytes of a refused body that are read past before the connection is cut."""
SMALL_CHUNK = 4096
"""Pieces of a body with fewer bytes are put together as they come: each alone would cost more than its bytes."""
_METHODS = frozenset({b"GET", b"POST", b"HEAD"})


class Connection(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, listener: HttpServer) -> None:
        self.listener = listener
        self.blocked = False
        """Whether the client takes what is written more slowly than it is written."""
        self._blocked_since = 0.0
        """When a client that is too slow last took something."""
        self._unsent = 0
        """Bytes that had not gone out at that time."""
        self._idle_since = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._latest: Exchange
        """The request that arrived last, in part or whole."""
        self._reading: Exchange | None = None
        """The same while it is still arriving."""
        self._serving: Exchange | None = None
        """The request that is being answered; it may still be arriving when it was refused early."""
        self._queued: deque[Exchange] = deque()
        self._headers: dict[bytes, bytes] = {}
        self._piece = 0
        self._idle_bytes = 0
        self._moved = False
        self._paused = False
        self._pumping = False
        self._deaf = False
        """Whether what still comes is thrown away: the connection is about to end."""

    @property
    def latest(self) -> Exchange | None:
        """The request that arrived last, in part or whole; None before the first."""
        return getattr(self, "_latest", None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.listener.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.listener.connections.discard(self)
        self._transport = None
        # The parser holds this object's methods, and this object the parser.
        del self._parser
        self._deaf = True
        for exchange in (self._serving, self._reading, *self._queued):
            if exchange is not None:
                exchange.lost()
        self._queued.clear()
        self._serving = self._reading = None

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._piece = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The upgrade is passed over, as HTTP allows, and the connection ends with the answer.
            self._deaf = True
        except httptools.HttpParserCallbackError as error:
            self._broken(error)
        except httptools.HttpParserError:
            self._refuse_all(Malformed(400, "this is not a request of HTTP/1.1"))
        if self._reading is not None and not self._moved and not self._deaf:
            self._idle_bytes += len(data)
            if self._idle_bytes > MAX_HEAD:
                self._refuse_all(Malformed(431, f"the headers are larger than {MAX_HEAD} bytes"))
        self._moved = False

    def eof_received(self) -> None:
        """A client that closes its side is gone: it is not told apart from one that will never read."""

    def pause_writing(self) -> None:
        self.blocked = True
        self._blocked_since = time.monotonic()
        self._unsent = self._transport.get_write_buffer_size() if self._transport is not None else 0

    def resume_writing(self) -> None:
        self.blocked = False
        serving = self._serving
        if serving is not None and serving.on_writable is not None:
            on_writable, serving.on_writable = serving.on_writable, None
            on_writable()
        self._pump()

    # The parser's callbacks, in the order in which they come. None of them may raise.

    def on_message_begin(self) -> None:
        self._reading = self._latest = exchange = Exchange(self)
        self._headers = exchange.headers
        self._moved = True
        self._idle_bytes = 0
        self.listener.active += 1
        self.listener.last_request = exchange.begun

    def on_url(self, url: bytes) -> None:
        self._latest.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        exchange = self._latest
        headers = exchange.headers
        # What is called a header after the body is nobody's.
        self._headers = {}
        exchange.head_done = True
        exchange.method = self._parser.get_method()
        exchange.keep_alive = self._parser.should_keep_alive()
        if b"connection" in headers or not exchange.keep_alive:
            exchange.http_1_0 = self._parser.get_http_version() != "1.1"
            if b"upgrade" in headers:
                exchange.keep_alive = False
        if exchange.method not in _METHODS:
            exchange.keep_alive = False
        if self._piece > MAX_HEAD:
            size = len(exchange.target) + sum(len(name) + len(value) for name, value in headers.items())
            if size > MAX_HEAD:
                self._refuse(exchange, Malformed(431, f"the headers are larger than {MAX_HEAD} bytes"))
        length = headers.get(b"content-length")
        if length is not None and (announced := int(length)):
            if announced > self.listener.max_body:
                self._refuse(exchange, BodyTooLarge(self.listener.max_body))
            elif announced > self.listener.room:
                self._refuse(exchange, _no_room())
        if b"expect" in headers:
            self._expected(exchange, headers[b"expect"])

    def _expected(self, exchange: Exchange, expectation: bytes) -> None:
        if expectation.strip().lower() != b"100-continue":
            self._refuse(exchange, Malformed(417, "only 100-continue can be expected"))
        elif exchange.early is None and self._serving is None:
            # Behind another request it waits for that one's answer, or sends its body unasked, as HTTP allows.
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, chunk: bytes) -> None:
        self._moved = True
        exchange = self._latest
        size = len(chunk)
        exchange.size += size
        if exchange.discarding:
            if exchange.size > MAX_DISCARDED:
                self._abort()
            return
        listener = self.listener
        chunks = exchange.chunks
        if size >= SMALL_CHUNK or not chunks:
            chunks.append(chunk)
        elif type(chunks[-1]) is bytearray:
            chunks[-1] += chunk
        else:
            chunks.append(bytearray(chunk))
        exchange.held += size
        listener.room -= size
        if exchange.size > listener.max_body:
            self._refuse(exchange, BodyTooLarge(listener.max_body))
        elif listener.room < 0:
            self._refuse(exchange, _no_room())

    def on_message_complete(self) -> None:
        exchange = self._latest
        self._reading = None
        exchange.complete = True
        if exchange is self._serving:
            # It was refused early; if its answer is out, the connection goes on from here.
            if exchange.answered:
                self._go_on(exchange)
        elif self._serving is None and not self.blocked:
            self._serve(exchange)
        else:
            self._queued.append(exchange)
            self._pause_reading()

    # Serving.

    def _serve(self, exchange: Exchange) -> None:
        self._serving = exchange
        if exchange.early is not None:
            self.listener.refuse(exchange, exchange.early)
        else:
            self.listener.dispatch(exchange)

    def _refuse(self, exchange: Exchange, error: RequestError) -> None:
        """Refuse a request of which not everything has come yet."""
        if exchange.early is not None:
            return
        exchange.early = error
        exchange.discarding = True
        exchange.chunks = []
        self.listener.give_back(exchange)
        if b"expect" in exchange.headers:
            # Its body may never come, or come: only a new connection is sure to begin with a request.
            exchange.keep_alive = False
        if self._serving is None and not self.blocked:
            self._serve(exchange)

    def _refuse_all(self, error: RequestError) -> None:
        """Refuse what is arriving, and everything after it: where the next request would begin is not known."""
        if self._deaf:
            return
        self._deaf = True
        exchange, self._reading = self._reading, None
        if exchange is None:
            last = self._queued[-1] if self._queued else self._serving
            if last is not None and not last.keep_alive:
                return  # this connection was to end with that request, whatever came after it
            self.listener.active += 1
            exchange = Exchange(self)
        exchange.complete, exchange.keep_alive = True, False
        exchange.chunks = []
        if exchange is self._serving:
            if exchange.answered:
                self._close()
            return
        if exchange.early is None:
            exchange.early = error
        if self._serving is None and not self.blocked:
            self._serve(exchange)
        else:
            self._queued.append(exchange)

    def _broken(self, error: Exception) -> None:
        """One of our own callbacks raised."""
        self.listener.log_failure("internal error", error.__context__ or error, None)
        self._abort()

    def answered(self, exchange: Exchange, now: float) -> None:
        """Go on after an answer was written. Called by the exchange."""
        self.listener.release(exchange)
        self.listener.last_request = self._idle_since = now
        if exchange.complete:
            self._go_on(exchange)
        elif b"expect" in exchange.headers:
            self._deaf = True
            self._close()

    def _go_on(self, exchange: Exchange) -> None:
        if not exchange.keep_alive:
            self._deaf = True
            self._close()
            return
        self._serving = None
        if self._queued or self._paused:
            self._pump()

    def _pump(self) -> None:
        """Serve what waits, one after the other; an answer given at once comes back here, hence the flag."""
        if self._pumping:
            return
        self._pumping = True
        while self._queued and self._serving is None and not self.blocked:
            self._serve(self._queued.popleft())
        self._pumping = False
        if self._paused and not self._queued and self._transport is not None:
            self._paused = False
            if self._reading is not None:
                # Its time begins anew: it was we who did not read.
                self._reading.begun = time.monotonic()
            self._transport.resume_reading()

    # Writing.

    def write(self, content: bytes) -> None:
        """Send bytes to the client, if it is still there."""
        if self._transport is not None:
            self._transport.write(content)

    def write_all(self, parts: list[Buffer]) -> None:
        """Send several pieces to the client, if it is still there."""
        if self._transport is not None:
            self._transport.writelines(parts)

    def _pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _abort(self) -> None:
        self._deaf = True
        if self._transport is not None:
            self._transport.abort()

    # Called by the listener.

    def check(self, now: float, timeout: float, idle: float) -> None:
        """Cut a client that takes nothing for `timeout` seconds, or asks nothing for `idle` seconds.

        One that sends is judged by the whole time of its request: `timeout` seconds from the first byte to the last,
        however steadily the bytes come. What holds memory here must end.
        """
        if self.blocked:
            self._check_reader(now, timeout)
        elif (reading := self._reading) is not None:
            if now - reading.begun > timeout and not self._paused:
                if reading.answered:
                    self._abort()
                else:
                    self._refuse_all(TooSlow())
        elif self._serving is None and now - self._idle_since > idle:
            self._close()

    def _check_reader(self, now: float, timeout: float) -> None:
        unsent = self._transport.get_write_buffer_size() if self._transport is not None else 0
        if unsent < self._unsent:
            self._blocked_since = now
        elif now - self._blocked_since > timeout:
            self._abort()
        self._unsent = unsent

    def close(self) -> None:
        """End the connection after what was written has gone out."""
        self._deaf = True
        self._close()

    def abort(self) -> None:
        """End the connection now."""
        self._abort()


def _no_room() -> QueueFull:
    return QueueFull("the bodies of waiting requests take all the memory set aside for them")
