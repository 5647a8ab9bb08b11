"""What a gateway is told at its start, and where its files lie.

Made by `podium.app`, which reads the environment; used by every module of the gateway. `prepare` makes the folders.
"""

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from podium.resources.errors import Refused

_SOCKET_PATH_MAX = 107
_LONGEST_SOCKET_NAME = 24
_LEAST_SHARE = 2 * 2**30
LEAST_MEMORY = 256 * 2**20
"""Bytes below which Envoy would turn requests away while nothing is wrong: a hundred of them are its own."""


def share_of_memory() -> int:
    """A fourth of this machine's memory in bytes, but at least 2 GiB."""
    return max(_LEAST_SHARE, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)


@dataclass(frozen=True)
class CertificateFiles:
    """Where a certificate chain (the server's own certificate first) and its private key stand, both as PEM."""

    chain: Path
    key: Path


@dataclass(frozen=True)
class AccessRecord:
    """Where Envoy writes a line for each request, and how much of that is kept."""

    path: Path | None = None
    """An absolute path in a folder that is there. None: `access.log` in the gateway's home."""
    size: int = 64 * 2**20
    """Bytes at which the file is put aside and a new one begun."""
    kept: int = 4
    """How many that were put aside are kept, beside the one that is written."""


@dataclass(frozen=True)
class GatewaySettings:
    """One gateway: an agent and its Envoy."""

    home: Path
    """Folder of its own: configuration files, state, logs. Two gateways never share one."""
    name: str
    """What the server knows it by; unique per server."""
    server_url: str
    """The API's address without `/api/v1`, such as `http://127.0.0.1:8000`."""
    host: str = "127.0.0.1"
    """Address that Envoy listens on (an IP address)."""
    port: int = 8080
    token: str | None = field(default=None, repr=False)
    """Bearer token for the API. None: none is sent."""
    certificate: CertificateFiles | None = None
    """TLS for clients, with the certificate in these files; a new one in them counts at once. None: plain HTTP."""
    server_ca: Path | None = None
    """Certificates (PEM) of who may have signed the API's. None: those that the system knows."""
    server_certificate: Path | None = None
    """The API's own certificate, where it is this machine's: that one is trusted, whatever name is in it. None: the
    API's certificate is checked as any other."""
    run_folder: Path | None = None
    """Short private folder for sockets. None: `home/run`, or one under /tmp when that would be too long."""
    concurrency: int | None = None
    """Worker threads of Envoy. None: one per processor."""
    notice: float = 0.0
    """Seconds for which `/v2/health/ready` says no before Envoy takes no new connections any more, when it is stopped:
    the time in which those who spread the clients send them elsewhere."""
    drain: float = 5.0
    """Seconds that requests under way get when Envoy is stopped or handed over."""
    metrics_port: int | None = None
    """TCP port on 127.0.0.1 for `GET /metrics`. None: there are none."""
    heartbeat: float = 1.0
    """Seconds between reports to the server."""
    max_connections: int = 50_000
    """Open client connections; more are refused."""
    memory: int = field(default_factory=share_of_memory)
    """Bytes of Envoy's heap: close to them it takes no new requests, and ends those that hold most of it."""
    record: AccessRecord | None = AccessRecord()
    """None: nothing is written about single requests."""

    @property
    def record_file(self) -> Path | None:
        """Where the access record is written; None: nowhere."""
        if self.record is None:
            return None
        return self.record.path or self.layout.home / "access.log"

    @property
    def layout(self) -> "Layout":
        """Where its files lie."""
        run = self.run_folder or self.home / "run"
        if self.run_folder is None and len(os.fsencode(run)) + 1 + _LONGEST_SOCKET_NAME > _SOCKET_PATH_MAX:
            mark = hashlib.sha256(os.fsencode(self.home.absolute())).hexdigest()[:12]
            run = Path("/tmp") / f"podium-{os.getuid()}-{mark}"  # noqa: S108 - checked by prepare()
        return Layout(self.home.absolute(), run.absolute())


@dataclass(frozen=True)
class Layout:
    """Paths of one gateway. Each type of Envoy's configuration has a folder of its own, because files that are
    watched in one folder are all read again whenever one of them changes."""

    home: Path
    run: Path

    @property
    def bootstrap(self) -> Path:
        """Envoy's start configuration."""
        return self.home / "config" / "bootstrap.json"

    def document(self, kind: str) -> Path:
        """The watched file of one type, such as `clusters`."""
        return self.home / "config" / kind / f"{kind}.json"

    @property
    def acknowledged(self) -> Path:
        """Folder of the contents last seen loaded, kept while newer ones are not seen loaded yet."""
        return self.home / "config" / "acknowledged"

    @property
    def admin_socket(self) -> Path:
        """Envoy's admin interface; mode 0600 in a folder of mode 0700."""
        return self.run / "admin.sock"

    @property
    def restart_socket(self) -> Path:
        """Through which two Envoys hand over; Envoy appends to the name."""
        return self.run / "restart"

    @property
    def state(self) -> Path:
        """Which Envoy runs."""
        return self.home / "envoy.json"

    @property
    def base_id(self) -> Path:
        """Where Envoy writes the number by which a successor finds it."""
        return self.home / "base-id"

    @property
    def log(self) -> Path:
        """What Envoy says."""
        return self.home / "envoy.log"

    @property
    def identity(self) -> Path:
        """An id of this home, made once."""
        return self.home / "id"

    @property
    def lock(self) -> Path:
        """Held by the one agent of this home."""
        return self.home / "agent.lock"

    def prepare(self) -> None:
        """Make the folders, private to this user. Raises Refused when one belongs to somebody else."""
        for folder in (self.home, self.home / "config", self.acknowledged, self.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for kind in KINDS:
            self.document(kind).parent.mkdir(mode=0o700, exist_ok=True)
        for folder in (self.home, self.run):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise Refused(
                    f"{folder}: expected a folder of this user", next_step="name another run folder"
                )
            folder.chmod(0o700)
        if len(os.fsencode(self.admin_socket)) > _SOCKET_PATH_MAX:
            raise Refused(f"{self.run}: too long a path for sockets", next_step="name a shorter run folder")


LISTENERS, CLUSTERS, ROUTES, WEIGHTS, TOKENS, ACCESS, REVOKED, CERTIFICATES, LIMITS, ADAPTIVE = (
    "listeners",
    "clusters",
    "routes",
    "weights",
    "tokens",
    "access",
    "revoked",
    "certificates",
    "limits",
    "adaptive",
)
KINDS = (LISTENERS, CLUSTERS, ROUTES, WEIGHTS, TOKENS, ACCESS, REVOKED, CERTIFICATES, LIMITS, ADAPTIVE)
"""The watched documents. `tokens` (signatures), `access` (workspaces), `revoked`, `limits` and `adaptive` are filters
of their own; `certificates` is there where there is TLS."""
