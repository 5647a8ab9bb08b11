"""One revision under its real reconciler, with a real store and API, a real gateway and replicas of the real model
server. Tests say what is wished, as the Deployment reconciler would."""

import contextlib
import datetime
import functools
import hashlib
import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from podium.api.services import ApiSettings
from podium.control.loop import ControlLoop
from podium.control.revisions import RevisionReconciler
from podium.processes.removal import remove_tree
from podium.resources.deployment import DeploymentSpec, DeploymentStatus
from podium.resources.kinds import Revision
from podium.resources.manifest import FileEntry, Flavor, LockReference, Manifest, Signature, TensorSpec
from podium.resources.model import ModelSpec, ModelStatus, ModelVersionSpec, ModelVersionStatus
from podium.resources.revision import RevisionSpec, RevisionStatus
from podium.resources.shape import Metadata, Resource
from podium.store import Actor
from podium.targets.port import ReplicaObservation, ReplicaWish
from podium.targets.process import ProcessTarget
from tests.integration.api.server import ApiServer, serving
from tests.integration.gateway.conftest import Gateway, until

_EVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
RUNTIME = Path(__file__).parents[3] / "runtime" / "src"
USER = Actor("tester", "user")
NAME, REVISION = "churn", "churn-00001"
MODEL = """
import os, pathlib, time
import numpy as np

class Model:
    def load(self, path):
        {load}

    def predict(self, inputs):
        return {{"y": np.asarray(inputs["x"]).sum(axis=1, keepdims=True)}}
"""


class Target(ProcessTarget):
    """Lets replicas read the runtime of this checkout, which is in no environment."""

    def start(self, wish: ReplicaWish) -> ReplicaObservation:
        return super().start(replace(wish, extra_read_paths=(RUNTIME,)))


@dataclass
class Ready:
    """What the reconciler is told of files and environment: all is there."""

    model_path: Path
    manifest_path: Path
    python: Path | None = Path(sys.executable)
    environment: str = "sha256:env"
    progress: str = ""
    error: str = ""


class Preparation:
    def __init__(self, ready: Ready) -> None:
        self.ready = ready

    def prepare(self, revision: Revision, manifest: Manifest) -> Ready:
        return self.ready

    def distrust(self, manifest: Manifest) -> None:
        pass


