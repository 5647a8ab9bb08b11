"""kill -9 of a writing process: what was acknowledged is there, and nothing is half there.

The `crash` tests kill at every single system call that writes, by strace's fault injection; the `chaos` ones at random
moments. They end the process, not the machine: what the kernel was given to write stays.
"""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from podium.resources.kinds import KINDS
from podium.store import Store, selectors, tables
from podium.store.resources import to_row
from tests.chaos.store_writer import prepare
from tests.integration.store.objects import create, deployment
from tests.postgres import postgres_url

__all__ = ["postgres_url"]
WRITER = Path(__file__).with_name("store_writer.py")
AUDITED = {"create", "update", "alias", "delete", "remove"}
# Every way in which SQLite and the acknowledgement reach the kernel.
WRITING = "pwrite64,write,fdatasync,fsync,ftruncate,unlink"


@dataclass
class Outcome:
    """What a writer said before it ended."""

    code: int
    acknowledged: list[dict[str, Any]] = field(default_factory=list)
    stderr: str = ""


def outcome(process: "subprocess.Popen[str]", seconds: float = 60) -> Outcome:
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    finally:
        process.kill()
        process.wait()
    # A line without its end was never an acknowledgement.
    lines = [line for line in stdout.splitlines(keepends=True) if line.endswith("\n")]
    return Outcome(process.returncode, [json.loads(line) for line in lines], stderr)


