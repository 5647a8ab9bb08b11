"""One kept connection that asks one request at a time and reads whole answers. Never blocks.

Called by `generator`. Reads answers with a length, in chunks, or up to the connection's end; follows no redirect.
"""

import errno
import os
import socket
import ssl
from dataclasses import dataclass

_PIECE = 256 * 1024
_LONGEST_HEAD = 64 * 1024
_LONGEST_SAMPLE = 500
_EMPTY = (204, 304)
NOT_TRUSTED = "the certificate is not trusted"
WANTS_A_CERTIFICATE = "the server wants a certificate of its client"


class Broken(Exception):
    """The connection is of no more use; the words say why."""


@dataclass(frozen=True)
class Place:
    """Where to connect: a Unix socket, or an address that is resolved already."""

    unix: str = ""
    address: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    """For TLS: whose certificate is expected."""


class Connection:
    """`wants_write`: something is unsent, or TLS has to write. `done`: the answer is whole."""

    def __init__(self, place: Place) -> None:
        self.started = 0.0
        """When the request was due, in the generator's clock."""
        self.asked = 0.0
        """When it was sent."""
        self.status = 0
        self.received = 0
        """Bytes of the answer so far."""
        self.closes = False
        """The server ends the connection after this answer."""
        self.wants_write = True
        self.busy = False
        self._tls = place.tls is not None
        self._greeted = False
        self._connected = False
        self._unsent = memoryview(b"")
        self._buffer = bytearray()
        self._end: int | None = None
        self._chunk_at = -1
        self._until_close = False
        self.sock = _open(place)

    def fileno(self) -> int:
        """For polling."""
        return self.sock.fileno()

    def ask(self, payload: bytes, started: float, now: float) -> None:
        """Begin a request that was due at `started`. Raises Broken."""
        self.started, self.asked, self.busy = started, now, True
        self.status, self.received, self._end = 0, 0, None
        self._chunk_at, self._until_close, self.closes = -1, False, False
        if self._buffer:
            raise Broken("the server said something that nobody had asked for")
        self._unsent = memoryview(payload)
        if self._greeted:
            self.push()

    def push(self) -> None:
        """Send what can be sent; the connection's beginning comes first. Raises Broken."""
        try:
            if not self._greeted and not self._greet():
                return
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
            self.wants_write = False
        except (BlockingIOError, ssl.SSLWantWriteError):
            self.wants_write = True
        except ssl.SSLWantReadError:
            self.wants_write = False
        except OSError as error:
            raise Broken(_words(error)) from None

    def _greet(self) -> bool:
        if not self._connected:
            problem = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem:
                raise OSError(problem, os.strerror(problem))
            self._connected = True
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.do_handshake()
        self._greeted = True
        return True

    def read(self) -> bool:
        """Read what is there; True when the answer is whole. Raises Broken."""
        if not self._greeted:
            self.push()
            if not self._greeted:
                return False
        while True:
            try:
                piece = self.sock.recv(_PIECE)
            except (BlockingIOError, ssl.SSLWantReadError):
                return False
            except ssl.SSLWantWriteError:
                self.wants_write = True
                return False
            except OSError as error:
                raise Broken(_words(error)) from None
            if not piece:
                return self._ended()
            self._buffer += piece
            self.received += len(piece)
            if not self.busy:
                raise Broken("the server said something that nobody had asked for")
            if self._whole():
                return True
            if not self._tls:
                # A plain socket has said all it had; TLS may hold a further record that no poll shows.
                return False

    def sample(self) -> str:
        """The beginning of the answer's body, for an error message."""
        body = bytes(self._buffer[: _LONGEST_HEAD + _LONGEST_SAMPLE]).partition(b"\r\n\r\n")[2]
        return body[:_LONGEST_SAMPLE].decode(errors="replace")

    def finish(self) -> None:
        """Ready for the next request."""
        if self._end is not None and self._end < len(self._buffer):
            del self._buffer[: self._end]
        else:
            self._buffer.clear()
        self.busy = False

    def close(self) -> None:
        """Without a farewell: at ten thousand connections nobody waits for one."""
        self.sock.close()

    def _ended(self) -> bool:
        if self.busy and self._until_close:
            self.closes = True
            return True
        raise Broken("the server closed the connection")

    def _whole(self) -> bool:
        if self._end is None and self._chunk_at < 0 and not self._until_close:
            self._read_head()
        if self._chunk_at >= 0 and self._end is None:
            self._read_chunks()
        return self._end is not None and len(self._buffer) >= self._end

    def _read_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _LONGEST_HEAD:
                raise Broken("the answer's head does not end")
            return
        head = bytes(self._buffer[:end]).lower()
        try:
            self.status = int(head[9:12])
        except ValueError:
            raise Broken("the answer is not HTTP/1.1") from None
        if not head.startswith(b"http/1."):
            raise Broken("the answer is not HTTP/1.1")
        if self.status < 200:
            # An interim answer such as 103: the real one follows.
            del self._buffer[: end + 4]
            self._read_head()
            return
        self.closes = b"\r\nconnection: close" in head or head.startswith(b"http/1.0")
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            stop = head.find(b"\r\n", at + 2)
            try:
                self._end = end + 4 + int(head[at + 17 : stop if stop >= 0 else None])
            except ValueError:
                raise Broken("the answer's content-length is no number") from None
        elif b"\r\ntransfer-encoding: chunked" in head:
            self._chunk_at = end + 4
        elif self.status in _EMPTY:
            self._end = end + 4
        else:
            self._until_close = True

    def _read_chunks(self) -> None:
        """Walk from chunk to chunk as far as they are there; trailers end with an empty line."""
        while True:
            stop = self._buffer.find(b"\r\n", self._chunk_at)
            if stop < 0:
                return
            try:
                length = int(bytes(self._buffer[self._chunk_at : stop]).partition(b";")[0], 16)
            except ValueError:
                raise Broken("the answer's chunks are no chunks") from None
            if length == 0:
                end = self._buffer.find(b"\r\n\r\n", stop)
                if end >= 0:
                    self._end = end + 4
                return
            if len(self._buffer) < stop + 2 + length + 2:
                return
            self._chunk_at = stop + 2 + length + 2


def _open(place: Place) -> socket.socket:
    """A socket whose connection is under way. Raises Broken."""
    family = socket.AF_UNIX if place.unix else socket.AF_INET6 if ":" in place.address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if not place.unix:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        problem = made.connect_ex(place.unix or (place.address, place.port))
        if problem not in (0, errno.EINPROGRESS):
            raise OSError(problem, os.strerror(problem))
        if place.tls is not None:
            return place.tls.wrap_socket(
                made, server_hostname=place.server_name or None, do_handshake_on_connect=False
            )
    except OSError as error:
        made.close()
        raise Broken(_words(error)) from None
    return made


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{NOT_TRUSTED}: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and "CERTIFICATE_REQUIRED" in str(error.reason):
        return WANTS_A_CERTIFICATE
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    known = {
        errno.ECONNREFUSED: "the connection was refused",
        errno.ECONNRESET: "the connection was reset",
        errno.EPIPE: "the server closed the connection",
        errno.EMFILE: "too many open files for so many connections (ulimit -n)",
        errno.EADDRNOTAVAIL: "this machine has no free port left for a connection",
        errno.EAGAIN: "the server takes no more connections",
    }
    return known.get(error.errno or 0) or f"the connection failed: {error.strerror or error}"
