"""Whose certificates are taken, when an address is https. Called by `connection` and by the CLI's own looks.

An address of `podium up` on this machine is known by the very certificate that it was started with, whatever names are
in it; any other by who signed it: the system's authorities, and those of `--ca-file` or PODIUM_CA_FILE.
"""

import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from podium.resources.trust import exactly, signed_by


def authorities(ca_file: Path) -> ssl.SSLContext:
    """The system's authorities and those of the file. Raises InvalidInput for one that cannot be read."""
    return signed_by(ca_file).read("ca_file").context


def own_certificate(url: str, home: Path) -> ssl.SSLContext | None:
    """For an address of `podium up` with this home, if that is one with TLS; None for any other. Raises
    InvalidInput."""
    own = known_certificate(url, home)
    return None if own is None else exactly(own).read("ca_file").context


def known_certificate(url: str, home: Path) -> Path | None:
    """The file with the certificate of that address, if it is an https one of `podium up` with this home."""
    if urlsplit(url).scheme != "https":
        return None
    try:
        known: Any = json.loads((home / "connection.json").read_text())
        for key, certificate in known["certificates"].items():
            if _origin(str(known[key])) == _origin(url):
                return Path(str(certificate))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None


def _origin(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    return parts.hostname, parts.port
