"""A server at the wire whose answers a test writes byte for byte, piece by piece."""

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
HANG = b"(hang)"
CLOSE = b"(close)"
Answer = Callable[[int], Sequence[bytes]]


@dataclass
class Scripted:
    """`answers(n)`: pieces of the answer to the n-th request over all connections."""

    answers: Answer
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    ending: threading.Event = field(default_factory=threading.Event)

    tls: ssl.SSLContext | None = None

    def serve(self, plain: socket.socket) -> None:
        buffer = b""
        with contextlib.suppress(OSError), self._secured(plain) as connection:
            while not self.ending.is_set():
                head, found, rest = buffer.partition(b"\r\n\r\n")
                length = int(match[1]) if (match := _LENGTH.search(head)) else 0
                if not found or len(rest) < length:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    buffer += piece
                    continue
                buffer = rest[length:]
                with self.lock:
                    number = len(self.requests)
                    self.requests.append(head + found + rest[:length])
                    self.arrivals.append(time.monotonic())
                for piece in self.answers(number):
                    if piece == CLOSE:
                        return
                    if piece == HANG:
                        self.ending.wait()
                        return
                    connection.sendall(piece)

    def _secured(self, plain: socket.socket) -> socket.socket:
        return plain if self.tls is None else self.tls.wrap_socket(plain, server_side=True)


def ok(number: int) -> Sequence[bytes]:
    """The shortest answer."""
    return [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"]


@contextlib.contextmanager
def scripted(answers: Answer = ok, tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    """Listens on a free port until the end of the block."""
    server = Scripted(answers, tls=tls)
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            server.connections += 1
            open_.append(connection)
            threads.append(threading.Thread(target=server.serve, args=(connection,), daemon=True))
            threads[-1].start()

    open_: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        server.port = listener.getsockname()[1]
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ending.set()
            listener.shutdown(socket.SHUT_RDWR)
            for connection in open_:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for one in threads:
                one.join(10)