class Scaled:
    """`load`: what the model does while it is loaded, as Python."""

    def __init__(self, server: ApiServer, folder: Path, load: str = "pass", **spec: Any) -> None:
        self.server, self.store, self.folder = server, server.store, folder
        self.replicas = folder / "replicas"
        self.model = folder / "model"
        self.model.mkdir()
        (self.model / "model.py").write_text(MODEL.format(load=load))
        manifest = self._manifest()
        (folder / "manifest.json").write_bytes(manifest.canonical_bytes())
        self._ready = Ready(self.model, folder / "manifest.json")
        self._create(manifest, spec)
        token = (server.home / "gateway.token").read_text().strip()
        self.gateway = Gateway(server.url, token=token)
        self.loop: ControlLoop | None = None
        self.target: Target | None = None
        self.start_control()
        self.gateway.start_agent()
        until(lambda: self.gateway.answers() and self.store.gateways(since=_EVER), 30)

    def _manifest(self) -> Manifest:
        files = [
            FileEntry(
                path=path.name, size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
            )
            for path in sorted(self.model.iterdir())
        ]
        signature = Signature(
            inputs=[TensorSpec(name="x", datatype="FP64", shape=[-1, -1])],
            outputs=[TensorSpec(name="y", datatype="FP64", shape=[-1, 1])],
        )
        return Manifest(
            flavor=Flavor(name="python", options={"class": "model:Model"}), files=files, signature=signature,
            python="3.11", lock=LockReference(sha256="a" * 64),
        )  # fmt: skip

    def _create(self, manifest: Manifest, spec: dict[str, Any]) -> None:
        wish = DeploymentSpec.model_validate({"model": {"name": NAME, "version": "1"}, **spec})
        version = ModelVersionSpec(
            model=NAME,
            version="1",
            digest=manifest.digest(),
            push_digest=manifest.digest(),
            manifest=manifest,
        )
        with self.store.write(USER) as tx:
            tx.create(
                Resource(kind="Model", metadata=Metadata(name=NAME), spec=ModelSpec(), status=ModelStatus())
            )
            tx.create(
                Resource(
                    kind="ModelVersion", metadata=Metadata(name=f"{NAME}.1"), spec=version,
                    status=ModelVersionStatus(),
                )
            )  # fmt: skip
            made = tx.create(
                Resource(
                    kind="Deployment", metadata=Metadata(name=NAME), spec=wish, status=DeploymentStatus()
                )
            )
            tx.set_status(made.uid, DeploymentStatus(stable_revision=REVISION, latest_revision=REVISION))
            made = tx.create(
                Resource(
                    kind="Revision",
                    metadata=Metadata(name=REVISION),
                    spec=RevisionSpec(
                        deployment=NAME, deployment_uid=made.uid, number=1, model=NAME, version="1",
                        manifest_digest=manifest.digest(), runtime_wheel="0", target="process",
                        resources=wish.resources, runtime=wish.runtime, sandbox=wish.sandbox,
                        idempotent=wish.idempotent, content_hash="0",
                    ),
                    status=RevisionStatus(),
                )
            )  # fmt: skip
            self.uid = made.uid

    # --- the control plane ---------------------------------------------------------------------------------------

    def start_control(self) -> None:
        self.target = Target(self.replicas, self.gateway.folder / "s")
        self.target.watch(lambda uid: self.store.wake(uid))
        reconciler = RevisionReconciler(
            self.store, targets={"process": self.target}, preparation=Preparation(self._ready)
        )
        self.loop = ControlLoop(self.store, [reconciler], worker=f"w{time.monotonic()}", threads=1)
        self.loop.start()
        self.store.wake(self.uid)

    def stop_control(self) -> None:
        if self.loop is not None and self.target is not None:
            self.loop.stop()
            self.target.close()
        self.loop = self.target = None

    def wish(self, wanted: int, *, sleeping: bool = False, warm: int = 0) -> None:
        """What the Deployment reconciler does."""
        with self.store.write(USER) as tx:
            found = tx.by_uid(self.uid)
            assert isinstance(found.status, RevisionStatus)
            update = {"wanted_replicas": wanted, "sleeping": sleeping, "warm_replicas": warm}
            tx.set_status(self.uid, found.status.model_copy(update=update))
            tx.wake(self.uid)

    @property
    def status(self) -> RevisionStatus:
        with self.store.read() as tx:
            found = tx.by_uid(self.uid)
        assert isinstance(found.status, RevisionStatus)
        return found.status

    @property
    def phases(self) -> list[str]:
        return sorted(state.phase for state in self.status.replicas)

    def reaches(self, *phases: str, seconds: float = 60.0) -> RevisionStatus:
        """Its replicas are these and no others, and the gateway has loaded that."""
        until(lambda: self.phases == sorted(phases), seconds, 0.02)
        version = self.store.current_version()
        until(lambda: min(row.observed_version for row in self.store.gateways(since=_EVER)) >= version, 30)
        return self.status

    # --- requests ------------------------------------------------------------------------------------------------

    def ask(self, numbers: int = 2) -> tuple[int, Any]:
        """Status, and the sum or what went wrong; a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(
                "POST", f"/v2/models/{NAME}/infer", body_of(numbers), {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            document = json.loads(answer.read())
        if answer.status == 200:
            return 200, document["outputs"][0]["data"][0]
        # A replica's own problems are those of the inference protocol.
        return answer.status, document.get("detail") or document["error"]

    def close(self) -> None:
        self.stop_control()
        last = Target(self.replicas, self.gateway.folder / "s")
        for replica in last.observe_all():
            last.stop(replica.name, 0.0, revision_uid=replica.revision_uid)
        until(lambda: all(one.phase == "Exited" for one in last.observe_all()), 30)
        last.close()
        self.gateway.close()


@functools.cache
def body_of(numbers: int) -> bytes:
    """A request whose answer is that many halves; about 5 bytes each."""
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, numbers], "data": [0.5] * numbers}
    return json.dumps({"inputs": [tensor]}).encode()


@contextlib.contextmanager
def scaled(load: str = "pass", **spec: Any) -> Iterator[Scaled]:
    """With everything that belongs to it, for the length of a with block."""
    home = Path(tempfile.mkdtemp(dir="/tmp", prefix="psc"))
    try:
        with serving(home, settings=ApiSettings(tokens_required=False)) as server:
            made = Scaled(server, home, load, **spec)
            try:
                yield made
            finally:
                made.close()
    finally:
        remove_tree(home)


def all_at_once(count: int, what: Callable[[int], Any]) -> list[Any]:
    """Call it from so many threads that begin together."""
    gate, answers = threading.Barrier(count), [None] * count

    def run(number: int) -> None:
        gate.wait(30)
        answers[number] = what(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    return answers
