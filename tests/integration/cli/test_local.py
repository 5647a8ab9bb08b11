"""`podium up`, `status`, `doctor` and `down` as a person types them: processes of their own, in a home of their own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podium.store import Actor, Store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def home() -> Iterator[Path]:
    """A new home; whatever runs there at the end is stopped."""
    folder = Path(tempfile.mkdtemp(prefix="cli-", dir="/tmp"))
    try:
        yield folder / "home"
    finally:
        run(folder / "home", "down")
        shutil.rmtree(folder)


def environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PODIUM_")}
    return {**clean, "PODIUM_HOME": str(home), "PODIUM_API_PORT": "0", "PODIUM_GATEWAY_PORT": "0"}


def run(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "podium.cli", *arguments],
        env=environment(home), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_up_in_the_foreground_until_ctrl_c(home: Path) -> None:
    before = run(home, "status")
    assert before.returncode == 1
    assert "start it with `podium up`" in before.stdout
    with subprocess.Popen(
        [sys.executable, "-m", "podium.cli", "up", "--timeout", "2m"],
        env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said = []
            while not said or "Ctrl-C stops it." not in said[-1]:
                line = process.stdout.readline()
                assert line, process.stderr.read()
                said.append(line)
            assert said[0] == "Podium is running.\n"
            _while_it_runs(home)
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 130
            told = process.stderr.read()
        finally:
            process.kill()
    assert "starting Podium: waiting for the server\nstarting Podium: waiting for the gateway\n" in told
    assert "stopped: supervisor, gateway, server" in told
    found = json.loads(run(home, "status", "-o", "json").stdout)
    assert not found["healthy"]
    assert set(found["processes"].values()) == {None}
    assert run(home, "down").stdout == "nothing was running\n"


def _while_it_runs(home: Path) -> None:
    found = json.loads(run(home, "status", "-o", "json").stdout)
    assert found["healthy"]
    assert all(found["processes"].values())
    second = run(home, "up")
    assert second.returncode == 1
    assert "Podium is already running in" in second.stderr
    assert "Next: `podium status` shows it" in second.stderr
    doctor = json.loads(run(home, "doctor", "-o", "json").stdout)
    levels = {check["name"]: check for check in doctor["checks"]}
    assert levels["server"]["level"] == levels["ports"]["level"] == levels["secrets"]["level"] == "ok"
    assert "is ready" in levels["server"]["message"]
    assert run(home, "get", "workspaces").stdout.splitlines()[1].startswith("default")


def test_up_detached_says_the_addresses_and_down_stops_it(home: Path) -> None:
    started = run(home, "up", "--detach", "-o", "json", "--timeout", "2m")
    assert started.returncode == 0, started.stderr
    assert started.stderr == ""
    addresses = json.loads(started.stdout)
    assert addresses["home"] == str(home)
    assert json.loads((home / "connection.json").read_text())["url"] == addresses["url"]
    pids = [pid for pid in json.loads(run(home, "status", "-o", "json").stdout)["processes"].values() if pid]
    assert len(pids) == 3
    stopped = run(home, "down")
    assert stopped.returncode == 0
    assert "server" in stopped.stdout
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").exists() and _is_ours(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_ours(pid: int) -> bool:
    try:
        return b"podium" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_what_keeps_it_from_starting_is_said(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "podium.db").write_bytes(b"this is no database, " * 1000)
    refused = run(home, "up", "--detach", "--timeout", "2m")
    assert refused.returncode == 1
    assert "the server ends again and again; it said last: " in refused.stderr
    assert "not a database" in refused.stderr
    assert f"{home}/logs/server.log" in refused.stderr


def test_a_database_whose_replicas_run_elsewhere_is_refused_until_it_is_taken_over(home: Path) -> None:
    home.mkdir(parents=True, mode=0o700)
    with contextlib.closing(Store.open(f"sqlite:///{home / 'podium.db'}")) as store:
        store.migrate()
        store.claim_place(
            "process", place="x", description="/srv/podium on otherhost", actor=Actor("t", "user")
        )
    refused = run(home, "up", "--detach", "--timeout", "2m")
    assert refused.returncode == 1
    assert "this database's replicas run in /srv/podium on otherhost" in refused.stderr
    assert "--take-over" in refused.stderr
    run(home, "down")
    taken = run(home, "up", "--detach", "--take-over", "--timeout", "2m")
    assert taken.returncode == 0, taken.stderr
    assert "place.claim" in run(home, "audit", "-A", "-o", "json").stdout
