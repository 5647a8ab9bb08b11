"""One connection to a model server that asks again and again, and the two protocols that it can speak.

Called by `client`. Nothing but the standard library and no event loop's overhead: one core of this has to be enough to
keep a server on another core busy. Requests are ready-made bytes; of an answer only what tells success is looked at
(what it says is compared with the model's own answer before a measurement, in `contestants`).
"""

import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK, _PADDED = 1, 4, 1, 8
_INITIAL_WINDOW = 4
_FRAME = 16384
_MOST = 2**31 - 1


class Broken(Exception):
    """The connection cannot be used any more. `answered`: whether part of an answer had come."""

    def __init__(self, words: str, answered: bool = False) -> None:
        super().__init__(words)
        self.answered = answered


class Talk(Protocol):
    """What a measurement needs of a connection. One request at a time."""

    sock: socket.socket
    closing: bool
    """The server has said that this answer is the last on this connection."""
    answer: bytes
    """The last complete answer: a whole HTTP response, or a gRPC message with its five bytes before it."""

    def begin(self, index: int) -> None:
        """Send request number `index` (modulo their number), or as much of it as the socket takes now."""

    def flush(self) -> bool:
        """Send what is left. True while something is."""

    def receive(self) -> bool | None:
        """Read what has come: True or False once the answer is complete (success or not), else None. Raises Broken."""