def start(*command: str, url: str, rounds: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*command, sys.executable, str(WRITER), url, str(rounds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def check(url: str, acknowledged: list[dict[str, Any]]) -> None:
    """Opens the store again, as a restarted server would. Everything that is there must fit together."""
    store = Store.open(url)
    try:
        store.migrate()
        _check_acknowledged(store, acknowledged)
        _check_whole(store)
        before = store.current_version()
        (after,) = create(store, deployment(f"after{before}"))
        assert after.metadata.resource_version == before + 1, "it goes on"
    finally:
        store.close()


def _check_acknowledged(store: Store, acknowledged: list[dict[str, Any]]) -> None:
    with store.read() as snapshot:
        changed = {(change.version, change.uid) for change in snapshot.changes(0, limit=None)}
        removed = {change.uid for change in snapshot.changes(0, limit=None) if change.type == "DELETED"}
        audited = {(row.version, row.uid, row.verb) for row in snapshot.audit(limit=None)}
    for ack in acknowledged:
        if "version" in ack:
            assert (ack["version"], ack["uid"]) in changed, ack
        if ack["verb"] in AUDITED:
            assert (ack["version"], ack["uid"], ack["verb"]) in audited, ack
        if ack["verb"] == "sample":
            assert store.samples(ack["uid"]) or ack["uid"] in removed, ack


def _check_whole(store: Store) -> None:
    """Rows, changes, audit, selectors and work of every object tell the same story."""
    with store.read() as snapshot, store._database.reading() as connection:
        if not store._database.shared:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalars().all() == ["ok"]
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        changes = snapshot.changes(0, limit=None)
        audit = {(row.version, row.uid, row.verb) for row in snapshot.audit(limit=None)}
        found = [item for kind in KINDS for item in snapshot.list(kind).items]
        replayed: dict[str, Any] = {}
        for change in changes:
            if change.type == "DELETED":
                del replayed[change.uid]
                assert (change.version, change.uid, "remove") in audit
            else:
                if change.type == "ADDED":
                    assert change.uid not in replayed
                    assert (change.version, change.uid, "create") in audit
                replayed[change.uid] = change.object
        assert replayed == {item.metadata.uid: item.document() for item in found}
        versions = {change.version for change in changes} | {version for version, _, _ in audit}
        assert versions == set(range(1, snapshot.version + 1)), "no commit is missing, none is there in part"
        assert {(version, uid) for version, uid, _ in audit} <= {
            (change.version, change.uid) for change in changes
        }
        wanted = {
            (item.metadata.uid, source, path, value)
            for item in found
            for (source, path), value in selectors.entries(KINDS[item.kind], to_row(item)).items()
        }
        assert {tuple(row) for row in connection.execute(select(tables.selectors))} == wanted
        worked_on = {item.metadata.uid for item in found if KINDS[item.kind].reconciled}
        assert set(connection.execute(select(tables.work.c.uid)).scalars()) == worked_on
        assert set(connection.execute(select(tables.samples.c.rollout_uid)).scalars()) <= worked_on


# At random moments


@pytest.mark.chaos
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("database", "kills"), [("sqlite", 20), ("postgres", 8)])
def test_killed_at_random_moments(
    request: pytest.FixtureRequest, tmp_path: Path, database: str, kills: int
) -> None:
    url = f"sqlite:///{tmp_path / 'podium.db'}"
    if database == "postgres":
        url = request.getfixturevalue("postgres_url")
    prepare(url)
    moments = random.Random(20)
    acknowledged: list[dict[str, Any]] = []
    for _ in range(kills):
        process = start(url=url, rounds=0)
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            deadline = time.monotonic() + moments.uniform(0, 0.25)
            heard = []
            while time.monotonic() < deadline:
                heard.append(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGKILL)
        ended = outcome(process)
        assert ended.code == -signal.SIGKILL, ended.stderr
        acknowledged += [json.loads(line) for line in (first, *heard)] + ended.acknowledged
        check(url, acknowledged)
    assert len(acknowledged) > 3 * kills, "it was killed while it worked"


# At every system call that writes


def prepared(folder: Path) -> Path:
    """A database to copy: each run starts from the same bytes."""
    path = folder / "start" / "podium.db"
    path.parent.mkdir()
    prepare(f"sqlite:///{path}")
    assert [it.name for it in path.parent.iterdir()] == ["podium.db"], "closing folds the WAL in"
    return path


def injected(origin: Path, folder: Path, calls: str, fault: str) -> tuple[str, Outcome]:
    """One run of the writer, one round, with a fault put in by strace."""
    folder.mkdir()
    path = folder / "podium.db"
    shutil.copy(origin, path)
    url = f"sqlite:///{path}"
    strace = (
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:{fault}",
    )
    return url, outcome(start(*strace, url=url, rounds=1))


def counted(origin: Path, folder: Path, call: str) -> int:
    """How often one round of the writer makes this system call."""
    folder.mkdir()
    shutil.copy(origin, folder / "podium.db")
    log = folder / "strace"
    strace = ("strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}")
    ended = outcome(start(*strace, url=f"sqlite:///{folder / 'podium.db'}", rounds=1))
    assert ended.code == 0, ended.stderr
    return sum(f" {call}(" in line for line in log.read_text().splitlines())


@pytest.mark.crash
@pytest.mark.timeout(900)
def test_killed_at_every_write(tmp_path: Path) -> None:
    origin = prepared(tmp_path)
    points = 0

    def kill_at(number: int) -> bool:
        """False when the writer was done before its `number`th write."""
        url, ended = injected(origin, tmp_path / str(number), WRITING, f"signal=SIGKILL:when={number}")
        assert ended.code in (0, -signal.SIGKILL, 128 + signal.SIGKILL), ended.stderr
        check(url, ended.acknowledged)
        shutil.rmtree(tmp_path / str(number))
        return ended.code != 0

    with ThreadPoolExecutor(2) as pool:
        for first in itertools.count(1, 8):
            killed = list(pool.map(kill_at, range(first, first + 8)))
            points += sum(killed)
            if not all(killed):
                break
    print(f"kill points: {points}, acknowledged writes lost: 0, stores half written: 0")
    assert points > 50


@pytest.mark.crash
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("call", "error"),
    [("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("fdatasync", "EIO"), ("ftruncate", "EIO")],
)
def test_a_disk_that_fails_from_some_write_on(tmp_path: Path, call: str, error: str) -> None:
    origin = prepared(tmp_path)
    # How often a run without a fault makes the call; the last few belong to closing, and nobody is told of them.
    total = counted(origin, tmp_path / "clean", call)
    points = sorted({1 + total * part // 15 for part in range(15)})

    def fail_from(number: int) -> bool:
        url, ended = injected(origin, tmp_path / str(number), call, f"error={error}:when={number}+")
        assert ended.code in (0, 3), ended.stderr
        acknowledged = [ack for ack in ended.acknowledged if ack["verb"] != "refused"]
        check(url, acknowledged)
        return len(acknowledged) < len(ended.acknowledged)

    with ThreadPoolExecutor(2) as pool:
        refused = list(pool.map(fail_from, points))
    print(
        f"{call} {error}: {sum(refused)} of {len(points)} runs refused in words, acknowledged writes lost: 0"
    )
    if call != "ftruncate":  # of which a run makes hardly any
        assert refused[0]
        assert sum(refused) >= len(points) // 2
