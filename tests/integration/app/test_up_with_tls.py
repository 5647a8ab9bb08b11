"""`podium up` with a certificate: every way between its parts and from its clients, also over a renewal."""

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from podium.client import Client
from podium.resources.errors import InvalidInput, Unavailable
from tests.integration.certificates import Authority, put

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def until(what: Callable[[], Any], seconds: float = 90.0, words: Callable[[], str] = lambda: "") -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not in {seconds} s {words()}"
        time.sleep(0.05)
    return found


class Up:
    """One installation, with an authority whose certificates are for another name than this machine's addresses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="ptls"))
        self.home = self.folder / "home"
        self.authority = Authority(self.folder)
        self.files = self.authority.issue(names=("models.example.org",)).write(self.folder)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("PODIUM_")}
        for name in [name for name in os.environ if name.startswith("PODIUM_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PODIUM_HOME", str(self.home))

    def app(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "podium.app", *arguments, "--home", self.home],
            env=self.environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def flags(self) -> list[str]:
        return ["--tls-cert", str(self.files.chain), "--tls-key", str(self.files.key)]

    def cli(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "podium.cli", *arguments],
            env={**self.environment, "PODIUM_HOME": str(self.home)}, capture_output=True, text=True, check=False,
            timeout=180,
        )  # fmt: skip

    def start(self) -> None:
        """Returns when both parts have answered over TLS."""
        ports = ["--api-port", "0", "--gateway-port", "0"]
        done = self.cli("up", "--detach", "--timeout", "150s", *ports, *self.flags())
        assert done.returncode == 0, done.stderr

    def pid(self, name: str) -> int | None:
        found: dict[str, int | None] = json.loads(self.app("ps", "--json").stdout)["processes"]
        return found[name]

    def close(self) -> None:
        self.app("down")
        shutil.rmtree(self.folder)


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch) -> Iterator[Up]:
    made = Up(monkeypatch)
    yield made
    made.close()


def answers(call: Callable[[], Any]) -> bool:
    try:
        call()
    except Unavailable:
        return False
    return True


def seen_at(client: Client) -> str:
    """When the gateway reported last; empty before its first time."""
    rows = client.gateways()
    return str(rows[0]["seenAt"]) if rows else ""


def serial(port: int) -> int:
    found = ssl.get_server_certificate(("127.0.0.1", port), timeout=20)
    return x509.load_pem_x509_certificate(found.encode()).serial_number


def test_every_way_speaks_tls_and_knows_a_renewed_certificate(up: Up) -> None:
    up.start()
    known = json.loads((up.home / "connection.json").read_text())
    assert known["url"] == f"https://127.0.0.1:{known['apiPort']}"
    assert known["gateway"] == f"https://127.0.0.1:{known['gatewayPort']}"
    # This machine's clients know the very certificate, and the agent does.
    with Client() as client:
        until(lambda: answers(client.ready))
        before = until(lambda: seen_at(client))
        until(lambda: seen_at(client) != before)
        token = client.connection.token
    assert until(lambda: up.cli("status").returncode == 0)
    # Others go by who signed it, and by its names: so first one with the right name.
    renewed = up.authority.issue()
    renewed.write(up.folder)
    until(lambda: {serial(known["apiPort"]), serial(known["gatewayPort"])} == {renewed.serial})
    url = f"https://localhost:{known['apiPort']}"
    with Client(url=url, token=token, ca_file=up.authority.file) as client:
        assert client.ready()
    with (
        Client(url=url, token=token) as stranger,
        pytest.raises(Unavailable, match=r"is not taken: .*certificate"),
    ):
        stranger.ready()
    elsewhere = ["models", "--url", url]
    up.environment["PODIUM_TOKEN"] = str(token)
    assert up.cli("get", *elsewhere, "--ca-file", str(up.authority.file)).returncode == 0
    refused = up.cli("get", *elsewhere)
    assert refused.returncode == 1
    assert f"the certificate of {url} is not taken" in refused.stderr
    assert "--ca-file" in refused.stderr
    with pytest.raises(InvalidInput) as caught:
        Client(url=url, token=token, ca_file=up.files.key)
    assert caught.value.issues[0].field == "ca_file"
    # A server that starts anew has the new one; the agent, which has known only the old one, follows it.
    server = up.pid("server")
    assert server is not None
    os.kill(server, signal.SIGKILL)
    until(lambda: up.pid("server") not in (None, server))
    with Client() as client:
        until(lambda: answers(client.ready))
        before = seen_at(client)
        until(lambda: seen_at(client) != before)


def test_the_command_line_says_what_is_wrong_with_a_certificate(up: Up) -> None:
    refused = up.app("up", *up.flags()[:2])
    assert refused.returncode == 1
    assert "a certificate and its key go together" in refused.stderr
    put(up.files.key, up.authority.issue().key)
    refused = up.app("up", *up.flags())
    assert refused.returncode == 1
    assert "this is not the key of the certificate" in refused.stderr
    assert "next: " in refused.stderr
    assert "PRIVATE" not in refused.stderr
