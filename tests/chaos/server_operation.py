"""One operation of a server, in a process that a test may kill at any write.

`apply`: the real API application answers one request. `rollout`: the real reconcilers take a rollout from ready to
promoted; a gateway that is a row in the store loads what it is told. `start`: the real Revision reconciler starts a
replica as processes. Run as a program by test_server_crash.py, which also calls `carry_on` to go on where it died:

    <- {"operation": "apply", "folder": "/..."}    -> PID     a fork that has set up and stopped itself (SIGSTOP)
                                                   -> STATUS  as os.waitpid gives it, when that fork has ended

What the operation says to be done goes to the folder's file `acknowledged`.
"""

import asyncio
import datetime
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from podium.api.bootstrap import bootstrap
from podium.api.create import create_app
from podium.api.services import ApiSettings, Services
from podium.control.deployments import DeploymentReconciler
from podium.control.loop import Reconciler, now
from podium.control.revisions import RevisionReconciler
from podium.control.rollouts import RolloutReconciler
from podium.registry.blobs import BlobStore
from podium.resources.kinds import AnyResource
from podium.resources.rollout import FINAL_PHASES
from podium.store import GatewayRow, Store
from podium.targets.process import ProcessTarget
from tests.integration.api.server import Logs, Profiler, Publisher

WHEEL = "wheel-1"
# A lease of the one that died counts as over, and timers as due.
AHEAD = datetime.timedelta(seconds=60)
PAUSE = 0.02
"""Seconds between two looks at what has not changed."""


@dataclass
class Fixed:
    """What `Preparation.prepare` answers: all of it is there already."""

    model_path: Path
    manifest_path: Path
    python: Path | None
    environment: str = "sha256:env"
    progress: str = ""
    error: str = ""

    def prepare(self, revision: Any, manifest: Any) -> "Fixed":
        return self

    def distrust(self, manifest: Any) -> None:
        raise AssertionError("nothing is damaged here")


def open_store(folder: Path) -> Store:
    return Store.open(f"sqlite:///{folder / 'podium.db'}")


def acknowledge(version: int) -> None:
    """Whoever reads this line may rely on it. One write, so that it is there whole or not at all."""
    os.write(1, b"%d\n" % version)


def apply(folder: Path) -> Callable[[], None]:
    """One update of a Deployment over the API."""
    store = open_store(folder)
    tokens = bootstrap(
        store,
        key_file=folder / "key.pem",
        admin_token_file=folder / "admin.token",
        gateway_token_file=folder / "gateway.token",
    )
    blobs = BlobStore(str(folder / "blobs"))
    app = create_app(
        Services(
            store=store, tokens=tokens, blobs=blobs, publisher=Publisher(store, blobs), profiler=Profiler(store),
            logs=Logs(), settings=ApiSettings(), version="0.0-test", runtime_wheel=WHEEL,
        )
    )  # fmt: skip
    headers = {"authorization": f"Bearer {(folder / 'admin.token').read_text().strip()}"}
    wish = orjson.loads((folder / "wish.json").read_bytes())

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://podium", headers=headers
        ) as client:
            return await client.post("/api/v1/apply", json=wish)

    def act() -> None:
        answer = asyncio.run(post())
        assert answer.status_code == httpx.codes.OK, answer.text
        acknowledge(answer.json()["object"]["metadata"]["resourceVersion"])

    return act


def rollout(folder: Path) -> Callable[[], None]:
    """From ready to promoted, pass by pass."""
    store = open_store(folder)
    reconcilers = [DeploymentReconciler(store, runtime_wheel=WHEEL), RolloutReconciler(store)]

    def done() -> bool:
        acknowledge(store.current_version())
        found = rollout_of(store)
        return found is not None and found.status.phase in FINAL_PHASES and not work_left(store, "Deployment")

    store.current_version()
    return lambda: carry_on(store, reconcilers, done)


def start(folder: Path) -> Callable[[], None]:
    """A replica, from wanted to on record."""
    store = open_store(folder)
    reconciler = replicas(store, folder)

    def act() -> None:
        carry_on(store, [reconciler], lambda: on_record(store) == 1)
        acknowledge(store.current_version())

    store.current_version()
    return act


def replicas(store: Store, folder: Path) -> Reconciler:
    given = orjson.loads((folder / "replicas.json").read_bytes())
    # A socket is named after its replica, and the replicas of all copies of one folder have the same name.
    target = ProcessTarget(folder / "replicas", Path(given["sockets"]) / folder.name)
    fixed = Fixed(Path(given["model"]), Path(given["manifest"]), Path(given["python"]))
    return RevisionReconciler(store, targets={"process": target}, preparation=fixed)


def rollout_of(store: Store) -> AnyResource | None:
    with store.read() as tx:
        return tx.find("Rollout", "default", "churn-2")


def ready(store: Store) -> int:
    with store.read() as tx:
        return sum(it.status.ready_replicas for it in tx.list("Revision").items)


def on_record(store: Store) -> int:
    with store.read() as tx:
        return sum(len(it.status.replicas) for it in tx.list("Revision").items)


def work_left(store: Store, kind: str) -> bool:
    due = store.next_due([kind])
    return due is not None and due <= now()


def carry_on(store: Store, reconcilers: list[Reconciler], done: Any, seconds: float = 60.0) -> None:
    """What the control loop does, in this thread, until `done()`; the gateway loads each commit."""
    by_kind = {it.kind: it for it in reconcilers}
    deadline = now() + datetime.timedelta(seconds=seconds)
    reported = -1
    while not done():
        assert now() < deadline, "it does not come to an end"
        version = store.current_version()
        if version != reported:
            store.report_gateway(GatewayRow("gw", now(), version, [], {}))
            reported = version
        else:
            time.sleep(PAUSE)
        for lease in store.claim("w", kinds=list(by_kind), limit=1, lease_seconds=5, now=now() + AHEAD):
            by_kind[lease.kind].reconcile(lease)


OPERATIONS = {"apply": apply, "rollout": rollout, "start": start}


def perform(operation: str, folder: Path) -> None:
    """In the fork: set up, wait to be traced, act."""
    output = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    act = OPERATIONS[operation](folder)
    os.kill(os.getpid(), signal.SIGSTOP)
    act()


def main() -> None:
    """Forks for each line, so that nothing is imported anew for each."""
    for line in sys.stdin:
        wish = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                perform(wish["operation"], Path(wish["folder"]))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                # What ends a server in peace is no part of the operation.
                os._exit(code)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
