"""`podium top` against a real API: one look as text or JSON, and live on a terminal."""

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.integration.api.server import ApiServer, deployment, workspace
from tests.integration.cli.conftest import Podium


def test_one_look(podium: Podium, churn: ApiServer) -> None:
    churn.create(workspace("blue"))
    churn.create(deployment("churn"))
    churn.create(deployment("other", workspace="blue"))
    text = podium("top").out
    assert "2 deployments, 0.0 requests/s over the last 30 s" in text
    assert "blue/other" in text
    assert "\x1b" not in text
    assert "1 deployment," in podium("top", "-w", "blue", "--window", "5m").out
    assert "blue/other" not in podium("top", "churn", "--once", "--sort", "rate").out
    told = podium("top", "-o", "json").json()
    assert [item["deployment"] for item in told["items"]] == ["other", "churn"]
    assert told["window"] == 30


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--window", "1s"], 1, "window"),
        (["--every", "0.1s"], 1, "--every: expected 0.5 s to 3600 s"),
        (["--sort", "colour"], 2, "--sort"),
        (["-w", "nowhere"], 0, "no deployments"),
    ],
)
def test_what_is_wrong_is_named(podium: Podium, arguments: list[str], code: int, words: str) -> None:
    result = podium("top", *arguments, code=code)
    assert words in result.out + result.err


def test_live_until_ctrl_c_at_whatever_size(churn: ApiServer, tmp_path: Path) -> None:
    churn.create(deployment("churn"))
    leader, follower = pty.openpty()
    resize(leader, 24, 100)
    environment = os.environ | {
        "PODIUM_URL": churn.url, "PODIUM_TOKEN": churn.admin_token, "PODIUM_HOME": str(tmp_path),
        "TERM": "xterm-256color",
    }  # fmt: skip
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "podium.cli", "top", "--every", "0.5s"],
        stdin=follower, stdout=follower, stderr=follower, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    screen = bytearray()

    def shows(condition: Callable[[bytes], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition(bytes(screen)):
            assert time.monotonic() < deadline, bytes(screen)[-2000:]
            assert process.poll() is None, bytes(screen)[-2000:]
            if select.select([leader], [], [], 0.1)[0]:
                screen.extend(os.read(leader, 65536))

    try:
        shows(lambda seen: b"\x1b[?1049h" in seen and b"churn" in seen)
        resize(leader, 10, 60)
        process.send_signal(signal.SIGWINCH)
        screen.clear()
        shows(lambda seen: seen.count(b"DEPLOYMENT") >= 2)
        process.send_signal(signal.SIGINT)
        shows_end(process, leader, screen)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert process.returncode == 130
    assert screen.rstrip().endswith(b"\x1b[?25h") or b"\x1b[?1049l" in screen, "the terminal is as it was"
    assert b"Traceback" not in screen


def resize(terminal: int, rows: int, columns: int) -> None:
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def shows_end(process: "subprocess.Popen[bytes]", leader: int, screen: bytearray) -> None:
    """What it says until it has ended."""
    deadline = time.monotonic() + 60
    while process.poll() is None:
        assert time.monotonic() < deadline
        if select.select([leader], [], [], 0.1)[0]:
            try:
                screen.extend(os.read(leader, 65536))
            except OSError:
                return
    while select.select([leader], [], [], 0)[0]:
        try:
            screen.extend(os.read(leader, 65536))
        except OSError:
            return
