"""kill -9 at every system call with which a server writes during one operation: `make test-crash` (needs strace).

Of an apply: it is there whole or not at all, and when it was acknowledged, it is there. Of a rollout: the next server
goes on where it was, and each step is taken once. Of a replica's start: there is one shim and one model process in the
end, and none when it is no longer wanted.
"""

import contextlib
import itertools
import json
import os
import queue
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from podium.api.bootstrap import bootstrap
from podium.control.deployments import DeploymentReconciler
from podium.control.rollouts import RolloutReconciler
from podium.resources.rollout import FINAL_PHASES
from podium.store import Store
from tests.chaos import server_operation as server
from tests.integration.control.conftest import USER, Plant
from tests.integration.targets.conftest import stand_in

__all__ = ["stand_in"]
pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]

# Every way in which SQLite, the files of a replica, its start and an acknowledgement reach the kernel. The question
# mark: not every architecture has the older ones.
WRITING = (
    "pwrite64", "write", "fdatasync", "fsync", "ftruncate", "?rename", "?renameat", "?renameat2", "?unlink",
    "?unlinkat", "?mkdir", "?mkdirat", "?vfork", "?clone", "?clone3",
)  # fmt: skip
WORKERS = 4
STEPS = [{"weight": 20, "duration": "0s"}, {"weight": 60, "duration": "0s"}]
CANARY = {"strategy": {"type": "canary", "steps": STEPS}, "analysis": {"enabled": False}}


@dataclass
class Ended:
    killed: bool
    acknowledged: list[int]
    """Versions that it said were committed."""


