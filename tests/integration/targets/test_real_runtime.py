"""The whole way of a replica: lock, environment, box, the real model server, an answer, a drain.

Needs a package index, as `make setup` does; what was downloaded once comes from uv's cache.
"""

import hashlib
import http.client
import json
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podium._wheels import runtime_wheel
from podium.environments.uv import Environments
from podium.resources.deployment import RuntimeSettings, SandboxSettings
from podium.resources.manifest import FileEntry, Flavor, LockReference, Manifest, Signature, TensorSpec

from .conftest import Yard, until
from .test_process_target import LEVEL

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="replicas as processes need Linux"),
]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
MODEL = """
import pathlib
import numpy as np

class Model:
    def load(self, path):
        self.factor = float((pathlib.Path(path) / "factor").read_text())
        try:
            pathlib.Path(SECRET).read_text()
        except PermissionError:
            print("the secret stayed one", flush=True)

    def predict(self, inputs):
        print("asked for", inputs["x"].tolist(), flush=True)
        return {"y": np.asarray(inputs["x"], dtype=np.float64) * self.factor}
"""


def post(address: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("replica")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(address.removeprefix("unix:"))
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def environment(folder: Path) -> tuple[Path, str]:
    """An environment with the runtime's wheel and one requirement: its interpreter, and its lock's sha256."""
    wheel = runtime_wheel()
    environments = Environments(folder, wheel=wheel, max_bytes=2**40)
    lock = environments.resolve(["six"], HERE)
    wheel_sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    deadline = time.monotonic() + 240
    while (state := environments.ensure(lock.text, HERE, wheel_sha256)).phase == "building":
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    assert state.python is not None, state.error
    return state.python, lock.sha256


def test_a_model_is_served_from_its_own_environment_in_its_box(yard: Yard, tmp_path: Path) -> None:
    secret = tmp_path / "admin.token"
    secret.write_text("s3cret")
    python, lock_sha256 = environment(tmp_path / "environments")
    (yard.model / "behave.json").unlink()
    (yard.model / "model.py").write_text(f"SECRET = {str(secret)!r}\n{MODEL}")
    (yard.model / "factor").write_text("2.5")
    files = [
        FileEntry(
            path=path.name, size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in sorted(yard.model.iterdir())
    ]
    tensor = TensorSpec(name="x", datatype="FP64", shape=[-1, 2])
    manifest = Manifest(
        flavor=Flavor(name="python", options={"class": "model:Model"}), files=files,
        signature=Signature(inputs=[tensor], outputs=[tensor.model_copy(update={"name": "y"})]),
        python=HERE, requirements=["six"], lock=LockReference(sha256=lock_sha256),
    )  # fmt: skip
    yard.manifest.write_bytes(manifest.canonical_bytes())

    yard.python = python
    example = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [5, 6]}]}
    runtime = RuntimeSettings.model_validate(
        {
            "drain": "5s",
            "warmup": {"requests": 2, "example": example},
            "watchdog": "9s",
            "maxTensorElements": 6,
        }
    )
    wish = yard.wish(runtime=runtime, sandbox=SandboxSettings(require=LEVEL))
    wish = replace(wish, spec=wish.spec.model_copy(update={"manifest_digest": manifest.digest()}))
    target = yard.target()
    target.start(wish)
    until(lambda: target.observe("uid-1")[0].phase in ("Ready", "Exited"), 120)
    ready = target.observe("uid-1")[0]
    assert ready.phase == "Ready", ready
    assert ready.sandbox == LEVEL
    body = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [2, 2], "data": [1, 2, 3, 4]}]}
    status, answer = post(ready.address, "/v2/models/churn/infer", body)
    assert (status, answer["outputs"][0]["data"]) == (200, [2.5, 5.0, 7.5, 10.0])
    body["inputs"][0] |= {"shape": [4, 2], "data": [1] * 8}
    status, answer = post(ready.address, "/v2/models/churn/infer", body)
    assert (status, answer["field"]) == (400, "inputs[0].shape")
    told = [line for line in target.logs(wish.name, 50) if "asked for" in line]
    assert told == ["asked for [[5.0, 6.0]]"] * 2 + ["asked for [[1.0, 2.0], [3.0, 4.0]]"]
    assert LEVEL == "none" or any("the secret stayed one" in line for line in target.logs(wish.name, 50))

    target.stop(wish.name, 5)
    ended = yard.reaches(target, "Exited")
    assert (ended.exit_code, ended.log_tail[-1]) == (0, "stopped")

    (yard.model / "factor").write_text("9.9")
    target.start(replace(wish, name="churn-00001-2"))
    until(lambda: {one.name: one.phase for one in target.observe("uid-1")}["churn-00001-2"] == "Exited", 60)
    refused = next(one for one in target.observe("uid-1") if one.name == "churn-00001-2")
    assert refused.exit_code == 3, "changed bytes are found before anything is loaded"
    assert any("factor" in line for line in refused.log_tail)
