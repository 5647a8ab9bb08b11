"""Fixtures: a gateway (agent process + real Envoy), replicas as processes, a server at the wire."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from podium.gateway.main import stop
from podium.gateway.settings import AccessRecord, CertificateFiles, GatewaySettings
from tests.integration.gateway.documents import World
from tests.integration.gateway.wire_server import WireServer

HERE = Path(__file__).parent


def until(what: Callable[[], Any], seconds: float = 15.0, pause: float = 0.005) -> Any:
    """The first truthy answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(pause)


def _as_text(value: Any) -> Any:
    """Settings that JSON does not know, as `run_agent` reads them."""
    if isinstance(value, AccessRecord):
        return asdict(value)
    return [str(value.chain), str(value.key)] if isinstance(value, CertificateFiles) else str(value)


class Gateway:
    """One home with its agent; everything that it started is gone at `close`."""

    def __init__(self, server_url: str, **settings: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="pgw"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        given = {"port": port, "server_url": server_url, "name": "g1", "concurrency": 2, "drain": 1.0}
        self.given = given | settings
        self.settings = GatewaySettings(home=self.folder / "home", **self.given)
        self.agent: subprocess.Popen[bytes] | None = None
        self.replicas: dict[str, subprocess.Popen[bytes]] = {}
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.settings.port}", trust_env=False, timeout=20
        )

    @property
    def port(self) -> int:
        return self.settings.port

    def start_agent(self) -> None:
        path = self.folder / "settings.json"
        path.write_text(json.dumps(self.given | {"home": str(self.settings.home)}, default=_as_text))
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                [sys.executable, HERE / "run_agent.py", path], stdout=log, stderr=log
            )

    def signal_agent(self, number: signal.Signals, *, wait: bool = True) -> int | None:
        assert self.agent is not None
        self.agent.send_signal(number)
        return self.agent.wait(20) if wait else None

    def agent_log(self) -> str:
        return (self.folder / "agent.log").read_text()

    def envoy_state(self) -> dict[str, Any] | None:
        try:
            return json.loads(self.settings.layout.state.read_text())["incarnations"][-1]
        except FileNotFoundError:
            return None

    def envoy_pid(self) -> int:
        return until(lambda: (self.envoy_state() or {}).get("pid"))

    def start_replica(self, revision: str, number: int = 0) -> str:
        """Its address."""
        path = self.folder / f"{revision}-{number}.sock"
        path.unlink(missing_ok=True)
        self.replicas[path.stem] = subprocess.Popen([sys.executable, HERE / "replica.py", path, revision])
        until(path.exists)
        return f"unix:{path}"

    def answers(self) -> bool:
        try:
            return self.client.get("/v2/health/live").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        return self.client.get(path, **arguments)

    def close(self) -> None:
        self.client.close()
        if self.agent is not None and self.agent.poll() is None:
            self.agent.kill()
            self.agent.wait(10)
        stop(GatewaySettings(home=self.settings.home, **(self.given | {"drain": 0.0})))
        for replica in self.replicas.values():
            replica.kill()
            replica.wait(10)
        if os.environ.get("KEEP_GATEWAY"):
            print(self.folder)
            return
        shutil.rmtree(self.folder)


@pytest.fixture
def server() -> Iterator[WireServer]:
    wire = WireServer()
    wire.start()
    yield wire
    wire.stop()


@pytest.fixture
def gateway(server: WireServer, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    made = Gateway(server.url)
    try:
        yield made
        if getattr(request.node, "failed", False):
            print(made.agent_log()[-4000:])
    finally:
        made.close()


@pytest.fixture
def world(server: WireServer, gateway: Gateway) -> World:
    """One Deployment `churn` with a running replica, known to the server; the agent is not started yet."""
    world = World(server, gateway)
    world.deploy("churn")
    return world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.when == "call" and report.failed:
        item.failed = True  # type: ignore[attr-defined]
    return report
