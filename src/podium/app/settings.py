"""Every setting, read once from the environment and the command line. Under each field: its unit and what None means.

Called by the entry points only; nothing else in Podium reads the environment.
"""

import hashlib
import ipaddress
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from podium.gateway.settings import LEAST_MEMORY, AccessRecord, CertificateFiles, share_of_memory
from podium.resources.errors import InvalidInput, Issue, Refused
from podium.resources.quantities import format_size, parse_size

DEFAULT_API_PORT = 6780
DEFAULT_GATEWAY_PORT = 6781
_LONGEST_SOCKET_FOLDER = 50
_LEAST_RECORD = 2**20
_TLS_VARIABLES = {
    "api": ("PODIUM_API_TLS_CERT", "PODIUM_API_TLS_KEY"),
    "gateway": ("PODIUM_GATEWAY_TLS_CERT", "PODIUM_GATEWAY_TLS_KEY"),
    "both": ("PODIUM_TLS_CERT", "PODIUM_TLS_KEY"),
}
_TEXTS = {
    "api_host": "PODIUM_API_HOST",
    "gateway_host": "PODIUM_GATEWAY_HOST",
    "gateway_name": "PODIUM_GATEWAY_NAME",
    "server_url": "PODIUM_SERVER_URL",
}
_NUMBERS = {
    "api_port": ("PODIUM_API_PORT", 65_535),
    "gateway_port": ("PODIUM_GATEWAY_PORT", 65_535),
    "workers": ("PODIUM_WORKERS", 256),
    "gateway_metrics_port": ("PODIUM_GATEWAY_METRICS_PORT", 65_535),
    "gateway_notice": ("PODIUM_GATEWAY_NOTICE", 3_600),
}
"""Field -> variable, and the highest number that it may be."""
_FILES = {"server_ca": "PODIUM_SERVER_CA", "server_certificate": "PODIUM_SERVER_CERTIFICATE"}


@dataclass(frozen=True)
class Settings:
    """One installation of Podium on this machine."""

    home: Path
    """Folder with everything that Podium keeps here (PODIUM_HOME, `~/.podium`). Only its owner may enter it."""
    database: str
    """SQLAlchemy URL (PODIUM_DATABASE_URL). Default: SQLite in the home folder."""
    blobs: str
    """Where model files are stored (PODIUM_BLOBS_URL): a folder or `s3://bucket/prefix`. Default: the home folder."""
    api_host: str = "127.0.0.1"
    """Address to listen on (PODIUM_API_HOST)."""
    api_port: int = DEFAULT_API_PORT
    """TCP port (PODIUM_API_PORT); 0: any free one."""
    gateway_host: str = "127.0.0.1"
    """Address that Envoy listens on (PODIUM_GATEWAY_HOST)."""
    gateway_port: int = DEFAULT_GATEWAY_PORT
    """TCP port (PODIUM_GATEWAY_PORT); 0: any free one."""
    api_certificate: CertificateFiles | None = None
    """TLS for the API (PODIUM_API_TLS_CERT and PODIUM_API_TLS_KEY, else PODIUM_TLS_CERT and PODIUM_TLS_KEY). None:
    plain HTTP."""
    gateway_certificate: CertificateFiles | None = None
    """TLS for predictions (PODIUM_GATEWAY_TLS_CERT and PODIUM_GATEWAY_TLS_KEY, else PODIUM_TLS_CERT and
    PODIUM_TLS_KEY). None: plain HTTP."""
    gateway_metrics_port: int | None = None
    """TCP port on 127.0.0.1 for the gateway's metrics (PODIUM_GATEWAY_METRICS_PORT). None: there are none."""
    gateway_notice: int = 0
    """When the gateway is stopped: seconds for which its `/v2/health/ready` says no before it takes no new connections
    any more (PODIUM_GATEWAY_NOTICE)."""
    gateway_record: AccessRecord | None = field(default_factory=AccessRecord)
    """Where a line about each request goes (PODIUM_GATEWAY_RECORD: `on`, `off` or an absolute path;
    PODIUM_GATEWAY_RECORD_SIZE, PODIUM_GATEWAY_RECORD_KEPT). None: nowhere."""
    gateway_memory: int = field(default_factory=share_of_memory)
    """Bytes of memory of the gateway's Envoy (PODIUM_GATEWAY_MEMORY): close to them it takes no new requests."""
    gateway_name: str = "local"
    """Name of this machine's gateway in reports (PODIUM_GATEWAY_NAME)."""
    server_url: str | None = None
    """The server that the gateway follows (PODIUM_SERVER_URL), where it is not this installation's. None: it is."""
    server_ca: Path | None = None
    """Certificates (PEM) of who may have signed that server's (PODIUM_SERVER_CA). None: those that the system knows."""
    server_certificate: Path | None = None
    """That server's very certificate (PODIUM_SERVER_CERTIFICATE), trusted whatever names are in it. None: its
    certificate is checked as any other."""
    gateway_tokens: bool = True
    """Whether predictions need a token (PODIUM_GATEWAY_TOKENS=off turns it off; loopback only)."""
    environments_limit: int = 20 * 2**30
    """Bytes of virtual environments to keep (PODIUM_ENVIRONMENTS_LIMIT); least recently used ones go first."""
    workers: int = 4
    """Reconciling threads (PODIUM_WORKERS)."""
    import_from: tuple[str, ...] | None = None
    """MLflow stores and servers that models may be imported from (PODIUM_IMPORT_FROM, separated by blanks; else
    MLFLOW_TRACKING_URI; `any`: whatever a caller names). None: `any` as long as only this machine can reach the API,
    nothing otherwise."""
    program_folders: tuple[Path, ...] = ()
    """Folders whose programs a Deployment's command may run (PODIUM_PROGRAM_FOLDERS, separated by ':'), beside those of
    its own environment and of the system: where Triton is installed, for one. All below them can be read, too."""
    migrations: tuple[Path, ...] = field(default=())
    """Further folders of migrations (PODIUM_MIGRATIONS, separated by ':'), for extensions with tables of their own."""

    @property
    def sockets(self) -> Path:
        """A short folder for Unix sockets, whose paths hold at most 107 bytes."""
        name = f"podium-{os.getuid()}-{hashlib.sha256(str(self.home).encode()).hexdigest()[:8]}"
        base = os.environ.get("XDG_RUNTIME_DIR", "")
        if not base or len(base) + len(name) > _LONGEST_SOCKET_FOLDER:
            base = tempfile.gettempdir()
        if len(base) + len(name) > _LONGEST_SOCKET_FOLDER:
            base = "/tmp"  # noqa: S108 - entered only after `private_folder` has checked owner and mode
        return Path(base) / name

    @property
    def run(self) -> Path:
        """Identities of the processes that were started here."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """Logs of server, gateway agent and Envoy."""
        return self.home / "logs"

    @property
    def connection_file(self) -> Path:
        """Where the CLI reads the addresses."""
        return self.home / "connection.json"

    @property
    def admin_token_file(self) -> Path:
        """The first token, readable by its owner only."""
        return self.home / "admin.token"

    @property
    def gateway_token_file(self) -> Path:
        """The gateway agent's token, readable by its owner only."""
        return self.home / "gateway.token"

    @property
    def key_file(self) -> Path:
        """The private key that signs tokens, readable by its owner only."""
        return self.home / "keys" / "signing.pem"

    @property
    def is_public(self) -> bool:
        """True if anything listens beyond this machine."""
        return not (is_loopback(self.api_host) and is_loopback(self.gateway_host))

    @property
    def api_url(self) -> str:
        """Where this machine reaches the API."""
        return _url(self.api_host, self.api_port, secure=self.api_certificate is not None)

    @property
    def gateway_url(self) -> str:
        """Where this machine reaches the gateway."""
        return _url(self.gateway_host, self.gateway_port, secure=self.gateway_certificate is not None)