def connect(address: str, timeout: float = 10.0) -> socket.socket:
    """A connected socket that does not block. `address`: HOST:PORT or the path of a Unix socket."""
    if address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            sock.connect(str(Path(address)))
        except OSError:
            sock.close()
            raise
    else:
        host, _, port = address.rpartition(":")
        sock = socket.create_connection((host, int(port)), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


class _Sender:
    """Bytes that wait until the socket takes them."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._left = memoryview(b"")

    def send(self, content: bytes) -> None:
        if self._left:
            self._left = memoryview(bytes(self._left) + content)
            return
        try:
            sent = self.sock.send(content)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise Broken(f"sending failed: {error.strerror}") from error
        if sent < len(content):
            self._left = memoryview(content)[sent:]

    def flush(self) -> bool:
        if self._left:
            try:
                self._left = self._left[self.sock.send(self._left) :]
            except BlockingIOError:
                pass
            except OSError as error:
                raise Broken(f"sending failed: {error.strerror}") from error
        return bool(self._left)


class HttpTalk:
    """HTTP/1.1 with keep-alive. `requests`: whole requests, head and body."""

    def __init__(self, address: str, requests: Sequence[bytes]) -> None:
        self.sock = connect(address)
        self.closing = False
        self.answer = b""
        self._requests = requests
        self._sender = _Sender(self.sock)
        self._got = b""
        self._end = -1

    def begin(self, index: int) -> None:
        self._got, self._end = b"", -1
        self._sender.send(self._requests[index % len(self._requests)])

    def flush(self) -> bool:
        return self._sender.flush()

    def receive(self) -> bool | None:
        try:
            content = self.sock.recv(262144)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Broken(f"receiving failed: {error.strerror}", bool(self._got)) from error
        if not content:
            raise Broken("the server closed the connection", bool(self._got))
        self._got = self._got + content if self._got else content
        if self._end < 0:
            head = self._got.find(b"\r\n\r\n")
            if head < 0:
                return None
            length = _LENGTH.search(self._got, 0, head)
            if length is None:
                raise Broken("an answer without content-length", True)
            self._end = head + 4 + int(length[1])
            self.closing = _CLOSES.search(self._got, 0, head) is not None
        if len(self._got) < self._end:
            return None
        self.answer = self._got
        return self._got[9:12] == b"200"


class GrpcTalk:
    """Unary gRPC over HTTP/2 without TLS, one stream after the other. `requests`: serialised messages.

    An answer with a message is a success: gRPC sends none with an error. Headers are not decoded for that reason.
    """

    def __init__(self, address: str, requests: Sequence[bytes], headers: Sequence[tuple[str, str]]) -> None:
        self.sock = connect(address)
        self.closing = False
        self._messages = [b"\0" + len(message).to_bytes(4, "big") + message for message in requests]
        self._headers = b"".join(_literal(name, value) for name, value in headers)
        self._sender = _Sender(self.sock)
        self._stream = -1
        self._window, self._stream_window, self._initial = 65535, 0, 65535
        self._body = memoryview(b"")
        self._got = bytearray()
        self._taken = 0
        self.answer = b""
        settings = b"\0\x01\0\0\0\0" + b"\0\x02\0\0\0\0" + b"\0\x04" + _MOST.to_bytes(4, "big")
        grow = (_MOST - 65535).to_bytes(4, "big")
        self._sender.send(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, grow))

    def begin(self, index: int) -> None:
        self._stream += 2
        self.answer = b""
        self._stream_window = self._initial
        self._body = memoryview(self._messages[index % len(self._messages)])
        self._pass_on(_frame(_HEADERS, _END_HEADERS, self._stream, self._headers))

    def _pass_on(self, first: bytes = b"") -> None:
        """Send as much of the body as the server's windows allow."""
        frames = [first]
        while self._body:
            size = min(len(self._body), self._window, self._stream_window, _FRAME)
            if size <= 0:
                break
            last = size == len(self._body)
            frames.append(_frame(_DATA, _END_STREAM if last else 0, self._stream, bytes(self._body[:size])))
            self._body = self._body[size:]
            self._window -= size
            self._stream_window -= size
        content = b"".join(frames)
        if content:
            self._sender.send(content)

    def flush(self) -> bool:
        return self._sender.flush()

    def receive(self) -> bool | None:
        try:
            content = self.sock.recv(262144)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Broken(f"receiving failed: {error.strerror}", bool(self.answer)) from error
        if not content:
            raise Broken("the server closed the connection", bool(self.answer))
        self._got += content
        done: bool | None = None
        at = 0
        while len(self._got) - at >= 9:
            length = int.from_bytes(self._got[at : at + 3], "big")
            if len(self._got) - at < 9 + length:
                break
            kind, flags = self._got[at + 3], self._got[at + 4]
            stream = int.from_bytes(self._got[at + 5 : at + 9], "big") & _MOST
            payload = bytes(self._got[at + 9 : at + 9 + length])
            at += 9 + length
            if self._frame(kind, flags, stream, payload):
                done = len(self.answer) > 5
        del self._got[:at]
        return done

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bool:
        """Act on one frame. True when the current answer is complete."""
        if kind == _DATA:
            self._taken += len(payload)
            if self._taken > 2**29:
                self._sender.send(_frame(_WINDOW, 0, 0, self._taken.to_bytes(4, "big")))
                self._taken = 0
            self.answer = self.answer + payload if self.answer else payload
        elif kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(payload), 6):
                if int.from_bytes(payload[at : at + 2], "big") == _INITIAL_WINDOW:
                    before, self._initial = self._initial, int.from_bytes(payload[at + 2 : at + 6], "big")
                    self._stream_window += self._initial - before
            self._sender.send(_frame(_SETTINGS, _ACK, 0, b""))
            self._pass_on()
        elif kind == _PING and not flags & _ACK:
            self._sender.send(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW:
            step = int.from_bytes(payload, "big") & _MOST
            if stream == 0:
                self._window += step
            elif stream == self._stream:
                self._stream_window += step
            self._pass_on()
        elif kind == _GOAWAY:
            self.closing = True
        if stream != self._stream:
            return False
        return kind == _RESET or (kind in (_DATA, _HEADERS) and bool(flags & _END_STREAM))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _literal(name: str, value: str) -> bytes:
    """A header field that neither side has to remember (RFC 7541, 6.2.2), without Huffman coding."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    content = text.encode("ascii")
    size = len(content)
    if size < 127:
        return bytes((size,)) + content
    size -= 127
    prefix = bytearray((127,))
    while size >= 128:
        prefix.append(size % 128 + 128)
        size //= 128
    return bytes(prefix) + bytes((size,)) + content
