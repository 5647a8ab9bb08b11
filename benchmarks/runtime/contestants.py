"""The servers that are compared, each as processes on a core of their own: podium-runtime and MLServer.

Called by `sections` and `soak`. A server is started with a model in a folder, waited for, and killed at the end with
all its processes. Both get TCP on loopback and one thread for the model's libraries.
"""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.runtime.models import Trained
from benchmarks.runtime.talk import connect
from podium.resources.errors import Unavailable

ROOT = Path(__file__).parents[2]
NAME = "patients"
MLSERVER = ROOT / ".venv-mlserver"
_DEADLINE = 90.0
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass
class Server:
    """A running server."""

    name: str
    process: subprocess.Popen[bytes]
    python: Path
    """Its interpreter."""
    http: str
    """HOST:PORT, or the path of a Unix socket."""
    grpc: str | None = None
    log: Path = Path(os.devnull)

    def words(self) -> str:
        """The end of what it said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


def cores() -> tuple[int | None, int | None]:
    """(server's, client's); None for both where there are not two."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    known = sorted(os.sched_getaffinity(0))
    return (known[0], known[1]) if len(known) > 1 else (None, None)


@contextlib.contextmanager
def bound_to(core: int | None) -> Iterator[None]:
    """Bind this thread to a core; processes that it starts meanwhile inherit that, with all their threads."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def podium(trained: Trained, core: int | None, *, uds: bool = False, **settings: Any) -> Iterator[Server]:
    """podium-runtime with its defaults, on loopback or on a Unix socket; `settings` are added to its configuration."""
    folder = Path(tempfile.mkdtemp(prefix="pbr-", dir="/tmp"))
    try:
        address = str(folder / "s")
        listen: dict[str, Any] = {"uds": address}
        if not uds:
            (port,) = free_ports(1)
            address, listen = f"127.0.0.1:{port}", {"host": "127.0.0.1", "port": port}
        config = write_config(folder, trained, listen, **settings)
        command = [sys.executable, "-m", "podium_runtime", "serve", str(config)]
        with _running(command, folder, core) as process:
            server = Server("podium", process, Path(sys.executable), address, log=folder / "log")
            wait_ready(server)
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_config(folder: Path, trained: Trained, listen: dict[str, Any], **settings: Any) -> Path:
    """Lay out a version in `folder` as the server's target does; the configuration's path."""
    files = folder / "files"
    files.mkdir()
    shutil.copy(trained.path, files)
    content = trained.path.read_bytes()
    entry = {"path": trained.path.name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {
        "format": "podium.manifest/1", "flavor": trained.flavor, "files": [entry], "signature": None,
        "python": "3.11", "requirements": [],
    }  # fmt: skip
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    (folder / "manifest.json").write_bytes(canonical)
    served = {"name": NAME, "version": "1", "workspace": "default", "revision": f"{NAME}-00001"}
    config = {
        "served": served, "modelPath": str(files), "manifestPath": str(folder / "manifest.json"),
        "manifestDigest": "sha256:" + hashlib.sha256(canonical).hexdigest(), "listen": listen, **settings,
    }  # fmt: skip
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


@dataclass(frozen=True)
class Tuning:
    """How MLServer is configured. The defaults are its own; `quiet` turns off its default of logging every request."""

    name: str = "mlserver"
    batch_size: int = 0
    batch_seconds: float = 0.0
    workers: int | None = None
    """Inference processes beside the main one; 0 predicts in the main one. None is its default, one."""
    quiet: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Of the whole server."""
        found: dict[str, Any] = {"debug": False} if self.quiet else {}
        return found | ({} if self.workers is None else {"parallel_workers": self.workers})


@contextlib.contextmanager
def mlserver(trained: Trained, core: int | None, tuning: Tuning) -> Iterator[Server]:
    """MLServer in its own environment. Raises Unavailable where that has not been made."""
    python = MLSERVER / "bin" / "python"
    if not python.exists():
        raise Unavailable("MLServer's environment is missing. Next: make bench-runtime makes it")
    folder = Path(tempfile.mkdtemp(prefix="pbm-", dir="/tmp"))
    try:
        rest, grpc, metrics = free_ports(3)
        shutil.copy(trained.path, folder)
        if trained.flavor["name"] == "onnx":
            shutil.copy(Path(__file__).with_name("mlserver_onnx.py"), folder)
            implementation = "mlserver_onnx.OnnxModel"
        else:
            implementation = "mlserver_sklearn.SKLearnModel"
        model: dict[str, Any] = {
            "name": NAME, "implementation": implementation,
            "parameters": {"uri": f"./{trained.path.name}", "version": "1"},
        }  # fmt: skip
        if tuning.batch_size:
            model |= {"max_batch_size": tuning.batch_size, "max_batch_time": tuning.batch_seconds}
        (folder / "model-settings.json").write_text(json.dumps(model))
        ports = {"host": "127.0.0.1", "http_port": rest, "grpc_port": grpc, "metrics_port": metrics}
        (folder / "settings.json").write_text(json.dumps(ports | tuning.settings()))
        with _running([str(MLSERVER / "bin" / "mlserver"), "start", str(folder)], folder, core) as process:
            address = f"127.0.0.1:{rest}"
            server = Server(tuning.name, process, python, address, f"127.0.0.1:{grpc}", folder / "log")
            wait_ready(server)
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(command: list[str], folder: Path, core: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which is killed as a whole at the end."""
    with (folder / "log").open("wb") as log, bound_to(core):
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **_ONE_THREAD}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_ready(server: Server) -> None:
    """Until the model is ready. Raises Unavailable with the server's last words."""

    def ready() -> bool:
        return get(server.http, f"/v2/models/{NAME}/ready") == 200

    wait_for(ready, server)


def wait_for(happened: Callable[[], bool], server: Server) -> None:
    """Until `happened`. Raises Unavailable with the server's last words."""
    deadline = time.monotonic() + _DEADLINE
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if happened():
                return
        time.sleep(0.05)
    raise Unavailable(f"{server.name} did not become ready\n{server.words()}")


def get(address: str, path: str) -> int:
    """The status of a GET."""
    with contextlib.closing(http.client.HTTPConnection("localhost", timeout=5)) as connection:
        connection.sock = connect(address, 5.0)
        connection.sock.settimeout(5.0)
        connection.request("GET", path)
        return connection.getresponse().status


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]