def _url(host: str, port: int, *, secure: bool) -> str:
    # Whoever listens everywhere is reached here.
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http{'s' * secure}://{f'[{reached}]' if ':' in reached else reached}:{port}"


def is_loopback(host: str) -> bool:
    """`localhost`, 127.0.0.0/8 and ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_settings(environ: Mapping[str, str], **overrides: object) -> Settings:
    """Settings from the environment; `overrides` (from the command line) win where they are not None.

    Raises InvalidInput naming the variable.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    home = Path(
        str(given.pop("home", None) or environ.get("PODIUM_HOME") or Path.home() / ".podium")
    ).expanduser()
    home = home if home.is_absolute() else Path.cwd() / home
    values: dict[str, object] = {
        "home": home,
        "database": environ.get("PODIUM_DATABASE_URL") or f"sqlite:///{home / 'podium.db'}",
        "blobs": environ.get("PODIUM_BLOBS_URL") or str(home / "blobs"),
    }
    for name, variable in _TEXTS.items():
        if environ.get(variable):
            values[name] = environ[variable]
    for name, (variable, highest) in _NUMBERS.items():
        if environ.get(variable):
            values[name] = _number(variable, environ[variable], highest)
    if environ.get("PODIUM_ENVIRONMENTS_LIMIT"):
        try:
            values["environments_limit"] = parse_size(environ["PODIUM_ENVIRONMENTS_LIMIT"])
        except ValueError as error:
            raise InvalidInput(Issue("PODIUM_ENVIRONMENTS_LIMIT", str(error))) from None
    tokens = environ.get("PODIUM_GATEWAY_TOKENS", "on").lower()
    if tokens not in ("on", "off"):
        raise InvalidInput(Issue("PODIUM_GATEWAY_TOKENS", "expected on or off"))
    values["gateway_tokens"] = tokens == "on"
    values["gateway_record"] = _record(environ)
    if environ.get("PODIUM_GATEWAY_MEMORY"):
        values["gateway_memory"] = _memory(environ["PODIUM_GATEWAY_MEMORY"])
    sources = environ.get("PODIUM_IMPORT_FROM") or environ.get("MLFLOW_TRACKING_URI")
    if sources:
        values["import_from"] = tuple(sources.split())
    if environ.get("PODIUM_MIGRATIONS"):
        values["migrations"] = tuple(Path(part) for part in environ["PODIUM_MIGRATIONS"].split(":") if part)
    for name, variable in _FILES.items():
        if environ.get(variable):
            values[name] = Path(environ[variable]).absolute()
    for part in ("api", "gateway"):
        values[f"{part}_certificate"] = _certificate(part, environ, given)
    values["program_folders"] = _program_folders(environ.get("PODIUM_PROGRAM_FOLDERS", ""), home)
    settings = Settings(**{**values, **given})  # type: ignore[arg-type]
    if not settings.gateway_tokens and settings.is_public:
        raise Refused(
            f"listening on {settings.gateway_host if not is_loopback(settings.gateway_host) else settings.api_host} "
            "with PODIUM_GATEWAY_TOKENS=off would let anyone ask for predictions",
            next_step="turn tokens on, or listen on 127.0.0.1",
        )
    return settings


