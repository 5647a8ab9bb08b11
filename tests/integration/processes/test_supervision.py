"""A confined process from start to end, and what is found of it by whoever comes later. Real shims, real signals."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podium.processes import is_alive, send_signal, wait_exit
from podium.processes import shim as shim_package
from podium.processes.supervision import (
    Observed,
    _carriers,
    kill_left_over,
    launch,
    observe,
    prepare,
    read_log,
    remove,
    run_once,
    stop,
)
from podium.resources.errors import IntegrityError, Refused, Unavailable

from .conftest import PYTHON, Boxes, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="confined processes need Linux"),
]
SHIM = Path(shim_package.__file__ or "").parent
WAITS = "import signal; print('up', flush=True); signal.pause()"
DRAINS = (
    "import signal, sys, time\n"
    "def end(*_): print('draining', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end); print('up', flush=True)\n"
    "while True: signal.pause()\n"
)
STUBBORN = (
    "import signal\nsignal.signal(15, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
)


def running(folder: Path, line: str = "up") -> Observed:
    until(lambda: line in read_log(folder, 100))
    seen = observe(folder)
    assert seen is not None
    assert seen.phase == "running"
    assert seen.pid is not None
    return seen


def gone(pid: int) -> bool:
    try:
        return b") Z" in Path(f"/proc/{pid}/stat").read_bytes()
    # ProcessLookupError: it went between the opening and the reading.
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_sigterm_drains(boxes: Boxes) -> None:
    folder = boxes.start(DRAINS)
    running(folder)
    stop(folder, grace=20)
    ended = boxes.ended(folder)
    assert (ended.exit_code, ended.reason) == (0, "stopped")
    assert list(ended.log_tail) == ["up", "draining"]


def test_one_that_does_not_listen_is_killed_after_the_grace_and_the_grace_can_be_cut_short(
    boxes: Boxes,
) -> None:
    folder = boxes.start(STUBBORN)
    seen = running(folder)
    stop(folder, grace=3600)
    until(lambda: (now := observe(folder)) is not None and now.phase == "stopping")
    assert is_alive(seen.shim)
    stop(folder, grace=0.1)
    ended = boxes.ended(folder)
    assert ended.exit_code == -signal.SIGKILL
    assert "grace" in ended.reason


def test_a_crash_is_kept_with_its_last_words(boxes: Boxes) -> None:
    folder = boxes.start("import sys; print('a clue', file=sys.stderr); raise RuntimeError('no such column')")
    ended = boxes.ended(folder)
    assert ended.exit_code == 1
    assert ended.reason == "ended with exit code 1"
    assert "a clue" in ended.log_tail
    assert ended.log_tail[-1] == "RuntimeError: no such column"
    assert (folder / "shim.log").read_text() == ""


def test_a_crash_by_signal_is_named(boxes: Boxes) -> None:
    ended = boxes.ended(boxes.start("import os; os.abort()"))
    assert ended.exit_code == -signal.SIGABRT
    assert "SIGABRT" in ended.reason


def test_whoever_kills_the_shim_kills_the_replica(boxes: Boxes) -> None:
    folder = boxes.start(STUBBORN)
    seen = running(folder)
    assert seen.pid is not None
    assert send_signal(seen.shim, signal.SIGKILL)
    until(lambda: gone(seen.pid or 0))
    ended = observe(folder)
    assert ended is not None
    assert ended.phase == "exited"
    assert "shim was killed" in ended.reason
    assert list(ended.log_tail) == ["up"]


def test_nothing_that_a_replica_started_survives_it(boxes: Boxes) -> None:
    """Also not what forked twice and left its session. Two write to one log: each line in one piece."""
    code = (
        "import os, signal, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0: os.write(1, b'escaped %d\\n' % os.getpid()); signal.pause()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "sys.stdin.read(); os.write(1, b'up\\n'); signal.pause()\n"
    )
    folder = boxes.start(code)
    running(folder)
    until(lambda: any(line.startswith("escaped") for line in read_log(folder, 10)))
    escaped = next(int(line.split()[1]) for line in read_log(folder, 10) if line.startswith("escaped"))
    assert not gone(escaped)
    stop(folder, grace=5)
    boxes.ended(folder)
    until(lambda: gone(escaped))


def test_what_a_killed_shim_left_behind_is_found_by_its_token(boxes: Boxes) -> None:
    code = (
        "import os, signal\nif os.fork() == 0:\n    os.setsid(); print('up'); signal.pause()\nsignal.pause()"
    )
    folder = boxes.start(code)
    seen = running(folder)
    send_signal(seen.shim, signal.SIGKILL)
    wait_exit(seen.shim, 10)
    until(lambda: gone(seen.pid or 0))
    assert kill_left_over(seen.shim.token) == 1
    until(lambda: kill_left_over(seen.shim.token) == 0)


def test_what_becomes_another_program_again_and_again_is_found_too(boxes: Boxes) -> None:
    """In the middle of an exec a process shows no environment; long arguments make that moment last."""
    code = (
        "import os, signal, sys\n"
        "again = [sys.executable, '-I', '-S', '-c', 'import os, sys; os.execv(sys.orig_argv[0], sys.orig_argv)']\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); print('up'); os.execv(sys.executable, [*again, *['x' * 100_000] * 10])\n"
        "signal.pause()"
    )
    folder = boxes.start(code)
    seen = running(folder)
    send_signal(seen.shim, signal.SIGKILL)
    wait_exit(seen.shim, 10)
    until(lambda: gone(seen.pid or 0))
    (left,) = set(_carriers(seen.shim.token))
    for _ in range(10_000):
        assert list(_carriers(seen.shim.token, only=left)) == [left]
    assert kill_left_over(seen.shim.token) == 1
    until(lambda: kill_left_over(seen.shim.token) == 0)


def test_over_its_memory_limit_it_is_ended_with_clear_words(boxes: Boxes) -> None:
    code = (
        "import time\n"
        "held = []\n"
        "for _ in range(300): held.append(bytearray(b'x' * 2**20)); time.sleep(0.005)\n"
        "print('kept')"
    )
    folder = boxes.start(code, limits={"memory": 100 * 2**20})
    ended = boxes.ended(folder, 60)
    assert ended.exit_code == -signal.SIGKILL
    assert "over its memory limit of 100 MiB" in ended.reason
    assert "over its memory limit" in ended.log_tail[-1]


def test_memory_of_its_children_counts(boxes: Boxes) -> None:
    code = (
        "import os, signal\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0: held = bytearray(b'x' * (40 * 2**20)); signal.pause()\n"
        "signal.pause()\n"
    )
    ended = boxes.ended(boxes.start(code, limits={"memory": 100 * 2**20}), 60)
    assert "over its memory limit" in ended.reason


def test_a_runaway_allocation_fails_inside_instead_of_taking_the_machine(boxes: Boxes) -> None:
    code = "try: bytearray(8 * 2**30)\nexcept MemoryError: print('refused')"
    ended = boxes.ended(boxes.start(code, limits={"memory": 2**28}))
    assert list(ended.log_tail) == ["refused"]


def test_logs_are_rotated_by_the_shim(boxes: Boxes) -> None:
    code = "for n in range(4000): print(f'{n:06d}', 'x' * 93)"
    folder = boxes.start(code, log_bytes=50_000, log_files=2)
    boxes.ended(folder)
    sizes = {path.name: path.stat().st_size for path in folder.glob("log*")}
    assert set(sizes) == {"log", "log.1", "log.2"}
    assert all(size <= 50_000 + 65_536 for size in sizes.values())
    lines = read_log(folder, 600)
    assert [int(line.split()[0]) for line in lines] == list(range(3400, 4000))
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.glob("log*"))


def test_the_listening_socket_is_handed_over(boxes: Boxes, short: Path) -> None:
    code = "import socket\ns = socket.socket(fileno=3)\nprint('up')\nc, _ = s.accept(); c.sendall(b'hello'); c.close()"
    path = short / "r.sock"
    folder = boxes.start(code, socket=path)
    running(folder)
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert client.recv(10) == b"hello"
    boxes.ended(folder)
    assert not path.exists()


def test_a_dead_replica_refuses_connections_at_once(boxes: Boxes, short: Path) -> None:
    path = short / "r.sock"
    folder = boxes.start(STUBBORN, socket=path)
    seen = running(folder)
    send_signal(seen.shim, signal.SIGKILL)
    until(lambda: gone(seen.pid or 0))
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(path))


def test_a_socket_path_that_is_too_long_is_refused(boxes: Boxes, tmp_path: Path) -> None:
    folder = boxes.folder()
    with pytest.raises(Refused, match="107 bytes"):
        prepare(folder, boxes.program(["-c", WAITS], folder, socket=tmp_path / ("x" * 100)))
    assert not folder.exists()


def test_launching_again_finds_the_same_process(boxes: Boxes) -> None:
    folder = boxes.start(WAITS)
    seen = running(folder)
    again = launch(folder)
    assert (again.shim, again.pid) == (seen.shim, seen.pid)


def test_many_launches_at_once_start_it_once(boxes: Boxes) -> None:
    folder = boxes.folder()
    prepare(folder, boxes.program(["-c", WAITS], folder))
    ready = threading.Barrier(6)

    def start() -> int:
        ready.wait()
        for _ in range(50):
            try:
                return launch(folder).shim.pid
            except Unavailable:
                continue
        raise AssertionError("never came up")

    with ThreadPoolExecutor(6) as pool:
        pids = {one.result() for one in [pool.submit(start) for _ in range(6)]}
    assert len(pids) == 1
    running(folder)
    assert read_log(folder, 10) == ["up"]


@pytest.mark.parametrize("made", ["folder", "lock", "spec"])
def test_a_start_that_died_in_the_middle_is_repaired_by_starting_again(boxes: Boxes, made: str) -> None:
    folder = boxes.folder()
    program = boxes.program(["-c", WAITS], folder)
    if made == "folder":
        (folder / "tmp").mkdir(parents=True)
    else:
        prepare(folder, program)
        if made == "lock":
            (folder / "spec.json").unlink()
    assert observe(folder) is None
    prepare(folder, program)
    launch(folder)
    running(folder)


def test_what_has_ended_is_not_started_again(boxes: Boxes) -> None:
    folder = boxes.start("print('once')")
    boxes.ended(folder)
    assert launch(folder).phase == "exited"
    direct = subprocess.run(
        [PYTHON, "-I", "-S", SHIM, folder / "spec.json"],
        env={"PODIUM_PROCESS_TOKEN": "t"},
        check=False,
        timeout=20,
    )
    assert direct.returncode == 76
    assert read_log(folder, 10) == ["once"]


def test_stopped_before_its_start_it_never_starts(boxes: Boxes) -> None:
    folder = boxes.folder()
    prepare(folder, boxes.program(["-c", "print('ran')"], folder))
    stop(folder, grace=1)
    launch(folder)
    ended = boxes.ended(folder)
    assert ended.reason == "stopped before it was started"
    assert (ended.exit_code, read_log(folder, 10)) == (None, [])


def test_a_reused_pid_is_not_trusted(boxes: Boxes) -> None:
    """The state names a pid that another process has by now: nothing happens to that one."""
    folder = boxes.start(DRAINS)
    seen = running(folder)
    stranger = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"])
    try:
        state = json.loads((folder / "state.json").read_bytes())
        state["shim"]["pid"] = stranger.pid
        (folder / "state.json").write_text(json.dumps(state))
        ended = observe(folder)
        assert ended is not None
        assert ended.phase == "exited"
        stop(folder, grace=0)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        send_signal(seen.shim, signal.SIGKILL)


def test_removing_waits_for_the_end(boxes: Boxes) -> None:
    folder = boxes.start(WAITS)
    seen = running(folder)
    with pytest.raises(Refused, match="still runs"):
        remove(folder)
    stop(folder, grace=5)
    wait_exit(seen.shim, 20)
    remove(folder)
    assert not folder.exists()
    remove(folder)


def test_a_shim_whose_folder_was_removed_does_nothing(boxes: Boxes) -> None:
    folder = boxes.folder()
    prepare(folder, boxes.program(["-c", "print('ran')"], folder))
    remove(folder)
    done = subprocess.run([PYTHON, "-I", "-S", SHIM, folder / "spec.json"], env={}, check=False, timeout=20)
    assert done.returncode == 75
    assert not folder.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"phase": "running"}', "\x00\x00"])
def test_a_damaged_state_is_an_error_that_names_the_file(boxes: Boxes, content: str) -> None:
    folder = boxes.folder()
    folder.mkdir()
    (folder / "state.json").write_text(content)
    with pytest.raises(IntegrityError, match=r"state\.json"):
        observe(folder)


def test_a_shim_that_cannot_read_its_spec_says_so(boxes: Boxes) -> None:
    folder = boxes.folder()
    prepare(folder, boxes.program(["-c", WAITS], folder))
    (folder / "spec.json").write_text("{}")
    with pytest.raises(Unavailable, match="KeyError"):
        launch(folder)


def test_on_a_full_disk_the_replica_goes_on_without_its_log(boxes: Boxes) -> None:
    """A limit on file sizes answers writes as a full disk does: with an error."""
    folder = boxes.folder()
    code = "import sys\nfor n in range(400): print('x' * 99)\nprint('end', file=sys.stderr)"
    prepare(folder, boxes.program(["-c", code], folder, log_bytes=10**6))

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    subprocess.run(
        [PYTHON, "-I", "-S", SHIM, folder / "spec.json"], preexec_fn=small_files, check=True, timeout=30,
        env={"PODIUM_PROCESS_TOKEN": "t" * 32},
    )  # fmt: skip
    ended = observe(folder)
    assert ended is not None
    assert (ended.phase, ended.exit_code) == ("exited", 0)
    assert ended.log_tail[-1] == "end"
    assert (folder / "log").stat().st_size == 20_000


def test_a_run_over_its_time_is_ended(boxes: Boxes) -> None:
    folder = boxes.folder()
    finished = run_once(folder, boxes.program(["-c", WAITS], folder, timeout=1.0))
    assert "no result within 1 s" in finished.reason
    assert finished.exit_code == -signal.SIGKILL


def test_standard_output_is_kept_apart_and_limited(boxes: Boxes) -> None:
    folder = boxes.folder()
    code = "import sys; print('log', file=sys.stderr); print('x' * 10**6)"
    finished = run_once(folder, boxes.program(["-c", code], folder, timeout=30.0, capture_stdout=1000))
    assert finished.stdout == b"x" * 1000
    assert list(finished.log_tail) == ["log"]
    assert finished.exit_code == 0


def test_a_replica_yields_to_the_others(boxes: Boxes) -> None:
    folder = boxes.start(WAITS, limits={"niceness": 7})
    seen = running(folder)
    assert os.getpriority(os.PRIO_PROCESS, seen.pid or 0) == os.getpriority(os.PRIO_PROCESS, 0) + 7
    assert Path(f"/proc/{seen.pid}/oom_score_adj").read_text().strip() == "500"


def test_a_signal_is_not_lost_however_early_it_comes(boxes: Boxes) -> None:
    """SIGTERM right after the shim's first word: the replica ends by it, not by the kill after the grace."""
    for _ in range(5):
        folder = boxes.start(WAITS)
        stop(folder, grace=30)
        ended = boxes.ended(folder, 25)
        assert ended.reason in {"stopped", "stopped before it was started"}
