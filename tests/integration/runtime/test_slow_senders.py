"""Senders that trickle bytes hold no one up, and are sent away in the end."""

import contextlib
import json
import random
import socket
import time
from pathlib import Path

import pytest

from runtime.tests.replica import Replica, python_version, running
from tests.integration.runtime.case import MODEL, SIGNATURE, post, valid
from tests.integration.runtime.fuzz import healthy, open_files

pytestmark = pytest.mark.integration

TIMEOUT = 2
SENDERS = 30


@contextlib.contextmanager
def _senders(replica: Replica, begun: bytes) -> "contextlib.ExitStack":
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(SENDERS):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.connect(replica.address)
            sock.send(begun)
            made.append(sock)
        yield made


def _trickle(senders: list[socket.socket], rest: bytes, replica: Replica) -> tuple[dict[int, bytes], float]:
    """One byte per sender and round until all of them have been sent away; what each was told, and the slowest answer
    that an ordinary client got meanwhile, in seconds."""
    told: dict[int, bytes] = {}
    slowest = 0.0
    deadline = time.monotonic() + 10 * TIMEOUT
    at = 0
    while len(told) < len(senders):
        assert time.monotonic() < deadline, (
            f"{len(senders) - len(told)} senders are still there: {replica.logged()[-500:]}"
        )
        for number, sock in enumerate(senders):
            if number in told:
                continue
            sock.settimeout(0.001)
            try:
                sock.send(rest[at % len(rest) : at % len(rest) + 1])
                told[number] = sock.recv(1000)
            except TimeoutError:
                continue
            except OSError:
                told[number] = b""
        at += 1
        started = time.monotonic()
        healthy(replica)
        slowest = max(slowest, time.monotonic() - started)
    return told, slowest


@pytest.mark.parametrize("part", ["body", "head"])
def test_slow_senders(tmp_path: Path, part: str) -> None:
    made = python_version(tmp_path, MODEL, requestTimeoutSeconds=TIMEOUT)
    made.signature = SIGNATURE
    body = json.dumps(valid(random.Random(1))).encode()
    whole = post(body, content_length=str(len(body) + 100_000))
    begun, rest = (whole[:-10], b" ") if part == "body" else (b"POST /v2 HTTP/1.1\r\nhost: x\r\nx: ", b"y")
    with running(made.write()) as replica:
        healthy(replica)
        before = open_files(replica.process.pid)
        with _senders(replica, begun) as senders:
            told, slowest = _trickle(senders, rest, replica)
        statuses = {answer[9:12] for answer in told.values()}
        assert statuses <= {b"", b"400", b"408", b"504"}, statuses
        assert slowest < 1.0
        healthy(replica)
        replica.wait_for(lambda: open_files(replica.process.pid) <= before)
