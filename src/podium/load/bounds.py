"""How much load is allowed, and on whom. Called by `podium load`.

A generator is a weapon in the wrong place: it asks this machine, and others only where the user says that they are his.
"""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from podium.load.tls import Tls

LONGEST_SECONDS = 3600.0
MOST_CONNECTIONS = 10_000
MOST_REQUESTS = 50_000_000
HIGHEST_RATE = 1_000_000.0
LONGEST_TIMEOUT = 600.0
_AS_THE_SYSTEM_KNOWS = Tls()


class NotAllowed(Exception):
    """More than is allowed, or a host that is not this machine. `field`: the option; `next_step`: what would help."""

    def __init__(self, field: str, words: str, next_step: str = "") -> None:
        super().__init__(words)
        self.field, self.next_step = field, next_step


@dataclass(frozen=True)
class Destination:
    """A URL whose host was looked up once: what was checked is what is asked."""

    url: str
    host: str
    """As in the `Host` header."""
    address: str
    port: int
    secure: bool
    loopback: bool
    name: str

    def place(self, tls: Tls = _AS_THE_SYSTEM_KNOWS) -> dict[str, Any]:
        """For `Job.place`; `tls` counts for https only."""
        return {
            "address": self.address,
            "port": self.port,
            "tls": tls.document(self.name) if self.secure else None,
        }


def destination(url: str, *, owned: bool) -> Destination:
    """Where a URL leads. `owned`: the user has said that other machines are his. Raises NotAllowed."""
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise NotAllowed("TARGET", f"expected http://host:port/path, got {url[:100]!r}")
    if parts.username is not None:
        raise NotAllowed("TARGET", "expected no credentials in the URL", "give --token or a header")
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotAllowed("TARGET", f"{parts.hostname} is not known: {error}") from None
    address = str(found[0][4][0])
    loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    if not loopback and not owned:
        raise NotAllowed(
            "TARGET",
            f"{parts.hostname} ({address}) is not this machine, and load can bring down whoever it hits",
            "if it is yours, say so with --i-own-this-host",
        )
    return Destination(
        url=url, host=parts.netloc, address=address, port=port, secure=parts.scheme == "https",
        loopback=loopback, name=parts.hostname,
    )  # fmt: skip


def check(option: str, value: float, least: float, most: float, unit: str = "") -> None:
    """Raises NotAllowed where the value lies outside."""
    if not least <= value <= most:
        raise NotAllowed(option, f"expected {least:g} to {most:,.12g}{unit}, got {value:.12g}")
