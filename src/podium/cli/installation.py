"""The Podium of this machine: its addresses, its processes, whether they answer.

Called by up, down, status and doctor. Processes are started and stopped by `python -m podium.app`, never imported.
"""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from podium.cli.session import home_folder
from podium.resources.errors import PodiumError, Unavailable

DEFAULT_PORTS = {"api": 6780, "gateway": 6781}
_ASK_SECONDS = 60.0
_STOP_SECONDS = 180.0


@dataclass(frozen=True)
class Answer:
    """What an address said: `status` 0 if nothing answered."""

    status: int
    body: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether it is ready."""
        return self.status == 200


@dataclass(frozen=True)
class Installation:
    """One home folder."""

    home: Path

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.home / "logs"

    def addresses(self) -> dict[str, Any]:
        """`url`, `gateway`, `apiPort`, `gatewayPort`; empty where nothing was started yet."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.home / "connection.json").read_text())
            if isinstance(found, dict):
                return found
        return {}

    def processes(self) -> dict[str, int | None]:
        """Pid of supervisor, server and gateway agent; None for what does not run. Raises PodiumError."""
        done = self._app("ps", "--json", seconds=_ASK_SECONDS)
        try:
            return dict(json.loads(done.stdout)["processes"])
        except (ValueError, KeyError, TypeError):
            raise _failed(done) from None

    def gateways(self) -> list[dict[str, Any]]:
        """Who reports to this server, with `instance` (host and pid) where they say it; empty where it does not run."""
        with contextlib.suppress(OSError):
            token = (self.home / "admin.token").read_text().strip()
            url, headers = str(self.addresses().get("url", "")), {"authorization": f"Bearer {token}"}
            found = ask(url, "/api/v1/gateways?since=5", headers=headers, home=self.home)
            return [one for one in found.body.get("items", []) if isinstance(one, dict)] if found.ok else []
        return []

    def start(self, arguments: Sequence[str], log: IO[bytes] | None) -> "subprocess.Popen[bytes]":
        """The supervisor, in a session of its own: Ctrl-C is for us, and a closed terminal does not end it."""
        return subprocess.Popen(
            [sys.executable, "-m", "podium.app", "up", "--home", str(self.home), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def stop(self, *, keep_serving: bool = False) -> str:
        """Stop what runs; what was stopped, in words. Raises PodiumError with the words of what failed."""
        flags = ["--keep-serving"] if keep_serving else []
        done = self._app("down", *flags, seconds=_STOP_SECONDS)
        if done.returncode != 0:
            raise _failed(done)
        return done.stdout.strip()

    def _app(self, *arguments: str, seconds: float) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(
                [sys.executable, "-m", "podium.app", *arguments, "--home", str(self.home)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"`{arguments[0]}` took longer than {seconds:g} s", next_step=f"look into {self.logs}"
            ) from None

    def last_words(self, name: str, lines: int = 5, since: int = 0) -> list[str]:
        """The end of a log, from byte `since` on."""
        try:
            with (self.logs / f"{name}.log").open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(since, log.tell() - 64 * 1024))
                text = log.read().decode(errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-lines:]


def _failed(done: "subprocess.CompletedProcess[str]") -> PodiumError:
    said = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
    return refusal(said) or PodiumError(f"exit code {done.returncode} without a word")


def refusal(said: Sequence[str]) -> PodiumError | None:
    """What a part of Podium said before it ended: its last lines, `next: ...` being the next step."""
    if not said:
        return None
    if said[-1].startswith("next: "):
        return PodiumError(
            said[-2] if len(said) > 1 else "it ended", next_step=said[-1].removeprefix("next: ")
        )
    return PodiumError(said[-1])


def ask(
    url: str,
    path: str,
    timeout: float = 2.0,
    headers: Mapping[str, str] | None = None,
    *,
    home: Path | None = None,
    ca_file: Path | None = None,
) -> Answer:
    """One GET, never through a proxy. Does not raise, whatever an address does or does not answer. `home`: of the
    installation whose address it may be; else PODIUM_HOME's. `ca_file`: as `--ca-file`; else PODIUM_CA_FILE."""
    parts = urllib.parse.urlsplit(url)
    try:
        signers = ca_file or os.environ.get("PODIUM_CA_FILE")
        connection = _connection(url, home or home_folder(), Path(signers) if signers else None, timeout)
        try:
            connection.request(
                "GET", parts.path.rstrip("/") + path, headers={**(headers or {}), "connection": "close"}
            )
            response = connection.getresponse()
            content = response.read(1024 * 1024)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError, PodiumError):
        return Answer(0, {})
    try:
        body = json.loads(content)
    except ValueError:
        body = {}
    return Answer(response.status, body if isinstance(body, dict) else {})


def _connection(url: str, home: Path, ca_file: Path | None, timeout: float) -> http.client.HTTPConnection:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https":
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    from podium.client.trust import authorities, own_certificate

    context = authorities(ca_file) if ca_file else own_certificate(url, home)
    return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=context)


def is_taken(host: str, port: int) -> bool:
    """Whether something else listens there. False, too, for an address that is not ours: binding will say so."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == 98 or "in use" in str(error)
    return False
