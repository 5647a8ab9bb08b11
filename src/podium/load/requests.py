"""One HTTP/1.1 request as bytes. Called by whoever makes a job."""

from collections.abc import Sequence
from urllib.parse import urlsplit

Headers = Sequence[tuple[str, str]]
_FORBIDDEN = ("\r", "\n", "\x00")
_OURS = frozenset({"content-length", "transfer-encoding", "connection"})


def request_bytes(
    target: str, host: str, *, method: str = "POST", headers: Headers = (), body: bytes = b""
) -> bytes:
    """A whole request. `target`: path and query. Raises ValueError for what would end a header early, for a header that
    the generator sets itself, and for letters that HTTP does not carry."""
    given = {name.lower() for name, _ in headers}
    if clash := sorted(given & _OURS):
        raise ValueError(f"the header {clash[0]} is set by the generator")
    lines = [("host", host)] if "host" not in given else []
    lines += [*headers]
    if body and "content-type" not in given:
        lines.append(("content-type", "application/json"))
    if body or method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
        lines.append(("content-length", str(len(body))))
    text = f"{method} {target} HTTP/1.1\n" + "".join(f"{name}: {value}\n" for name, value in lines)
    parts = (method, target, *(part for line in lines for part in line))
    if any(mark in part for part in parts for mark in _FORBIDDEN) or " " in method + target:
        raise ValueError("expected a method, a path and headers without line breaks, the path without blanks")
    if any(not name or ":" in name or " " in name for name, _ in lines):
        raise ValueError("expected NAME: VALUE as a header")
    try:
        return text.replace("\n", "\r\n").encode("latin-1") + b"\r\n" + body
    except UnicodeEncodeError as error:
        raise ValueError(f"{text[error.start]!r} cannot stand in a path or header") from None


def target_of(url: str) -> str:
    """Path and query of a URL."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