def _certificate(part: str, environ: Mapping[str, str], given: dict[str, object]) -> CertificateFiles | None:
    """The files of one part, from its own settings or from those for both; `given` is what the command line says, of
    which it is taken out."""
    names = _TLS_VARIABLES[part]
    own = [
        given.pop(f"{part}_tls_{what}", None) or environ.get(name)
        for what, name in zip(("cert", "key"), names, strict=True)
    ]
    if not any(own):
        names = _TLS_VARIABLES["both"]
        own = [environ.get(name) for name in names]
    chain, key = own
    if not chain and not key:
        return None
    if not chain or not key:
        raise InvalidInput(Issue(names[1 if chain else 0], "a certificate and its key go together"))
    return CertificateFiles(Path(str(chain)).absolute(), Path(str(key)).absolute())


def _program_folders(text: str, home: Path) -> tuple[Path, ...]:
    """Whoever may deploy can read them, so none of them may hold Podium's own home, or be a part of it."""
    folders = tuple(Path(part) for part in text.split(":") if part)
    own = home.resolve()
    for folder in folders:
        real = folder.resolve()
        if not folder.is_absolute():
            raise InvalidInput(Issue("PODIUM_PROGRAM_FOLDERS", f"{folder}: expected an absolute path"))
        if own.is_relative_to(real) or real.is_relative_to(own):
            words = f"{folder}: expected a folder apart from {home}, where Podium keeps its secrets"
            raise InvalidInput(Issue("PODIUM_PROGRAM_FOLDERS", words))
    return folders


def _record(environ: Mapping[str, str]) -> AccessRecord | None:
    said, path = environ.get("PODIUM_GATEWAY_RECORD") or "on", None
    if said.lower() == "off":
        return None
    if said.lower() != "on":
        path = Path(said).expanduser()
        if not path.is_absolute() or path.is_dir() or not path.parent.is_dir():
            wanted = "expected on, off, or the absolute path of a file in a folder that is there"
            raise InvalidInput(Issue("PODIUM_GATEWAY_RECORD", f"{wanted}, not {said[:200]!r}"))
    made = AccessRecord(path)
    if environ.get("PODIUM_GATEWAY_RECORD_SIZE"):
        try:
            size = parse_size(environ["PODIUM_GATEWAY_RECORD_SIZE"])
        except ValueError as error:
            raise InvalidInput(Issue("PODIUM_GATEWAY_RECORD_SIZE", str(error))) from None
        if size < _LEAST_RECORD:
            raise InvalidInput(Issue("PODIUM_GATEWAY_RECORD_SIZE", "expected 1Mi or more"))
        made = replace(made, size=size)
    if environ.get("PODIUM_GATEWAY_RECORD_KEPT"):
        variable = "PODIUM_GATEWAY_RECORD_KEPT"
        made = replace(made, kept=_number(variable, environ[variable], 10_000))
    return made


def _memory(text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as error:
        raise InvalidInput(Issue("PODIUM_GATEWAY_MEMORY", str(error))) from None
    if size < LEAST_MEMORY:
        raise InvalidInput(Issue("PODIUM_GATEWAY_MEMORY", f"expected {format_size(LEAST_MEMORY)} or more"))
    return size


def _number(variable: str, text: str, highest: int) -> int:
    if not text.isdigit() or int(text) > highest:
        raise InvalidInput(Issue(variable, f"expected a whole number up to {highest}, not {text[:40]!r}"))
    return int(text)


def private_folder(path: Path) -> Path:
    """Make `path` (mode 0700) or check that it is ours alone. Raises Refused if someone else could enter or owns it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise Refused(f"{path} belongs to someone else", next_step="set PODIUM_HOME to a folder of your own")
    if info.st_mode & 0o077:
        path.chmod(0o700)
    return path
