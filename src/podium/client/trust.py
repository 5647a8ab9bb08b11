"""Whose certificates are taken, when an address is https. Called by `connection` and by the CLI's own looks.

An address of `podium up` on this machine is known by the very certificate that it was started with, whatever names are
in it; any other by who signed it: the system's authorities, and those of `--ca-file` or PODIUM_CA_FILE.
"""

import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from podium.resources.errors import InvalidInput, Issue


def authorities(ca_file: Path) -> ssl.SSLContext:
    """The system's authorities and those of the file. Raises InvalidInput for one that cannot be read."""
    return _with(ssl.create_default_context(), ca_file)


def own_certificate(url: str, home: Path) -> ssl.SSLContext | None:
    """For an address of `podium up` with this home, if that is one with TLS; None for any other. Raises
    InvalidInput."""
    own = _known_certificate(url, home) if urlsplit(url).scheme == "https" else None
    if own is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return _with(context, own)


def _with(context: ssl.SSLContext, file: Path) -> ssl.SSLContext:
    try:
        context.load_verify_locations(cafile=file)
    except (OSError, ssl.SSLError) as error:
        words = f"{file}: expected certificates in PEM: {error}"
        raise InvalidInput(Issue("ca_file", words)) from None
    return context


def _known_certificate(url: str, home: Path) -> Path | None:
    """The certificate of that address, if it is one of `podium up` with this home."""
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
