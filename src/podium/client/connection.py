"""Where the server is and what proves who we are. Read once, when a client is made.

url      argument, PODIUM_URL, connection.json in PODIUM_HOME
token    argument, PODIUM_TOKEN, admin.token in PODIUM_HOME (only for the url of the same folder)
gateway  argument, PODIUM_GATEWAY_URL, connection.json in PODIUM_HOME (only beside its own url)
ca_file  argument, PODIUM_CA_FILE; see `trust`
"""

import json
import os
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from podium.client.trust import authorities, own_certificate
from podium.resources.errors import InvalidInput, Issue, Refused
from podium.resources.trust import usual

_LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Connection:
    """Addresses without a slash at the end. The token is not shown when this is printed."""

    url: str
    token: str | None = field(repr=False)
    gateway: str | None
    ca_file: Path | None = None
    home: Path = field(default=Path(), compare=False)

    @classmethod
    def resolve(
        cls,
        url: str | None = None,
        token: str | None = None,
        gateway: str | None = None,
        ca_file: str | Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> "Connection":
        """Raises InvalidInput for a URL that is none, Refused where no server is known."""
        env = os.environ if environ is None else environ
        home = Path(env.get("PODIUM_HOME") or Path.home() / ".podium")
        known = _read_connection(home / "connection.json")
        local = known.get("url")
        where = url or env.get("PODIUM_URL") or local
        if not where:
            raise Refused(
                "no server is known",
                next_step="podium up starts one here; or set PODIUM_URL and PODIUM_TOKEN",
            )
        # What lies in the home folder belongs to the server of that folder: no token of one goes to another.
        same = isinstance(local, str) and where.rstrip("/") == local.rstrip("/")
        proof = token or env.get("PODIUM_TOKEN") or (_read_token(home / "admin.token") if same else None)
        signers = ca_file or env.get("PODIUM_CA_FILE")
        front = gateway or env.get("PODIUM_GATEWAY_URL") or (known.get("gateway") if same else None)
        return cls(
            url=_checked(where, "url"),
            token=proof.strip() if proof else None,
            gateway=_checked(front, "gateway") if front else None,
            ca_file=Path(signers) if signers else None,
            home=home,
        )

    @property
    def through_proxies(self) -> bool:
        """Proxies of the environment are for the world outside, not for this machine."""
        return urlsplit(self.url).hostname not in _LOCAL

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """How certificates are checked: the system's way, or with further authorities. Raises InvalidInput."""
        if self.ca_file is not None:
            return authorities(self.ca_file)
        return usual(self.url, self.gateway)

    @property
    def own(self) -> dict[str, ssl.SSLContext]:
        """Addresses of this machine's `podium up` -> how their very certificates are known. Raises InvalidInput."""
        if self.ca_file is not None:
            return {}
        addresses = [one for one in (self.url, self.gateway) if one is not None]
        contexts = {one: own_certificate(one, self.home) for one in addresses}
        return {_origin(one): context for one, context in contexts.items() if context is not None}

    @property
    def headers(self) -> dict[str, str]:
        """Authorization, if there is a token."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _checked(url: str, name: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInput(Issue(name, f"expected http://host:port, got {url[:100]!r}"))
    if parts.username is not None:
        raise InvalidInput(Issue(name, "expected no credentials in the URL; a token goes into PODIUM_TOKEN"))
    return url.rstrip("/")


def _read_connection(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Refused(f"{file} cannot be read: {error}", next_step="podium down, then podium up") from None
    return found if isinstance(found, dict) else {}


def _read_token(file: Path) -> str | None:
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise Refused(f"{file} can be read by others", next_step=f"chmod 600 {file}")
        return file.read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}", next_step="set PODIUM_TOKEN") from None
