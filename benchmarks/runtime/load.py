"""Runs the load against a server, and the model alone, each in a process of its own; checks answers beforehand.

Called by `sections` and `soak`. Calls `client` and `alone` as processes, `talk` for the check.
"""

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.runtime.contestants import ROOT
from benchmarks.runtime.models import Trained
from benchmarks.runtime.talk import GrpcTalk, HttpTalk, Talk
from podium.resources.errors import Unavailable


@dataclass(frozen=True)
class Target:
    """Where and how to ask: `protocol` is "http" (whole requests) or "grpc" (messages, with headers)."""

    protocol: str
    address: str
    requests: Sequence[bytes]
    headers: Sequence[tuple[str, str]] = ()

    def talk(self) -> Talk:
        """One connection."""
        if self.protocol == "grpc":
            return GrpcTalk(self.address, self.requests, self.headers)
        return HttpTalk(self.address, self.requests)


def check(target: Target, read: Callable[[bytes], list[int]], expected: Sequence[Sequence[int]]) -> None:
    """Ask every request once, one after the other. Raises Unavailable where an answer is not the model's own."""
    talk = target.talk()
    try:
        for index, labels in enumerate(expected):
            talk.begin(index)
            done = _wait(talk, 30.0)
            if not done:
                raise Unavailable(f"{target.address} did not predict: {talk.answer[:500]!r}")
            found = read(talk.answer)
            if found != list(labels):
                raise Unavailable(f"{target.address} predicts something else than the model: {found[:20]}")
    finally:
        talk.sock.close()


def _wait(talk: Talk, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        left = talk.flush()
        select.select([talk.sock], [talk.sock] if left else [], [], 0.5)
        done = talk.receive()
        if done is not None:
            return done
    raise Unavailable(f"no answer in {seconds:g} s")


def write_requests(path: Path, requests: Sequence[bytes]) -> Path:
    """The file that `client` reads."""
    path.write_bytes(b"".join(len(request).to_bytes(4, "big") + request for request in requests))
    return path


def plan(target: Target, requests: Path, core: int | None) -> dict[str, Any]:
    """What every client process is told."""
    return {
        "protocol": target.protocol,
        "address": target.address,
        "requests": str(requests),
        "headers": list(target.headers),
        "core": core,
    }


def measure(
    target: Target, requests: Path, core: int | None, *, connections: int, seconds: float, warm: float = 0.3
) -> dict[str, Any]:
    """One closed-loop run by a client process on `core`. Raises Unavailable when it fails."""
    wish = plan(target, requests, core) | {"connections": connections, "seconds": seconds, "warm": warm}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.runtime.client"],
        cwd=ROOT, input=json.dumps(wish).encode(), capture_output=True, check=False, timeout=seconds + 60,
    )  # fmt: skip
    found = dict(json.loads(done.stdout)) if done.returncode == 0 else {"error": done.stderr.decode()[-2000:]}
    if "error" in found or found["failed"] or not found["requests"]:
        raise Unavailable(f"the load on {target.address} failed: {found}")
    return found


def alone(trained: Trained, python: Path, core: int | None, seconds: float) -> float:
    """Milliseconds (median) that `predict` of one row takes without a server, on the server's core and interpreter."""
    command = [str(python), str(Path(__file__).with_name("alone.py")), trained.flavor["name"]]
    command += [str(trained.path), str(seconds), *([] if core is None else [str(core)])]
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, check=True, timeout=seconds + 60, env=one)
    return float(done.stdout)
