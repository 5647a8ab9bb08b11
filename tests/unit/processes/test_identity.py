"""A process is the one that is meant only if pid, start time and token all match. With real processes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podium.processes import (
    ExitWatcher,
    ProcessIdentity,
    identify,
    is_alive,
    read_identity,
    send_signal,
    spawn_detached,
    terminate,
    wait_exit,
    write_identity,
)
from podium.resources.errors import IntegrityError

SLEEPER = [sys.executable, "-I", "-S", "-c", "import signal; print('up', flush=True); signal.pause()"]
STUBBORN = [
    sys.executable,
    "-I",
    "-S",
    "-c",
    "import signal\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\nwhile True: signal.pause()",
]


def until(what: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., ProcessIdentity]]:
    started: list[ProcessIdentity] = []

    def start(argv: list[str] = SLEEPER, env: dict[str, str] | None = None) -> ProcessIdentity:
        log = tmp_path / f"log-{len(started)}"
        identity = spawn_detached(argv, env=env or {}, log=log)
        started.append(identity)
        until(lambda: "up" in log.read_text())
        return identity

    yield start
    for identity in started:
        send_signal(identity, signal.SIGKILL)


def test_a_started_process_is_found_by_pid_start_and_token(spawn: Callable[..., ProcessIdentity]) -> None:
    identity = spawn()
    assert is_alive(identity)
    assert identify(identity.pid, identity.token) == identity
    assert os.getsid(identity.pid) == identity.pid
    assert identity.token in Path(f"/proc/{identity.pid}/environ").read_text()


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"token": "0" * 32}, {"token": ""}])
def test_a_forged_identity_is_neither_alive_nor_hit(
    spawn: Callable[..., ProcessIdentity], change: dict[str, object]
) -> None:
    identity = spawn()
    forged = dataclasses.replace(identity, **change)  # type: ignore[arg-type]
    assert not is_alive(forged)
    assert not send_signal(forged, signal.SIGKILL)
    assert wait_exit(forged, 0)
    assert terminate(forged, 0)
    assert is_alive(identity)


def test_a_stranger_whose_token_merely_starts_alike_is_not_trusted(
    spawn: Callable[..., ProcessIdentity],
) -> None:
    identity = spawn()
    assert identify(identity.pid, identity.token[:-1]) is None


def test_the_environment_is_exactly_what_was_given(
    spawn: Callable[..., ProcessIdentity], tmp_path: Path
) -> None:
    os.environ["PODIUM_TEST_SECRET"] = "leak"
    try:
        identity = spawn(env={"ONLY": "this"})
    finally:
        del os.environ["PODIUM_TEST_SECRET"]
    names = {
        line.split("=")[0] for line in Path(f"/proc/{identity.pid}/environ").read_text().split("\0") if line
    }
    assert names == {"ONLY", "PODIUM_PROCESS_TOKEN"}


def test_an_ended_process_leaves_no_zombie_and_is_not_alive(spawn: Callable[..., ProcessIdentity]) -> None:
    identity = spawn()
    assert send_signal(identity, signal.SIGKILL)
    assert wait_exit(identity, 10)
    until(lambda: not Path(f"/proc/{identity.pid}").exists())
    assert not is_alive(identity)


def test_in_the_middle_of_an_exec_it_is_alive(spawn: Callable[..., ProcessIdentity]) -> None:
    """While the kernel maps the new program, a process shows neither arguments nor environment. This one becomes itself
    again and again; its arguments are many, so that most of its time is spent so."""
    again = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        "import os, sys; print('up', flush=True); os.execv(sys.orig_argv[0], sys.orig_argv)",
    ]
    identity = spawn([*again, *["x" * 100_000] * 10])
    empty = 0
    end = time.monotonic() + 20
    while empty < 3 and time.monotonic() < end:
        empty += not Path(f"/proc/{identity.pid}/environ").read_bytes()
        assert is_alive(identity)
    assert empty


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(SLEEPER, env={"PODIUM_PROCESS_TOKEN": "t" * 32}, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    identity = identify(child.pid, "t" * 32)
    assert identity is not None
    child.kill()
    until(lambda: b") Z" in Path(f"/proc/{child.pid}/stat").read_bytes())
    assert not is_alive(identity)
    assert not send_signal(identity, signal.SIGTERM)
    child.wait()
    child.stdout.close()


def test_terminate_asks_first(spawn: Callable[..., ProcessIdentity]) -> None:
    assert terminate(spawn(), grace=10) is True


def test_terminate_kills_who_does_not_listen(spawn: Callable[..., ProcessIdentity]) -> None:
    identity = spawn(STUBBORN)
    assert terminate(identity, grace=0.2) is False
    assert not is_alive(identity)


def test_the_process_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    starter = (
        "import json, sys, dataclasses\n"
        "from pathlib import Path\n"
        "from podium.processes import spawn_detached, write_identity\n"
        f"i = spawn_detached({SLEEPER!r}, env={{}}, log=Path({str(tmp_path / 'log')!r}))\n"
        f"write_identity(Path({str(tmp_path / 'identity.json')!r}), i)\n"
    )
    subprocess.run([sys.executable, "-c", starter], check=True, timeout=30)
    identity = read_identity(tmp_path / "identity.json")
    assert identity is not None
    assert is_alive(identity)
    assert terminate(identity, grace=10)


def test_a_program_that_does_not_exist_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spawn_detached([str(tmp_path / "no-such-program")], env={}, log=tmp_path / "log")


def test_an_identity_is_kept_in_a_private_file(tmp_path: Path) -> None:
    identity = ProcessIdentity(4242, 99, "a" * 32)
    path = tmp_path / "identity.json"
    write_identity(path, identity)
    assert read_identity(path) == identity
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["identity.json"]
    assert read_identity(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"pid": 1}',
        json.dumps({"pid": -1, "start_ticks": 1, "token": "a"}),
        "\x00" * 30,
    ],
)
def test_a_file_that_holds_no_identity_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "identity.json").write_text(content)
    with pytest.raises(IntegrityError, match=r"identity\.json"):
        read_identity(tmp_path / "identity.json")


def test_one_thread_tells_of_every_exit(spawn: Callable[..., ProcessIdentity]) -> None:
    watcher = ExitWatcher()
    ended: set[ProcessIdentity] = set()
    identities = [spawn() for _ in range(4)]
    before = threading.active_count()
    for identity in identities:
        watcher.watch(identity, ended.add)
    assert threading.active_count() == before + 1
    for identity in identities[:3]:
        send_signal(identity, signal.SIGKILL)
    until(lambda: ended == set(identities[:3]))
    watcher.close()
    assert is_alive(identities[3])


def test_watching_what_has_ended_calls_back_too(spawn: Callable[..., ProcessIdentity]) -> None:
    identity = spawn()
    terminate(identity, grace=10)
    watcher = ExitWatcher()
    ended: list[ProcessIdentity] = []
    watcher.watch(identity, ended.append)
    until(lambda: ended == [identity])
    watcher.close()


def test_a_callback_that_fails_harms_no_other(spawn: Callable[..., ProcessIdentity]) -> None:
    first, second = spawn(), spawn()
    watcher = ExitWatcher()
    ended: list[ProcessIdentity] = []

    def fail(identity: ProcessIdentity) -> None:
        raise ValueError("on purpose")

    watcher.watch(first, fail)
    watcher.watch(second, ended.append)
    terminate(first, grace=10)
    terminate(second, grace=10)
    until(lambda: ended == [second])
    watcher.close()
    with pytest.raises(RuntimeError):
        watcher.watch(first, fail)
