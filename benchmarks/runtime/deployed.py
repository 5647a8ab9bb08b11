"""A whole Podium that serves one model: what a client of the gateway sees, Envoy and replica on one core.

Called by `sections`. The version is pushed and applied as a user would; then Envoy's and the replica's threads are
bound to the server's core, so that all that serves has no more than MLServer has.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.runtime.contestants import NAME
from benchmarks.runtime.models import Trained
from benchmarks.world import World
from podium.demo.installation import Installation


@dataclass(frozen=True)
class Deployed:
    """Where the gateway is, and what it wants to be told with a gRPC request."""

    address: str
    grpc_headers: list[tuple[str, str]]
    token: str


@contextlib.contextmanager
def deployed(trained: Trained, core: int | None, say: Callable[[str], object]) -> Iterator[Deployed]:
    """Podium with the model deployed under the name that the contestants use; stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pb-", dir="/tmp"))
    installation = Installation(folder / "home")
    try:
        installation.start()
        say("pushing the model")
        pushed = installation.client.push(NAME, trained.path)
        world = World(installation, {"first": pushed.version.spec.version}, [])
        say("waiting until it is served")
        world.settle("first", 180.0)
        if core is not None:
            for pid in (world.pid("envoy"), *(process.pid for process in world.replica_processes())):
                bind(pid, core)
        address = urlsplit(installation.gateway).netloc
        token = installation.token
        headers = [("authorization", f"Bearer {token}"), ("podium-deployment", NAME)]
        yield Deployed(address, headers, token)
    finally:
        try:
            installation.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def bind(pid: int, core: int) -> None:
    """Bind every thread of a process to a core; threads that it starts later inherit that."""
    for thread in psutil.Process(pid).threads():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread.id, {core})