class Operator:
    """Runs operations, one at a time, each in a fork of its own under strace."""

    def __init__(self) -> None:
        # -B: no compiled files are written. One thread: a fork takes only one along.
        self._zygote = subprocess.Popen(
            [sys.executable, "-B", "-m", "tests.chaos.server_operation"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, operation: str, folder: Path, *traced: str) -> Ended:
        """From the first call after its set-up on, with these options of strace."""
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        print(
            json.dumps({"operation": operation, "folder": str(folder)}), file=self._zygote.stdin, flush=True
        )
        pid = int(self._zygote.stdout.readline())
        until(lambda: status_of(pid)["State"].startswith("T"), lambda: "the operation does not stop")
        # Only an apply writes in a thread of its own (the API's); followed, a replica would be killed as well.
        follow = ["-f"] if operation == "apply" else []
        with subprocess.Popen(["strace", "-qq", *follow, *traced, "-p", str(pid)]) as strace:
            until(
                lambda: is_traced(pid, follow) or strace.poll() is not None, lambda: "strace does not attach"
            )
            assert strace.poll() is None, "strace ended"
            os.kill(pid, signal.SIGCONT)
            status = os.waitstatus_to_exitcode(int(self._zygote.stdout.readline()))
        assert status in (0, -signal.SIGKILL), f"{operation} ended with {status}"
        whole = [
            line
            for line in (folder / "acknowledged").read_bytes().splitlines(keepends=True)
            if line.endswith(b"\n")
        ]
        return Ended(status != 0, [int(line) for line in whole])

    def close(self) -> None:
        self._zygote.communicate(timeout=60)


def status_of(pid: int, thread: int | None = None) -> dict[str, str]:
    text = Path(f"/proc/{pid}/task/{thread or pid}/status").read_text()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def is_traced(pid: int, follow: list[str]) -> bool:
    threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")] if follow else [pid]
    return all(status_of(pid, thread)["TracerPid"] != "0" for thread in threads)


def at_every_write(
    operation: str, origin: Path, place: Path, check: Callable[[Path, Ended], None]
) -> Counter[str]:
    """Run it on a fresh copy of `origin` for each point, and `check` what is left; how many points of which call.

    strace counts each call of each thread by itself, so they are taken one after the other.
    """
    operators = queue.SimpleQueue[Operator]()
    points: Counter[str] = Counter()

    def once(call: str, number: int) -> bool:
        folder = place / f"{operation}-{call.strip('?')}-{number}"
        shutil.copytree(origin, folder)
        operator = operators.get()
        try:
            inject = f"inject={call}:signal=SIGKILL:when={number}"
            ended = operator.run(operation, folder, "-o", os.devnull, "-e", f"trace={call}", "-e", inject)
        finally:
            operators.put(operator)
        check(folder, ended)
        shutil.rmtree(folder)
        return ended.killed

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(WORKERS) as pool:
        for _ in range(WORKERS):
            operator = Operator()
            stack.callback(operator.close)
            operators.put(operator)
        for call in WRITING:
            for first in itertools.count(1, WORKERS):
                numbers = range(first, first + WORKERS)
                killed = list(pool.map(once, [call] * WORKERS, numbers))
                points[call.strip("?")] += sum(killed)
                if not all(killed):
                    break
    return +points


def told(points: Counter[str]) -> str:
    return f"{points.total()} points ({', '.join(f'{count} {call}' for call, count in points.items())})"


def prepared(folder: Path, stop_before: str, **rollout: Any) -> Plant:
    """Version 1 is served, version 2 is wished for; the reconciler of that kind has not been there yet."""
    folder.mkdir()
    store = server.open_store(folder)
    store.migrate()
    bootstrap(
        store,
        key_file=folder / "key.pem",
        admin_token_file=folder / "admin.token",
        gateway_token_file=folder / "gateway.token",
    )
    plant = Plant(store)
    plant.push(1)
    plant.push(2)
    if stop_before == "Revision":
        plant.reconcilers.pop("Revision")
        plant.reconcilers.pop("Rollout")
    plant.apply(model={"name": "churn", "version": "1"}, **rollout)
    plant.settle()
    return plant


def close(plant: Plant, folder: Path) -> None:
    plant.store.close()
    assert not (folder / "podium.db-wal").exists(), "closing folds the WAL in"


def fits_together(store: Store, folder: Path, ended: Ended) -> None:
    """SQLite's own checks; nothing that was acknowledged is missing, no commit is there in part."""
    connection = sqlite3.connect(folder / "podium.db")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()
    with store.read() as tx:
        assert tx.version >= max(ended.acknowledged, default=0), "an acknowledged commit is lost"
        versions = {change.version for change in tx.changes(0, limit=None)}
        versions |= {row.version for row in tx.audit(limit=None)}
        assert versions == set(range(1, tx.version + 1)), "a commit is missing, or there in part"


# An apply


def test_apply(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    plant = prepared(origin, "nothing", rollout=CANARY)
    wish = plant.get("Deployment", "churn").document()
    wish["spec"]["model"]["version"] = "2"
    (origin / "wish.json").write_bytes(orjson.dumps(wish))
    close(plant, origin)
    outcomes: Counter[str] = Counter()

    def check(folder: Path, ended: Ended) -> None:
        store = server.open_store(folder)
        try:
            fits_together(store, folder, ended)
            with store.read() as tx:
                found = tx.get("Deployment", "default", "churn")
                rows = [
                    row for row in tx.audit(limit=None) if (row.kind, row.verb) == ("Deployment", "update")
                ]
            there = found.spec.model.version == "2"
            assert found.metadata.generation == 1 + there, "half applied"
            assert len(rows) == there, "the audit row and the change are not of one transaction"
            assert there or not ended.acknowledged, "acknowledged and lost"
            outcomes["there" if there else "not there"] += 1
            # The next server takes it from here: one revision, one rollout.
            server.carry_on(
                store, [DeploymentReconciler(store, runtime_wheel=server.WHEEL)],
                lambda: not due(store) or opened(store) == there,
            )  # fmt: skip
            assert opened(store) == there
        finally:
            store.close()

    points = at_every_write("apply", origin, tmp_path, check)
    print(f"apply: {told(points)}; {dict(outcomes)}; acknowledged writes lost: 0, half applied: 0")
    assert points["pwrite64"] > 5
    assert points["fdatasync"] and points["write"], "the commit and its acknowledgement"
    assert outcomes["there"] and outcomes["not there"]


def due(store: Store) -> bool:
    return server.work_left(store, "Deployment")


def opened(store: Store) -> bool:
    """Has the second version its revision and its rollout? Never one without the other."""
    with store.read() as tx:
        revision, rollout = (tx.find(kind, "default", name) for kind, name in SECOND)
    assert (revision is None) == (rollout is None), "a revision without its rollout"
    return rollout is not None


SECOND = (("Revision", "churn-00002"), ("Rollout", "churn-2"))


# A rollout


def test_rollout(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    plant = prepared(origin, "nothing", rollout=CANARY)
    plant.reconcilers.pop("Rollout")
    plant.apply(model={"name": "churn", "version": "2"}, rollout=CANARY)
    plant.settle()
    assert plant.get("Rollout", "churn-2").status.phase == "Pending"
    assert plant.get("Revision", "churn-00002").status.ready_replicas == 1
    close(plant, origin)

    def check(folder: Path, ended: Ended) -> None:
        store = server.open_store(folder)
        try:
            fits_together(store, folder, ended)
            reconcilers = [DeploymentReconciler(store, runtime_wheel=server.WHEEL), RolloutReconciler(store)]
            server.carry_on(store, reconcilers, lambda: is_over(store))
            each_step_once(store)
        finally:
            store.close()

    points = at_every_write("rollout", origin, tmp_path, check)
    print(f"rollout: {told(points)}; stuck: 0, half applied: 0, steps taken twice: 0")
    assert points.total() > 40


def is_over(store: Store) -> bool:
    with store.read() as tx:
        deployment = tx.get("Deployment", "default", "churn")
        rollout = tx.get("Rollout", "default", "churn-2")
    return rollout.status.phase in FINAL_PHASES and deployment.status.rollout is None


def each_step_once(store: Store) -> None:
    with store.read() as tx:
        rollout, deployment = (
            tx.get("Rollout", "default", "churn-2"),
            tx.get("Deployment", "default", "churn"),
        )
        changes = tx.changes(0, kinds=["Rollout"], limit=None)
        audit = Counter(row.verb for row in tx.audit(limit=None) if row.name == "churn-2")
        rollouts, revisions = tx.list("Rollout").items, tx.list("Revision").items
    assert rollout.status.phase == "Promoted", rollout.status.message
    assert [it.decision for it in rollout.status.decisions] == ["start", "advance", "promote"]
    weights = [change.object["status"]["weight"] for change in changes if change.name == "churn-2"]
    assert [weight for weight, _ in itertools.groupby(weights)] == [0, 20, 60, 100]
    assert deployment.status.stable_revision == "churn-00002"
    assert len(rollouts) == len(revisions) == 2
    assert audit == {"rollout.WeightChanged": 2, "rollout.Promoting": 1, "rollout.Promoted": 1, "create": 1}


# A replica's start


@pytest.fixture
def short() -> Iterator[Path]:
    """For sockets, whose paths must be short."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_start_of_a_replica(tmp_path: Path, short: Path, stand_in: Path) -> None:
    origin = tmp_path / "origin"
    close(prepared(origin, "Revision", rollout=CANARY), origin)
    model = tmp_path / "model"
    model.mkdir()
    (model / "behave.json").write_text("{}")
    (tmp_path / "manifest.json").write_text("{}")

    def check(folder: Path, ended: Ended) -> None:
        store = server.open_store(folder)
        try:
            fits_together(store, folder, ended)
            reconciler = server.replicas(store, folder)
            server.carry_on(store, [reconciler], lambda: server.ready(store) == 1)
            until(lambda: processes_of(folder) == {"shim": 1, "replica": 1}, lambda: processes_of(folder))
            with store.read() as tx:
                revision = tx.get("Revision", "default", "churn-00001")
            assert len(revision.status.replicas) == 1, revision.status
            want_none(store)
            server.carry_on(store, [reconciler], lambda: not server.on_record(store))
            until(lambda: not any(processes_of(folder).values()), lambda: processes_of(folder))
        finally:
            end_all(folder)
            store.close()

    given = {"sockets": short, "model": model, "manifest": tmp_path / "manifest.json", "python": stand_in}
    (origin / "replicas.json").write_bytes(orjson.dumps({name: str(path) for name, path in given.items()}))
    points = at_every_write("start", origin, tmp_path, check)
    print(f"start of a replica: {told(points)}; processes left over: 0, started twice: 0")
    assert points.total() > 20
    assert points["vfork"] or points["clone"] or points["clone3"], "between the files and the process"


def want_none(store: Store) -> None:
    with store.write(USER) as tx:
        revision = tx.get("Revision", "default", "churn-00001")
        tx.set_status(revision.uid, revision.status.model_copy(update={"wanted_replicas": 0}))
        tx.wake(revision.uid)


def processes_of(folder: Path) -> dict[str, int]:
    """How many shims and model processes run for the replicas under a folder, orphans included."""
    found = {"shim": 0, "replica": 0}
    for _, arguments in under(folder):
        found["shim"] += any(argument.endswith(b"/spec.json") for argument in arguments)
        found["replica"] += any(argument.endswith(b"/config.json") for argument in arguments)
    return found


def under(folder: Path) -> Iterator[tuple[int, list[bytes]]]:
    start = os.fsencode(folder / "replicas") + b"/"
    for name in os.listdir("/proc"):
        try:
            arguments = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0") if name.isdigit() else []
        except OSError:
            continue
        if any(argument.startswith(start) for argument in arguments):
            yield int(name), arguments


def end_all(folder: Path) -> None:
    """After a failure too, nothing of this test runs on."""
    for pid, _ in under(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def until(what: Callable[[], object], words: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, words()
        time.sleep(0.02)
