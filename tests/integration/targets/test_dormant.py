"""Replicas that sleep until a request comes: real shims, real boxes, Podium's own model server."""

import contextlib
import hashlib
import http.client
import json
import pickle
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podium.processes import is_alive
from podium.processes.supervision import observe
from podium.resources.deployment import RuntimeSettings
from podium.resources.errors import Refused
from podium.resources.manifest import FileEntry, Flavor, LockReference, Manifest, Signature, TensorSpec
from podium.targets.port import ReplicaObservation, ReplicaWish

from .conftest import Yard, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="replicas as processes need Linux"),
]
MODEL = """
import os, pathlib, signal, time
import numpy as np
{at_import}
class Model:
    def load(self, path):
        starts = pathlib.Path("starts")
        count = len(starts.read_text()) + 1 if starts.exists() else 1
        starts.write_text("x" * count)
        {in_load}
        self.count = count

    def predict(self, inputs):
        return {{"y": np.asarray(inputs["x"]).sum(axis=1, keepdims=True) * 0 + self.count}}
"""
MIB = 2**20
COLUMNS = 4


class Sleeper:
    """One dormant replica of a python model, served by the runtime of this checkout."""

    def __init__(self, yard: Yard, in_load: str = "pass", at_import: str = "", **runtime: Any) -> None:
        self.yard, self.target = yard, yard.target()
        (yard.model / "behave.json").unlink()
        (yard.model / "model.py").write_text(MODEL.format(in_load=in_load, at_import=at_import))
        files = [
            FileEntry(
                path=path.name, size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
            )
            for path in sorted(yard.model.iterdir())
        ]
        x = TensorSpec(name="x", datatype="FP64", shape=[-1, -1])
        y = TensorSpec(name="y", datatype="FP64", shape=[-1, 1])
        manifest = Manifest(
            flavor=Flavor(name="python", options={"class": "model:Model"}), files=files, python="3.11",
            signature=Signature(inputs=[x], outputs=[y]), lock=LockReference(sha256="a" * 64),
        )  # fmt: skip
        yard.manifest.write_bytes(manifest.canonical_bytes())
        yard.python = Path(sys.executable)
        settings = RuntimeSettings.model_validate({"drain": "5s", "warmup": {"requests": 0}, **runtime})
        wish = yard.wish(runtime=settings)
        spec = wish.spec.model_copy(update={"manifest_digest": manifest.digest()})
        source = Path(__file__).parents[3] / "runtime" / "src"
        self.wish: ReplicaWish = replace(wish, spec=spec, dormant=True, extra_read_paths=(source,))

    def start(self) -> ReplicaObservation:
        return self.target.start(self.wish)

    def seen(self) -> ReplicaObservation:
        return self.target.observe("uid-1")[0]

    def reaches(self, phase: str) -> ReplicaObservation:
        return self.yard.reaches(self.target, phase, seconds=60)

    def ask(self, address: str, body: bytes = b"") -> tuple[int, Any]:
        """Status and value of a prediction; (0, how) where the connection is cut."""
        connection = http.client.HTTPConnection("replica")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(address.removeprefix("unix:"))
        with contextlib.closing(connection):
            try:
                connection.request("POST", "/v2/models/churn/infer", body or small(), JSON)
                answer = connection.getresponse()
                content = json.loads(answer.read())
            except (ConnectionError, http.client.HTTPException) as error:
                return 0, type(error).__name__
            return answer.status, content["outputs"][0]["data"][0] if answer.status == 200 else content


JSON = {"Content-Type": "application/json"}


def small() -> bytes:
    return body_of(COLUMNS)


def body_of(numbers: int) -> bytes:
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, numbers], "data": [0.5] * numbers}
    return json.dumps({"inputs": [tensor]}).encode()


def test_a_request_wakes_it_and_nothing_else_does(yard: Yard) -> None:
    sleeper = Sleeper(yard)
    asleep = sleeper.start()
    assert (asleep.phase, asleep.pid, asleep.woken) == ("Dormant", None, False)
    for _ in range(3):
        assert sleeper.seen().phase == "Dormant", "looking at it woke it"
        assert sleeper.start().phase == "Dormant"
    assert sleeper.ask(asleep.address) == (200, 1.0)
    awake = sleeper.reaches("Ready")
    assert (awake.address, awake.name, awake.woken) == (asleep.address, asleep.name, True)
    assert awake.pid is not None
    sleeper.target.stop(awake.name, 5)
    ended = sleeper.reaches("Exited")
    assert (ended.exit_code, ended.log_tail[-1]) == (0, "stopped")


