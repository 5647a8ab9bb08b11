"""A Podium of its own in a folder: started, reached and stopped as `podium up` and `podium down` would.

Called by the demo, the end-to-end tests and the benchmarks.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from podium.client import Client
from podium.resources.errors import Unavailable


class Installation:
    """A context manager: up on entry, down on exit. `environment` is added to this process's own."""

    def __init__(self, home: Path, *, environment: dict[str, str] | None = None) -> None:
        self.home = home
        cleared = {name: value for name, value in os.environ.items() if not name.startswith("PODIUM_")}
        self.environment = {
            **cleared,
            **(environment or {}),
            "PODIUM_HOME": str(home),
            "PODIUM_API_PORT": "0",
            "PODIUM_GATEWAY_PORT": "0",
        }
        self._client: Client | None = None
        self._supervisors: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 90.0) -> None:
        """Start the supervisor in a session of its own and wait until API and gateway answer. Raises Unavailable."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.home / "logs").mkdir(mode=0o700, exist_ok=True)
        with (self.home / "logs" / "supervisor.log").open("ab") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "podium.app", "up", "--home", str(self.home)],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._supervisors.append(supervisor)
        self.wait_ready(timeout)

    def wait_ready(self, timeout: float = 90.0) -> None:
        """Until API and gateway answer. Raises Unavailable with the end of the logs."""
        deadline = time.monotonic() + timeout
        # One client for all looks: to make one reads the system's certificates.
        with httpx.Client(timeout=2) as asked:
            while time.monotonic() < deadline:
                if self._ready(asked, "url", "/readyz") and self._ready(asked, "gateway", "/v2/health/ready"):
                    return
                time.sleep(0.05)
        raise Unavailable(f"Podium did not become ready in {timeout:g} s\n{self.last_words()}")

    def _ready(self, asked: httpx.Client, name: str, path: str) -> bool:
        try:
            return asked.get(self.addresses()[name] + path).status_code == 200
        except (httpx.HTTPError, OSError, ValueError, KeyError):
            return False

    def addresses(self) -> dict[str, str]:
        """`url` (API) and `gateway`."""
        return dict(json.loads((self.home / "connection.json").read_text()))

    def last_words(self, lines: int = 15) -> str:
        """The ends of all logs, for an error message."""
        parts = []
        for path in sorted((self.home / "logs").glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"--- {path.name}", *tail]))
        return "\n".join(parts)

    @property
    def gateway(self) -> str:
        """Where predictions are asked for."""
        return self.addresses()["gateway"]

    @property
    def token(self) -> str:
        """The admin token."""
        return (self.home / "admin.token").read_text().strip()

    @property
    def client(self) -> Client:
        """A client with the admin token."""
        if self._client is None:
            self._client = Client(self.addresses()["url"], self.token)
        return self._client

    def processes(self) -> dict[str, int | None]:
        """Pids of supervisor, server and gateway agent; None for what does not run."""
        done = self._app("ps", "--json")
        return dict(json.loads(done.stdout)["processes"])

    def stop(self, *, keep_serving: bool = False) -> None:
        """`down`, and whatever it says if it fails."""
        if self._client is not None:
            self._client.close()
            self._client = None
        done = self._app("down", *(["--keep-serving"] if keep_serving else []))
        if done.returncode != 0:
            raise Unavailable(f"podium down failed: {done.stderr.strip()}")
        # They have ended, killed by somebody or now; they are this process's children, and it collects them.
        while self._supervisors:
            self._supervisors.pop().wait(30)

    def _app(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "podium.app", *arguments, "--home", str(self.home)],
            env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
