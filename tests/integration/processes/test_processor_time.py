"""Processor time of a process and all that it started, also of those that have ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from podium.processes.identity import TOKEN_VARIABLE, ProcessIdentity, identify, new_token, send_signal
from podium.processes.processor_time import processor_seconds

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="processor time needs /proc"),
]
BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
SECONDS = 60.0


@contextmanager
def running(code: str) -> Iterator[tuple[subprocess.Popen[str], ProcessIdentity]]:
    token = new_token()
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, TOKEN_VARIABLE: token}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        identity = identify(process.pid, token)
        assert identity is not None
        yield process, identity
    finally:
        process.kill()
        process.communicate()


def used(identity: ProcessIdentity) -> float:
    seconds = processor_seconds(identity)
    assert seconds is not None
    return seconds


def test_its_own_and_that_of_a_child_that_has_ended_is_counted() -> None:
    child = BURN.format(seconds=0.4)
    code = (
        f"import subprocess, sys\n{BURN.format(seconds=0.3)}"
        f"subprocess.run([sys.executable, '-c', {child!r}])\nprint('done', flush=True)\ninput()"
    )
    with running(code) as (_, identity):
        first = used(identity)
        assert first >= 0.65
        assert used(identity) - first < 0.3, "who waits uses nothing"


def test_a_child_that_runs_is_counted_as_it_goes() -> None:
    child = "import time\nwhile True: pass"
    code = (
        f"import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print('done', flush=True)\ninput()\nchild.kill()\nchild.wait()\nprint('ended', flush=True)\ninput()"
    )
    with running(code) as (process, identity):
        assert process.stdin is not None
        assert process.stdout is not None
        begun, deadline = used(identity), time.monotonic() + SECONDS
        while used(identity) < begun + 0.5:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        before = used(identity)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ended\n"
        assert used(identity) >= before - 0.05, "what it used is its parent's now"


def test_one_that_is_gone_has_none() -> None:
    with running("print('done', flush=True)\ninput()") as (process, identity):
        assert processor_seconds(ProcessIdentity(identity.pid, identity.start_ticks, "another")) is None
        assert send_signal(identity, signal.SIGKILL)
        process.wait(SECONDS)
    assert processor_seconds(identity) is None