def test_two_hundred_at_once_and_large_bodies_are_all_answered_by_one_start(yard: Yard) -> None:
    """More than the replica's queue (16) and more bytes than it would take at once."""
    sleeper = Sleeper(yard, in_load="time.sleep(1)", queueLength=16, maxBody="3Mi")
    address = sleeper.start().address
    large = body_of(2 * MIB // 5)
    assert len(large) > 2 * MIB
    with ThreadPoolExecutor(200) as pool:
        answers = list(
            pool.map(lambda number: sleeper.ask(address, large if number % 10 == 0 else b""), range(200))
        )
    assert answers == [(200, 1.0)] * 200


def test_it_is_woken_with_nobody_there_and_adopted_afterwards(yard: Yard) -> None:
    """Whoever started it was killed; the next server finds it ready."""
    sleeper = Sleeper(yard)
    code = (
        "import os, pickle, signal, sys\n"
        "target, wish = pickle.load(sys.stdin.buffer)\n"
        "from podium.targets.process import ProcessTarget\n"
        "ProcessTarget(*target).start(wish)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    started = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(((yard.root, yard.sockets), sleeper.wish)), check=False,
        timeout=60,
    )  # fmt: skip
    assert started.returncode == -signal.SIGKILL
    folder = yard.root / "uid-1" / sleeper.wish.name
    shim = observe(folder)
    assert shim is not None
    address = sleeper.seen().address
    assert sleeper.ask(address) == (200, 1.0)
    again = yard.target()
    found = yard.reaches(again, "Ready", seconds=60)
    assert (found.name, found.address, found.woken) == (sleeper.wish.name, address, True)
    after = observe(folder)
    assert after is not None
    assert after.shim == shim.shim
    assert is_alive(after.shim)


def test_the_wake_is_told_soon(yard: Yard) -> None:
    sleeper = Sleeper(yard)
    told: list[str] = []
    sleeper.target.watch(told.append)
    address = sleeper.start().address
    assert sleeper.ask(address)[0] == 200
    until(lambda: told == ["uid-1"])
    assert sleeper.reaches("Ready").woken


def test_a_model_that_dies_while_it_starts_is_started_again_for_those_who_wait(yard: Yard) -> None:
    sleeper = Sleeper(yard, in_load="if count == 1: os.kill(os.getpid(), signal.SIGKILL)")
    address = sleeper.start().address
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: sleeper.ask(address), range(20)))
    assert answers == [(200, 2.0)] * 20
    assert sleeper.reaches("Ready").woken


def test_a_model_that_never_loads_is_an_end_with_its_words_and_nobody_hangs(yard: Yard) -> None:
    sleeper = Sleeper(yard, in_load="raise RuntimeError('no such tensor')")
    address = sleeper.start().address
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: sleeper.ask(address), range(5)))
    assert {status for status, _ in answers} == {0}
    ended = sleeper.reaches("Exited")
    assert (ended.exit_code, ended.woken) == (4, True)
    assert ended.log_tail[-1] == "start 3 of 3 for requests that wait: ended with exit code 4"
    assert any("no such tensor" in line for line in ended.log_tail)


def test_damaged_files_are_not_tried_again(yard: Yard) -> None:
    sleeper = Sleeper(yard)
    address = sleeper.start().address
    (yard.model / "model.py").write_text("damaged")
    assert sleeper.ask(address)[0] == 0
    ended = sleeper.reaches("Exited")
    assert (ended.exit_code, ended.log_tail[-1]) == (
        3, "start 1 of 3 for requests that wait: ended with exit code 3",
    )  # fmt: skip


def test_one_that_does_not_get_ready_in_time_is_ended(yard: Yard) -> None:
    sleeper = Sleeper(yard, in_load="time.sleep(600)", startupTimeout="2s")
    address = sleeper.start().address
    assert sleeper.ask(address)[0] == 0
    assert "startup timeout of 2 s" in sleeper.reaches("Exited").log_tail[-1]


def test_who_waits_is_answered_before_it_goes(yard: Yard) -> None:
    sleeper = Sleeper(yard, in_load="time.sleep(1)")
    address = sleeper.start().address
    answers: list[tuple[int, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(sleeper.ask(address)))
    asking.start()
    until(lambda: sleeper.seen().phase == "Starting")
    sleeper.target.stop(sleeper.wish.name, 30)
    asking.join(60)
    assert answers == [(200, 1.0)]
    assert sleeper.reaches("Exited").exit_code == 0


def test_it_ends_at_once_while_it_sleeps(yard: Yard) -> None:
    sleeper = Sleeper(yard)
    sleeper.start()
    sleeper.target.stop(sleeper.wish.name, 30)
    ended = sleeper.reaches("Exited")
    assert (ended.woken, ended.log_tail[-1]) == (False, "stopped before a request woke it")
    sleeper.target.forget(sleeper.wish.name)
    assert sleeper.target.observe("uid-1") == []


def test_a_server_with_a_port_of_its_own_cannot_sleep(yard: Yard) -> None:
    sleeper = Sleeper(yard)
    spec = sleeper.wish.spec.model_copy(update={"runtime": RuntimeSettings(command=["serve", "{port}"])})
    with pytest.raises(Refused, match="cannot be started by a request"):
        sleeper.target.start(replace(sleeper.wish, spec=spec))
    assert sleeper.target.observe("uid-1") == []
