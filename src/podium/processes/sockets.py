"""Which TCP sockets of this machine listen, and who holds them. Reads /proc; needs Linux.

Called by `targets`, to tell a replica's own port from one that a stranger answers on.
"""

import contextlib
import ipaddress
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from podium.processes.shim.family import children

_LISTENS = "0A"
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


@dataclass(frozen=True)
class Listener:
    """One listening socket. `inode` is its identity as long as it is open."""

    address: str
    port: int
    inode: int

    @property
    def is_loopback(self) -> bool:
        """Can only this machine reach it?"""
        address = ipaddress.ip_address(self.address)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return address.ipv4_mapped.is_loopback
        return address.is_loopback


def listeners() -> list[Listener]:
    """Every TCP socket of this network namespace that listens."""
    found = []
    for table in _TABLES:
        with contextlib.suppress(FileNotFoundError):  # no IPv6 here
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS:
                    address, _, port = fields[1].partition(":")
                    found.append(Listener(_address(address), int(port, 16), int(fields[9])))
    return found


def sockets_of_family(pid: int) -> set[int]:
    """Inodes of the sockets that a process and all its descendants hold; what ends meanwhile is left out."""
    return {inode for member in _family(pid) for inode in _sockets(member)}


def _family(pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        member = waiting.pop()
        yield member
        waiting += children(member)


def _sockets(pid: int) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for handle in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                target = os.readlink(f"/proc/{pid}/fd/{handle}")
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def _address(text: str) -> str:
    """The kernel prints 32-bit words in the machine's own byte order."""
    words = struct.pack(f"={len(text) // 8}I", *(int(text[at : at + 8], 16) for at in range(0, len(text), 8)))
    return str(ipaddress.ip_address(words))
