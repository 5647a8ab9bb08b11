"""Two agents under one name, with a real server and real Envoys: who keeps the name, who ends, who takes it over."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podium.app.gateway import gateway_settings
from podium.app.settings import Settings, read_settings
from podium.gateway.main import stop
from tests.integration.api.server import ApiServer, serving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SECONDS = 60.0


def until(what: Callable[[], Any], words: Callable[[], str]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline, words()
        time.sleep(0.05)
    return found


class Agent:
    """`podium.app gateway` under the name `gw`, as `podium gateway run` starts it, in a home of its own."""

    def __init__(self, server: ApiServer, home: Path) -> None:
        self.server, self.home = server, home
        self.process: subprocess.Popen[bytes] | None = None
        home.mkdir(mode=0o700)
        (home / "gateway.token").touch(mode=0o600)
        (home / "gateway.token").write_text(server.token("gateway", "*"))

    def start(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        told = {"PODIUM_GATEWAY_NAME": "gw", "PODIUM_SERVER_URL": self.server.url}
        with (self.home / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "podium.app", "gateway", "--home", str(self.home),
                    "--gateway-port", str(port), "--alone",
                ],
                env=os.environ | told, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        return self.process.pid

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    @property
    def settings(self) -> Settings:
        return read_settings({}, home=str(self.home), gateway_port=1)

    def log(self) -> str:
        return (self.home / "agent.log").read_text()

    def reports(self) -> dict[str, Any]:
        """The row `gw`, once it is this agent's."""

        def own() -> dict[str, Any] | None:
            found = row(self.server)
            assert self.process is not None
            return found if found and found["instance"]["pid"] == self.process.pid else None

        found: dict[str, Any] = until(own, lambda: f"{row(self.server)}\n{self.log()[-3000:]}")
        return found

    def ended(self) -> int:
        assert self.process is not None
        return int(self.process.wait(SECONDS))

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if (self.home / "gateway").exists():
            stop(gateway_settings(self.settings, token=None))
        shutil.rmtree(self.settings.sockets, ignore_errors=True)


def row(server: ApiServer) -> dict[str, Any] | None:
    items = server.http().get("/api/v1/gateways").json()["items"]
    return next((item for item in items if item["name"] == "gw"), None)


def seen_again(server: ApiServer, agent: Agent) -> None:
    """It has reported once more."""
    before = agent.reports()["seenAt"]
    until(lambda: agent.reports()["seenAt"] != before, agent.log)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    (tmp_path / "server").mkdir(mode=0o700)
    with serving(tmp_path / "server") as running:
        yield running


@pytest.fixture
def agents(server: ApiServer) -> Iterator[Callable[[], Agent]]:
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="pgn"))
    made: list[Agent] = []

    def make() -> Agent:
        made.append(Agent(server, folder / f"home-{len(made)}"))
        return made[-1]

    try:
        yield make
    finally:
        for agent in made:
            agent.close()
        shutil.rmtree(folder)


def test_the_newer_of_two_ends_and_says_who_has_the_name(
    server: ApiServer, agents: Callable[[], Agent]
) -> None:
    first, second = agents(), agents()
    pid = first.start()
    first.reports()
    second.start()
    assert second.ended() == 1
    assert f"gateway gw reports already, from {socket.gethostname()} (pid {pid})" in second.log()
    assert "next: give one of them another name" in second.log()
    # Nobody would keep its Envoy up to date.
    assert not stop(gateway_settings(second.settings, token=None))
    seen_again(server, first)
    assert "reports already" not in first.log()
    # That one stopped, the name is free at once for its own folder, and soon for any other.
    assert first.process is not None
    first.process.send_signal(signal.SIGINT)
    assert first.ended() == 0
    second.start()
    second.reports()


def test_started_again_in_its_folder_it_has_its_name_at_once(
    server: ApiServer, agents: Callable[[], Agent]
) -> None:
    agent = agents()
    agent.start()
    started = [agent.reports()["instance"]["start"]]
    for _ in range(2):
        agent.kill()
        agent.start()
        started.append(agent.reports()["instance"]["start"])
    assert len(set(started)) == 3
    # In place: the same agent, another Envoy.
    before = agent.reports()["envoy"]["epoch"]
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: agent.reports()["envoy"]["epoch"] != before, agent.log)
    assert agent.reports()["instance"]["start"] == started[-1]
    assert "reports already" not in agent.log()


def test_a_killed_one_is_replaced_from_another_folder(server: ApiServer, agents: Callable[[], Agent]) -> None:
    first, second = agents(), agents()
    first.start()
    first.reports()
    first.kill()
    second.start()
    second.reports()
    seen_again(server, second)
    # It comes too late, and does not get its name back.
    first.start()
    assert first.ended() == 1
    seen_again(server, second)


def test_the_copy_of_a_folder_in_use_twice(server: ApiServer, agents: Callable[[], Agent]) -> None:
    """Both have the same id: the one that started later counts, and the other one says so and serves on."""
    first, second = agents(), agents()
    first.start()
    first.reports()
    (second.home / "gateway").mkdir(mode=0o700)
    shutil.copy(first.home / "gateway" / "id", second.home / "gateway" / "id")
    second.start()
    second.reports()
    until(lambda: "started later in a copy of this folder" in first.log(), first.log)
    seen_again(server, second)
    assert first.process is not None
    assert first.process.poll() is None
