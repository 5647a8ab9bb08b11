"""Real replicas for the tests: a version on disk, a process that serves it, and a plain HTTP client.

Used by every test that needs a process. Nothing here knows the inside of podium_runtime: only the command line, the
configuration file and HTTP.
"""

import contextlib
import hashlib
import http.client
import json
import os
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

DEADLINE = 60.0


@dataclass
class Version:
    """Files of a version with their manifest, in a folder of their own."""

    root: Path
    flavor: dict[str, Any]
    files: dict[str, bytes]
    signature: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self) -> Path:
        """Write files, manifest and configuration; return the configuration's path."""
        folder = self.root / "model"
        entries = []
        for name, content in sorted(self.files.items()):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            entries.append({"path": name, "size": len(content), "sha256": digest})
        manifest = {
            "format": "podium.manifest/1",
            "flavor": self.flavor,
            "files": entries,
            "signature": self.signature,
            "python": "3.11",
            "requirements": [],
        }
        content = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        (self.root / "manifest.json").write_bytes(content)
        config = {
            "served": {"name": "churn", "version": "3", "workspace": "default", "revision": "churn-00002"},
            "modelPath": str(folder),
            "manifestPath": str(self.root / "manifest.json"),
            "manifestDigest": "sha256:" + hashlib.sha256(content).hexdigest(),
            **self.settings,
        }
        path = self.root / "config.json"
        path.write_text(json.dumps(config))
        return path


def python_version(root: Path, source: str, **settings: Any) -> Version:
    """A version whose model is the class `Model` in the Python source."""
    flavor = {"name": "python", "entry": "", "options": {"class": "mymodel:Model"}}
    return Version(root, flavor, {"mymodel.py": source.encode()}, settings=settings)


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection(http.client.HTTPConnection):
    """HTTP/1.1 over a Unix socket or, where the address is a pair, TCP."""

    def __init__(self, address: str | tuple[str, int], timeout: float = DEADLINE) -> None:
        super().__init__("replica", timeout=timeout)
        self.address = address

    def connect(self) -> None:
        if isinstance(self.address, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            try:
                self.sock.connect(self.address)
            except OSError:
                self.close()
                raise
        else:
            self.sock = socket.create_connection(self.address, timeout=self.timeout)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self.request(method, path, content, headers or {})
        response = self.getresponse()
        answer = response.read()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, answer)


class Replica:
    """A running `podium_runtime serve` on a listening Unix socket that this process opened and passed on."""

    def __init__(self, config: Path, listen: dict[str, Any] | None = None) -> None:
        # /tmp, because the path of a Unix socket may have 107 bytes only.
        self.folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="pr-"))
        self.address: str | tuple[str, int] = str(self.folder / "s")
        self.log = self.folder / "log"
        document = json.loads(config.read_text())
        passed: tuple[int, ...] = ()
        listener = None
        if listen is None or "hold" in listen:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(self.address)
            listener.listen(1024)
            passed = (listener.fileno(),)
            listen = {**(listen or {}), "fd": listener.fileno()}
        elif "uds" in listen:
            self.address = listen["uds"]
        document["listen"] = listen
        started = self.folder / "config.json"
        started.write_text(json.dumps(document))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "podium_runtime", "serve", str(started)],
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=passed,
            )
        if listener is not None:
            listener.close()

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own."""
        with contextlib.closing(Connection(self.address)) as connection:
            return connection.ask(method, path, body, headers)

    def infer(self, body: Any, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("POST", "/v2/models/churn/infer", body, headers)

    def wait_ready(self) -> "Replica":
        self.wait_for(lambda: self.ask("GET", "/v2/health/ready").status == 200)
        return self

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Wait until `happened`, at most DEADLINE seconds and not beyond the end of the process."""
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if happened():
                    return
            assert self.process.poll() is None, (
                f"the process ended with {self.process.returncode}:\n{self.logged()}"
            )
            time.sleep(0.01)
        raise AssertionError(f"it did not happen in {DEADLINE} s:\n{self.logged()}")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait_end(self) -> int:
        return self.process.wait(timeout=DEADLINE)

    def logged(self) -> str:
        return self.log.read_text(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON lines of the log so far."""
        return [json.loads(line) for line in self.logged().splitlines() if line.startswith("{")]

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric, 0 where it has no such sample yet."""
        for line in self.ask("GET", "/metrics").body.decode().splitlines():
            key, _, value = line.rpartition(" ")
            if key.startswith(f"podium_runtime_{name}{{") and all(
                f'{k}="{v}"' in key for k, v in labels.items()
            ):
                return float(value)
        return 0.0

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()


@contextlib.contextmanager
def running(config: Path, ready: bool = True, listen: dict[str, Any] | None = None) -> Iterator[Replica]:
    """A replica for the length of a with block."""
    replica = Replica(config, listen)
    try:
        yield replica.wait_ready() if ready else replica
    finally:
        replica.close()


def inspect(config: Path) -> tuple[int, Any, str]:
    """Run `inspect`; return exit code, the one JSON line and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "podium_runtime", "inspect", str(config)],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 1, f"expected one line on stdout, got {lines}\n{done.stderr}"
    return done.returncode, json.loads(lines[0]), done.stderr


def tensor(array: Any, name: str = "input", datatype: str = "FP64") -> dict[str, Any]:
    """One input of a request from a numpy array, NaN as null."""
    flat = [None if value != value else value for value in array.ravel().tolist()]
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": flat}
