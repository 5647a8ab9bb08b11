"""Two real gateways on one server, of which one is killed: the rollout says who, and goes on when it is forgotten."""

import json
import os
import shutil
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
from podium.control import loop
from podium.control.gateways import KNOWN_FOR
from podium.gateway.main import stop
from tests.integration.api.server import ApiServer, serving
from tests.integration.control.conftest import Plant
from tests.integration.control.test_passages import CANARY

SECONDS = 60.0


class Agents:
    """Gateways as `podium gateway run` starts them."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self._server, self._folder = server, folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "podium.cli", "gateway", "run", name, "--folder", str(self._folder / name)],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {"PODIUM_URL": self._server.url, "PODIUM_TOKEN": self._server.admin_token}

    def podium(self, *arguments: str, code: int = 0) -> str:
        """What a command line says."""
        done = subprocess.run(
            [sys.executable, "-m", "podium.cli", *arguments],
            env=self._environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait(10)

    def settings(self, name: str) -> Settings:
        return read_settings({}, home=str(self._folder / name), gateway_port=1)

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def close(self) -> None:
        for name in self.processes:
            self.kill(name)
            stop(gateway_settings(self.settings(name), token=None))
            shutil.rmtree(self.settings(name).sockets, ignore_errors=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    (tmp_path / "server").mkdir(mode=0o700)
    with serving(tmp_path / "server") as running:
        yield running


@pytest.fixture
def agents(server: ApiServer) -> Iterator[Agents]:
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="p2g"))
    made = Agents(server, folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


def state(plant: Plant) -> str:
    """For a failure: who stands where."""
    with plant.store.read() as tx:
        found = [item for kind in ("Deployment", "Revision", "Rollout") for item in tx.list(kind).items]
    lines = [f"{item.metadata.name}: {item.status}" for item in found]
    lines += [str(row) for row in plant.store.gateways(since=loop.now() - KNOWN_FOR)]
    return "\n".join([f"version {plant.store.current_version()}", *lines])


def settled(plant: Plant, what: Callable[[], Any]) -> Any:
    """Pass after pass, until it holds."""
    deadline = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline, state(plant)
        plant.settle(passes=5)
        time.sleep(0.05)
    return found


def test_a_rollout_waits_for_the_killed_gateway_by_name_and_goes_on_when_it_is_forgotten(
    server: ApiServer, agents: Agents
) -> None:
    plant = Plant(server.store)
    plant.gateway_alive = False  # real ones report
    for name in ("gw-1", "gw-2"):
        agents.start(name)
    settled(plant, lambda: len(gateways(server)) == 2)

    plant.push(1)
    plant.push(2)
    plant.apply(model={"name": "churn", "version": "1"}, rollout=CANARY)
    settled(plant, lambda: plant.get("Deployment", "churn").status.phase == "Ready")
    version = plant.store.current_version()
    settled(plant, lambda: all(item["observedVersion"] >= version for item in gateways(server)))
    assert "it is not gone" in agents.podium("gateway", "forget", "gw-1", code=1)

    agents.kill("gw-2")
    plant.apply(model={"name": "churn", "version": "2"}, rollout=CANARY)

    def rollout() -> Any:
        return plant.get("Rollout", "churn-2").status

    settled(plant, lambda: plant.get("Deployment", "churn").status.rollout == "churn-2")
    settled(plant, lambda: rollout().silent_gateways)
    assert (rollout().silent_gateways, rollout().loaded) == (["gw-2"], False)
    assert "waits for gateway gw-2 (silent since" in rollout().message
    settled(plant, lambda: "waits for gateway gw-2" in plant.get("Deployment", "churn").status.message)
    assert "waits for gateway gw-2" in agents.podium("rollout", "explain", "churn")
    listed = {
        item["name"]: item for item in json.loads(agents.podium("gateway", "list", "-o", "json"))["items"]
    }
    assert {name: item["silent"] for name, item in listed.items()} == {"gw-1": False, "gw-2": True}
    assert listed["gw-2"]["behind"] > 0

    assert "gateway gw-2 is forgotten" in agents.podium("gateway", "forget", "gw-2")
    settled(plant, lambda: rollout().loaded)
    assert [item["name"] for item in gateways(server)] == ["gw-1"]
    assert "there is no gateway gw-2; known: gw-1" in agents.podium("gateway", "forget", "gw-2", code=1)
    told = server.http().get("/api/v1/audit").json()["items"]
    about = [(row["actor"], row["verb"], row["name"]) for row in told if row["kind"] == "Gateway"]
    assert about == [("admin", "forget", "gw-2")]

    # Its Envoy went on all the while; a new agent adopts it and catches up.
    agents.start("gw-2")
    version = plant.store.current_version()
    settled(plant, lambda: len(found := gateways(server)) == 2 and found[1]["observedVersion"] >= version)
    assert rollout().silent_gateways == []


def gateways(server: ApiServer) -> list[dict[str, Any]]:
    """As the API lists them."""
    return list(server.http().get("/api/v1/gateways").json()["items"])
