"""Replicas of a stand-in model server, in real processes and boxes; all of them are ended after each test."""

import contextlib
import http.client
import json
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

from podium.processes import send_signal
from podium.processes.supervision import observe
from podium.resources.deployment import ResourceLimits, RuntimeSettings, SandboxSettings
from podium.resources.revision import RevisionSpec
from podium.targets.port import ReplicaObservation, ReplicaWish
from podium.targets.process import ProcessTarget


def until(what: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.02)


def get(address: str, path: str) -> dict[str, Any]:
    """GET over a replica's Unix socket."""

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(20)
            self.sock.connect(address.removeprefix("unix:"))

    connection = Connection("replica")
    try:
        connection.request("GET", path)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


class Yard:
    """A target's folders, an environment with the stand-in, a model's folder."""

    def __init__(self, place: Path, short: Path, python: Path) -> None:
        self.root, self.sockets, self.python = place / "replicas", short / "sockets", python
        self.model = place / "model"
        self.model.mkdir()
        (place / "manifest.json").write_text("{}")
        self.manifest = place / "manifest.json"
        self.targets: list[ProcessTarget] = []
        self.behave()

    def behave(self, **how: object) -> None:
        (self.model / "behave.json").write_text(json.dumps(how))

    def target(self) -> ProcessTarget:
        made = ProcessTarget(self.root, self.sockets)
        self.targets.append(made)
        return made

    def wish(
        self, name: str = "churn-00001-1", uid: str = "uid-1", workspace: str = "default", **changes: Any
    ) -> ReplicaWish:
        spec = RevisionSpec(
            deployment="churn", deployment_uid="d", number=1, model="churn", version="1",
            manifest_digest="sha256:" + "a" * 64, runtime_wheel="b" * 64, target="process",
            resources=changes.get("resources", ResourceLimits(memory=2**30)),
            runtime=changes.get("runtime", RuntimeSettings(drain=5)),
            sandbox=changes.get("sandbox", SandboxSettings(require="none")), idempotent=True, content_hash="c",
        )  # fmt: skip
        return ReplicaWish(
            name, workspace, "churn-00001", uid, "churn", spec, self.python, self.model, self.manifest
        )

    def reaches(
        self, target: ProcessTarget, phase: str, uid: str = "uid-1", seconds: float = 20.0
    ) -> ReplicaObservation:
        until(lambda: {one.phase for one in target.observe(uid)} == {phase}, seconds)
        return target.observe(uid)[0]

    def close(self) -> None:
        for target in self.targets:
            target.close()
        for folder in self.root.glob("*/*"):
            with contextlib.suppress(Exception):
                seen = observe(folder)
                if seen is not None and seen.phase != "exited":
                    send_signal(seen.shim, signal.SIGKILL)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment whose `podium_runtime` is the stand-in."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    package = next(folder.glob("lib/python3.*/site-packages")) / "podium_runtime"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("stand_in.py"), package / "__main__.py")
    return folder / "bin" / "python"


@pytest.fixture
def yard(tmp_path: Path, stand_in: Path) -> Iterator[Yard]:
    short = Path(tempfile.mkdtemp(dir="/tmp"))
    made = Yard(tmp_path, short, stand_in)
    yield made
    made.close()
    shutil.rmtree(short, ignore_errors=True)
