"""Replicas as processes: started, found again, stopped, forgotten; by this target object or by another one later."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podium.processes import send_signal
from podium.processes.shim import landlock
from podium.processes.supervision import observe, prepare
from podium.resources.deployment import ResourceLimits, RuntimeSettings, SandboxSettings
from podium.resources.errors import Conflict, InvalidInput, NotFound, Refused, Unavailable
from podium.targets.process import ProcessTarget
from podium.targets.process.programs import program

from .conftest import Yard, get, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="replicas as processes need Linux"),
]
LEVEL = "full" if landlock.abi() >= 4 else "files" if landlock.abi() else "none"


def test_a_replica_starts_becomes_ready_drains_and_is_forgotten(yard: Yard) -> None:
    target = yard.target()
    started = target.start(yard.wish())
    assert (started.phase, started.name, started.revision_uid) == ("Starting", "churn-00001-1", "uid-1")
    ready = yard.reaches(target, "Ready")
    assert ready.sandbox == LEVEL
    answer = get(ready.address, "/identity")
    assert answer["pid"] == ready.pid
    assert answer["served"] == {
        "name": "churn",
        "version": "1",
        "workspace": "default",
        "revision": "churn-00001",
    }
    target.stop("churn-00001-1", 5)
    ended = yard.reaches(target, "Exited")
    assert ended.exit_code == 0
    assert ended.log_tail[-1] == "stopped"
    assert any("draining" in line for line in target.logs("churn-00001-1", 10))
    target.forget("churn-00001-1")
    assert target.observe("uid-1") == []
    assert list(yard.root.iterdir()) == list(yard.sockets.iterdir()) == []
    target.forget("churn-00001-1")
    target.stop("churn-00001-1", 5)


def test_starting_is_idempotent(yard: Yard) -> None:
    target = yard.target()
    target.start(yard.wish())
    ready = yard.reaches(target, "Ready")
    again = target.start(yard.wish())
    assert (again.phase, again.pid) == ("Ready", ready.pid)
    with ThreadPoolExecutor(4) as pool:
        pids = {one.result().pid for one in [pool.submit(yard.target().start, yard.wish()) for _ in range(4)]}
    assert pids == {ready.pid}


def test_a_restarted_server_finds_its_replicas_again(yard: Yard) -> None:
    """The server is another process, and is killed right after the start."""
    code = (
        "import os, pickle, sys\n"
        "from podium.targets.process import ProcessTarget\n"
        "from pathlib import Path\n"
        "target = ProcessTarget(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "target.start(pickle.loads(bytes.fromhex(sys.argv[3])))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    arguments = [str(yard.root), str(yard.sockets), pickle.dumps(yard.wish()).hex()]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    target = yard.target()
    ready = yard.reaches(target, "Ready")
    assert get(ready.address, "/identity")["pid"] == ready.pid
    ended = threading.Event()
    target.watch(lambda uid: ended.set() if uid == "uid-1" else None)
    target.observe("uid-1")
    yard.target().stop("churn-00001-1", 5)
    assert ended.wait(20), "the adopted replica's end is told"
    yard.reaches(target, "Exited")


def test_processor_times_grow_with_the_work_of_those_that_run(yard: Yard) -> None:
    target = yard.target()
    assert target.processor_times("uid-1") == {}
    target.start(yard.wish())
    ready = yard.reaches(target, "Ready")
    assert target.processors >= 1
    before = target.processor_times("uid-1")["churn-00001-1"]
    assert before > 0, "its start took some"

    def works() -> bool:
        for _ in range(20):
            get(ready.address, "/identity")
        return yard.target().processor_times("uid-1")["churn-00001-1"] > before + 0.1

    until(works, 60)
    target.stop("churn-00001-1", 5)
    yard.reaches(target, "Exited")
    assert target.processor_times("uid-1") == {}


@pytest.mark.parametrize("made", ["nothing", "folder", "wish", "spec"])
def test_a_server_that_died_in_the_middle_of_a_start(yard: Yard, made: str) -> None:
    """At any line between the first file and the process there is no orphan, and starting again goes on."""
    target, wish = yard.target(), yard.wish()
    folder = yard.root / "uid-1" / wish.name
    if made != "nothing":
        folder.mkdir(parents=True)
    if made in ("wish", "spec"):
        (folder / "replica.json").write_text(json.dumps({"socket": "/elsewhere", "startup_timeout": 1}))
    if made == "spec":
        prepare(folder, program(wish, folder, yard.sockets / "x", (), {}))
    assert yard.target().observe("uid-1") == []
    target.start(wish)
    yard.reaches(target, "Ready")


def test_what_a_dead_starter_left_is_removed_after_a_while(yard: Yard) -> None:
    target = yard.target()
    for name in ("old", "new"):
        (yard.root / "uid-1" / name).mkdir(parents=True)
        (yard.root / "uid-1" / name / "replica.json").write_text("")
    long_ago = time.time() - 3600
    os.utime(yard.root / "uid-1" / "old", (long_ago, long_ago))
    assert target.observe("uid-1") == []
    assert [folder.name for folder in (yard.root / "uid-1").iterdir()] == ["new"]


def test_a_crash_says_how_and_with_which_words(yard: Yard) -> None:
    yard.behave(crash="the model file is cut off")
    target = yard.target()
    target.start(yard.wish())
    ended = yard.reaches(target, "Exited")
    assert ended.exit_code == 1
    assert list(ended.log_tail)[-2:] == ["the model file is cut off", "ended with exit code 1"]
    assert target.start(yard.wish()).phase == "Exited", "the same replica is never started twice"


def test_one_that_is_not_ready_in_time_is_ended(yard: Yard) -> None:
    yard.behave(ready_after=3600)
    target = yard.target()
    target.start(yard.wish(runtime=RuntimeSettings(startup_timeout=1)))
    ended = yard.reaches(target, "Exited")
    assert "not ready within its startup timeout of 1 s" in ended.log_tail[-1]


def test_a_busy_replica_stays_ready(yard: Yard) -> None:
    target = yard.target()
    target.start(yard.wish())
    yard.reaches(target, "Ready")
    (yard.model / "busy").touch()
    assert target.observe("uid-1")[0].phase == "Ready"
    assert yard.target().observe("uid-1")[0].phase == "Ready", "another server knows that it was"


def test_a_killed_shim_is_an_exit_and_takes_the_replica_along(yard: Yard) -> None:
    target = yard.target()
    told: list[str] = []
    target.watch(told.append)
    target.start(yard.wish())
    ready = yard.reaches(target, "Ready")
    seen = observe(yard.root / "uid-1" / "churn-00001-1")
    assert seen is not None
    send_signal(seen.shim, signal.SIGKILL)
    ended = yard.reaches(target, "Exited")
    assert "shim was killed" in ended.log_tail[-1]
    until(lambda: set(told) == {"uid-1"})
    # The kernel kills it when its shim ends: at once, but in its own time.
    until(lambda: not accepts(ready.address))
    target.forget("churn-00001-1")
    assert list(yard.sockets.iterdir()) == []


def accepts(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(address.removeprefix("unix:"))
        except ConnectionRefusedError:
            return False
    return True


def test_the_end_of_a_replica_is_told_at_once(yard: Yard) -> None:
    target = yard.target()
    told = threading.Event()
    target.watch(lambda _: told.set())
    target.start(yard.wish())
    ready = yard.reaches(target, "Ready")
    os.kill(ready.pid or 0, signal.SIGKILL)
    assert told.wait(10)
    ended = yard.reaches(target, "Exited")
    assert ended.exit_code == -signal.SIGKILL


def test_a_stubborn_replica_is_killed_when_the_grace_is_cut_short(yard: Yard) -> None:
    yard.behave(stubborn=True)
    target = yard.target()
    target.start(yard.wish())
    yard.reaches(target, "Ready")
    target.stop("churn-00001-1", 3600)
    assert yard.reaches(target, "Draining").exit_code is None
    target.stop("churn-00001-1", 0)
    assert yard.reaches(target, "Exited").exit_code == -signal.SIGKILL


def test_the_same_name_in_two_workspaces_is_two_replicas(yard: Yard) -> None:
    target = yard.target()
    target.start(yard.wish(uid="uid-1", workspace="one"))
    target.start(yard.wish(uid="uid-2", workspace="two"))
    one, two = yard.reaches(target, "Ready", "uid-1"), yard.reaches(target, "Ready", "uid-2")
    assert one.address != two.address
    assert get(two.address, "/identity")["served"]["workspace"] == "two"
    for call in (lambda: target.stop("churn-00001-1", 0), lambda: target.logs("churn-00001-1", 5)):
        with pytest.raises(Conflict, match="2 replicas"):
            call()
    target.stop("churn-00001-1", 5, revision_uid="uid-2")
    yard.reaches(target, "Exited", "uid-2")
    assert target.observe("uid-1")[0].phase == "Ready"
    target.forget("churn-00001-1", revision_uid="uid-2")
    assert {one.revision_uid for one in target.observe_all()} == {"uid-1"}
    target.stop("churn-00001-1", 5)


def test_a_running_replica_is_not_forgotten(yard: Yard) -> None:
    target = yard.target()
    target.start(yard.wish())
    yard.reaches(target, "Ready")
    target.forget("churn-00001-1")
    assert target.observe("uid-1")[0].phase == "Ready"


def test_pinned_replicas_share_no_processor_while_others_are_free(yard: Yard) -> None:
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        pytest.skip("needs two processors")
    target = yard.target()
    limits = ResourceLimits(memory=2**30, cpus=1, pin_cpus=True)
    target.start(yard.wish(uid="uid-1", resources=limits))
    target.start(yard.wish(uid="uid-2", resources=limits))
    bound = [
        get(yard.reaches(target, "Ready", uid).address, "/identity")["cpus"] for uid in ("uid-1", "uid-2")
    ]
    assert bound == [[available[0]], [available[1]]]


def test_a_sandbox_that_cannot_be_reached_is_an_exit_with_its_reason(yard: Yard) -> None:
    if LEVEL == "full":
        target = yard.target()
        target.start(yard.wish(sandbox=SandboxSettings(require="full")))
        assert yard.reaches(target, "Ready").sandbox == "full"
    else:
        target = yard.target()
        target.start(yard.wish(sandbox=SandboxSettings(require="full")))
        assert "sandbox level full is required" in yard.reaches(target, "Exited").log_tail[-1]


def test_an_environment_that_is_gone_is_an_error_that_can_be_retried(yard: Yard) -> None:
    target = yard.target()
    python, yard.python = yard.python, yard.root / "no" / "bin" / "python"
    with pytest.raises(Unavailable, match="environment"):
        target.start(yard.wish())
    yard.python = python
    target.start(yard.wish())
    yard.reaches(target, "Ready")


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".", "..", "x" * 300, "a\x00b", "-rf"])
def test_names_lead_nowhere_else(yard: Yard, name: str) -> None:
    target = yard.target()
    with pytest.raises(InvalidInput):
        target.start(yard.wish(name=name))
    with pytest.raises(InvalidInput):
        target.start(yard.wish(uid=name))
    with pytest.raises(NotFound):
        target.logs(name, 5)
    target.stop(name, 0)
    target.forget(name)
    assert list(yard.root.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a folder of somebody else's")
def test_a_sockets_folder_of_somebody_else_is_refused(yard: Yard) -> None:
    yard.sockets.mkdir(mode=0o777)
    os.chown(yard.sockets, 65534, 65534)
    with pytest.raises(Refused, match="belongs to the user"):
        yard.target()


def test_the_sockets_folder_is_closed_to_others(yard: Yard) -> None:
    yard.sockets.mkdir()
    yard.sockets.chmod(0o777)
    yard.target()
    assert yard.sockets.stat().st_mode & 0o777 == 0o700


def test_a_sockets_folder_that_is_too_deep_is_an_error(yard: Yard, tmp_path: Path) -> None:
    target = ProcessTarget(yard.root, tmp_path / ("x" * 90))
    with pytest.raises(Refused, match="107 bytes"):
        target.start(yard.wish())
    target.close()
