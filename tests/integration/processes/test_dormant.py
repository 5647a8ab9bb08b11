"""Programs that start with the first connection to their socket: who waits is answered, whatever happens meanwhile."""

import contextlib
import os
import re
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podium.processes import is_alive, send_signal
from podium.processes.supervision import Dormant, Observed, Program, launch, observe, prepare, read_log, stop

from .conftest import Boxes, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="confined processes need Linux"),
]
ECHO = """
import os, pathlib, signal, socket, sys, threading, time
tries = pathlib.Path("tries")
count = len(tries.read_text()) + 1 if tries.exists() else 1
tries.write_text("x" * count)
{before}
listener = socket.socket(fileno=3)
print("accepting", flush=True)
def drain(*_):
    print("draining", flush=True)
    listener.close()
    while threading.active_count() > 1:
        time.sleep(0.01)
    os._exit(0)
signal.signal(signal.SIGTERM, drain)
def answer(connection):
    with connection:
        size = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
        left = size if size < 10**9 else 0
        while left:
            left -= len(connection.recv(min(left, 65536)))
        connection.sendall(b"start %d, %d bytes" % (count, size))
while True:
    threading.Thread(target=answer, args=(listener.accept()[0],)).start()
"""
MIB = 2**20


class Sleeper:
    """A dormant echo; `before` is what its program does before it accepts."""

    def __init__(self, boxes: Boxes, short: Path, before: str = "", **dormant: object) -> None:
        self.folder, self.path = boxes.folder(), short / "s"
        settings = Dormant(**({"start_timeout": 30.0} | dormant))  # type: ignore[arg-type]
        code = ECHO.replace("{before}", before)
        program = boxes.program(["-c", code], self.folder, socket=self.path, dormant=settings)
        prepare(self.folder, program)
        launch(self.folder)

    def seen(self) -> Observed:
        found = observe(self.folder)
        assert found is not None
        return found

    def reaches(self, phase: str) -> Observed:
        until(lambda: self.seen().phase == phase, 30)
        return self.seen()

    def ask(self, size: int = 10) -> str:
        """What it answers; empty where the connection is cut."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(self.path))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(size.to_bytes(4, "big") + b"x" * size)
                return client.recv(100).decode()
            return ""


def test_it_sleeps_until_somebody_connects(boxes: Boxes, short: Path) -> None:
    sleeper = Sleeper(boxes, short)
    asleep = sleeper.seen()
    assert (asleep.phase, asleep.pid, asleep.woken) == ("dormant", None, False)
    assert sleeper.ask() == "start 1, 10 bytes"
    awake = sleeper.reaches("running")
    assert (awake.shim, awake.woken) == (asleep.shim, True)
    assert awake.pid is not None
    assert awake.started_at > asleep.started_at, "its time counts from the request that woke it"
    stop(sleeper.folder, 10)
    ended = boxes.ended(sleeper.folder)
    assert (ended.exit_code, ended.reason, ended.woken) == (0, "stopped", True)


def test_many_at_once_with_large_bodies_are_one_start(boxes: Boxes, short: Path) -> None:
    sleeper = Sleeper(boxes, short, before="time.sleep(0.5)")
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(sleeper.ask, [2 * MIB if n % 3 == 0 else 10 for n in range(60)]))
    assert set(answers) == {"start 1, 10 bytes", f"start 1, {2 * MIB} bytes"}


def test_while_it_sleeps_it_is_small(boxes: Boxes, short: Path) -> None:
    sleeper = Sleeper(boxes, short)
    status = Path(f"/proc/{sleeper.seen().shim.pid}/status").read_text()
    own = sum(int(kib) for kib in re.findall(r"(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB", status))
    # Under half of it is the interpreter itself; the pages of files are shared by all of them.
    assert own < 10 * 1024, f"{own} KiB"


@pytest.mark.parametrize("death", ["os._exit(4)", "os.kill(os.getpid(), signal.SIGSEGV)"])
def test_the_next_start_takes_over_who_waits(boxes: Boxes, short: Path, death: str) -> None:
    sleeper = Sleeper(boxes, short, before=f"if count < 3: {death}")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(sleeper.ask, [10] * 8))
    assert answers == ["start 3, 10 bytes"] * 8
    sleeper.reaches("running")
    said = [line for line in read_log(sleeper.folder, 50) if "for requests that wait" in line]
    assert ["start 1 of 3" in said[0], "start 2 of 3" in said[1], len(said)] == [True, True, 2]


def test_when_no_start_comes_out_right_who_waits_is_told_and_the_reason_is_kept(
    boxes: Boxes, short: Path
) -> None:
    sleeper = Sleeper(boxes, short, before="sys.exit(4)")
    assert sleeper.ask() == ""
    ended = boxes.ended(sleeper.folder)
    assert (ended.exit_code, ended.woken) == (4, True)
    assert ended.reason == "start 3 of 3 for requests that wait: ended with exit code 4"
    assert not sleeper.path.exists()


def test_some_ends_are_final(boxes: Boxes, short: Path) -> None:
    sleeper = Sleeper(boxes, short, before="sys.exit(3)", final=(3,))
    assert sleeper.ask() == ""
    assert boxes.ended(sleeper.folder).reason.startswith("start 1 of 3")


def test_one_that_accepts_nobody_in_time_is_ended(boxes: Boxes, short: Path) -> None:
    sleeper = Sleeper(boxes, short, before="time.sleep(600)", start_timeout=1.0)
    assert sleeper.ask() == ""
    assert "accepted no request within its startup timeout of 1 s" in boxes.ended(sleeper.folder).reason


def test_one_that_takes_those_who_wait_one_by_one_is_seen_to_accept(boxes: Boxes, short: Path) -> None:
    """Not only when the last one is taken, which may be long after its startup timeout."""
    before = (
        "gate = pathlib.Path('gate')\n"
        "held = [socket.socket(fileno=os.dup(3)).accept()[0] for _ in range(2)]\n"
        "for one in held: one.sendall(b'x')\n"
        "while not gate.exists(): time.sleep(0.01)"
    )
    sleeper = Sleeper(boxes, short, before=before, start_timeout=30.0)
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(sleeper.ask)]
        sleeper.reaches("waking")
        answers += [pool.submit(sleeper.ask) for _ in range(19)]
        sleeper.reaches("running")
        (sleeper.folder / "tmp" / "gate").touch()
        said = [one.result(30) for one in answers]
    assert set(said) == {"x", "start 1, 10 bytes"}
    assert said.count("start 1, 10 bytes") >= 18


def test_one_that_dies_with_whom_it_has_just_accepted_is_started_again(boxes: Boxes, short: Path) -> None:
    """That one is lost here (a gateway asks again), and who comes next is answered."""
    sleeper = Sleeper(boxes, short, before="if count == 1: socket.socket(fileno=3).accept(); os._exit(1)")
    assert sleeper.ask() == ""
    assert sleeper.ask() == "start 2, 10 bytes"
    assert sleeper.reaches("running").woken


def test_it_ends_at_once_while_it_sleeps(boxes: Boxes, short: Path) -> None:
    sleeper = Sleeper(boxes, short)
    stop(sleeper.folder, 600)
    ended = boxes.ended(sleeper.folder)
    assert (ended.exit_code, ended.reason) == (None, "stopped before a request woke it")
    with pytest.raises(OSError):
        sleeper.ask()


def test_who_waits_is_answered_before_it_ends(boxes: Boxes, short: Path) -> None:
    """Asked to stop while it starts: no request that came first is given up."""
    sleeper = Sleeper(boxes, short, before="print('begins', flush=True); time.sleep(1)")
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(sleeper.ask()))
    asking.start()
    until(lambda: "begins" in read_log(sleeper.folder, 10))
    stop(sleeper.folder, 30)
    asking.join(30)
    assert answers == ["start 1, 10 bytes"]
    ended = boxes.ended(sleeper.folder)
    assert (ended.exit_code, ended.reason) == (0, "stopped")


def test_a_start_that_is_not_wanted_any_more_is_cut_short(boxes: Boxes, short: Path) -> None:
    sleeper = Sleeper(boxes, short, before="time.sleep(600)")
    asking = threading.Thread(target=sleeper.ask)
    asking.start()
    sleeper.reaches("waking")
    stop(sleeper.folder, 0)
    boxes.ended(sleeper.folder)
    asking.join(30)
    assert not asking.is_alive()


def test_whoever_kills_a_sleeping_shim_is_seen(boxes: Boxes, short: Path) -> None:
    sleeper = Sleeper(boxes, short)
    assert send_signal(sleeper.seen().shim, 9)
    ended = boxes.ended(sleeper.folder)
    assert (ended.woken, is_alive(ended.shim)) == (False, False)


def test_it_needs_a_socket(boxes: Boxes, tmp_path: Path) -> None:
    program: Program = boxes.program(["-c", ""], tmp_path / "r", dormant=Dormant(start_timeout=1.0))
    with pytest.raises(ValueError, match="needs a socket"):
        prepare(tmp_path / "r", program)
    assert not os.path.exists(tmp_path / "r")
