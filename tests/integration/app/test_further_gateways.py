"""`podium gateway run` beside `podium up`: how it knows the server over TLS, and what `podium down` does with it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from podium.app.settings import read_settings
from podium.client import Client
from podium.resources.errors import Unavailable
from tests.integration.app.test_up_with_tls import Up, serial, until
from tests.integration.certificates import Authority, put

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


class Site(Up):
    """With further gateways, each as somebody started it in a terminal of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.files = self.authority.issue().write(self.folder)
        self.gateways: dict[str, subprocess.Popen[bytes]] = {}
        self.token = ""

    def start(self) -> None:
        super().start()
        self.known = json.loads((self.home / "connection.json").read_text())
        self.token = (self.home / "admin.token").read_text().strip()

    def run(self, name: str, *arguments: str, elsewhere: bool = False) -> subprocess.Popen[bytes]:
        """`elsewhere`: as from another machine, which has the address and a token only."""
        own = {"PODIUM_HOME": str(self.home)}
        if elsewhere:
            own = {"PODIUM_HOME": str(self.folder / "elsewhere"), "PODIUM_TOKEN": self.token}
            arguments = ("--url", f"https://localhost:{self.known['apiPort']}", *arguments)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.gateways[name] = subprocess.Popen(
                [sys.executable, "-m", "podium.cli", "gateway", "run", name, "--notice", "0", *arguments],
                env={**self.environment, **own}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        return self.gateways[name]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def rows(self) -> dict[str, dict[str, Any]]:
        with Client() as client:
            try:
                return {row["name"]: row for row in client.gateways()}
            except Unavailable:
                return {}

    def seen(self, *names: str) -> dict[str, str]:
        """When each has reported last, once all have."""
        until(lambda: set(names) <= set(self.rows()), words=lambda: "\n".join(map(self.log, names)))
        found = self.rows()
        return {name: found[name]["seenAt"] for name in names}

    def seen_since(self, before: dict[str, str]) -> None:
        until(
            lambda: (rows := self.rows()) and all(rows[name]["seenAt"] != at for name, at in before.items()),
            words=lambda: "\n".join(map(self.log, before)),
        )

    def close(self) -> None:
        for process in self.gateways.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.gateways.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        for home in (self.folder / "elsewhere").glob("gateways/*"):
            shutil.rmtree(read_settings({}, home=str(home)).sockets, ignore_errors=True)
        super().close()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(monkeypatch)
    try:
        made.start()
        yield made
    finally:
        made.close()


def envoy(gateway_home: Path) -> psutil.Process:
    return psutil.Process(
        json.loads((gateway_home / "gateway" / "envoy.json").read_text())["incarnations"][-1]["pid"]
    )


def test_they_know_the_server_by_its_certificate_or_by_who_signed_it(site: Site) -> None:
    signers = site.folder / "signers.pem"
    signers.write_bytes(site.authority.file.read_bytes())
    site.run("here")
    site.run("there", "--server-ca", str(signers), elsewhere=True)
    stranger = site.run("stranger", elsewhere=True)
    before = site.seen("here", "there")
    site.seen_since(before)
    assert stranger.wait(60) == 1
    assert "is not taken" in site.log("stranger")
    nowhere = site.run("nowhere", "--server-ca", str(site.folder / "no.pem"), elsewhere=True)
    assert nowhere.wait(60) == 1
    assert "no.pem: expected certificates in PEM: No such file" in site.log("nowhere")
    # Another authority signs from now on: known to `there` as soon as its file says so, and a server that starts anew
    # has nothing else to show.
    other = site.folder / "other"
    other.mkdir()
    authority = Authority(other, "others")
    put(signers, signers.read_bytes() + authority.file.read_bytes())
    renewed = authority.issue()
    renewed.write(site.folder)
    until(lambda: serial(site.known["apiPort"]) == renewed.serial)
    server = site.pid("server")
    assert server is not None
    os.kill(server, signal.SIGKILL)
    until(lambda: site.pid("server") not in (None, server))
    site.seen_since(site.seen("here", "there"))


def test_down_stops_those_of_this_home_and_names_the_others(site: Site) -> None:
    # Its notice is longer than anybody waits: `down` cuts it short.
    here = site.run("here", "--notice", "3600")
    killed = site.run("killed")
    there = site.run("there", "--server-ca", str(site.authority.file), elsewhere=True)
    site.seen("here", "killed", "there")
    envoys = {name: envoy(site.home / "gateways" / name) for name in ("here", "killed")}
    killed.kill()
    killed.wait(20)
    assert envoys["killed"].is_running()
    taken = site.run("there")
    assert taken.wait(60) == 1
    assert f"reports already, from {socket.gethostname()} (pid {there.pid})" in site.log("there")
    done = site.cli("down")
    assert done.returncode == 0, done.stderr
    assert "gateway here, gateway killed" in done.stdout
    assert here.wait(20) == 0
    for process in envoys.values():
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert re.search(
        rf"gateway there runs on, from another folder: kill -INT {there.pid} stops it", done.stdout
    )
    there.send_signal(signal.SIGINT)
    assert there.wait(60) == 0
    assert site.cli("down").stdout.strip() == "nothing was running"
