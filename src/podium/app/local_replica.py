"""The model server as a direct child, on a socket that it inherits. Called by `serving`.

On Linux it is shut in (`confined`) and dies with this process; elsewhere it runs as any program does.
"""

import collections
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from podium.app.preparation import Prepared
from podium.processes.sandbox import python_roots, scrubbed_environment
from podium.resources.errors import InvalidInput, Issue, Unavailable

_LOOK_SECONDS = 0.05
_DRAIN_SECONDS = 5.0
_TAIL = 20
_SHOWN = ("warning", "error", "critical")


class LocalReplica:
    """`work`: a folder of its own. `log` gets what the model prints, and warnings and errors of the model server."""

    def __init__(self, work: Path, log: Callable[[str], None]) -> None:
        self._work, self._log = work, log
        self._process: subprocess.Popen[bytes] | None = None
        self._tail: collections.deque[str] = collections.deque(maxlen=_TAIL)
        self._listener: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The model server's process."""
        return self._process.pid if self._process is not None else None

    def start(self, prepared: Prepared, digest: str, name: str, listener: socket.socket) -> None:
        """Returns at once. Raises Unavailable."""
        private = self._work / "tmp"
        private.mkdir(mode=0o700, parents=True)
        config = self._work / "config.json"
        config.write_text(json.dumps(_configuration(prepared, digest, name, listener.fileno())))
        assert prepared.python is not None  # noqa: S101 - the environment is ready
        argv = [str(prepared.python), "-I", "-B", "-m", "podium_runtime", "serve", str(config)]
        env = scrubbed_environment(prepared.python, private, threads=1)
        if sys.platform == "linux":
            spec = self._work / "spec.json"
            box = {
                "require": "none",
                "read": [str(prepared.model_path), str(prepared.manifest_path), str(config)],
                "run": [str(path) for path in python_roots(prepared.python)],
                "write": [str(private)],
                "connectPorts": [],
                "bindPorts": [],
            }
            spec.write_text(
                json.dumps(
                    {"argv": argv, "env": env, "cwd": str(private), "box": box, "parent": os.getpid(),
                     "report": str(private / "sandbox.json")}
                )
            )  # fmt: skip
            argv, env = [sys.executable, "-m", "podium.app.confined", str(spec)], dict(os.environ)
        try:
            self._process = subprocess.Popen(
                argv, env=env, cwd=private, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, pass_fds=[listener.fileno()],
            )  # fmt: skip
        except OSError as error:
            raise Unavailable(f"the model server could not be started: {error.strerror}") from None
        self._listener = threading.Thread(target=self._listen, name="log", daemon=True)
        self._listener.start()

    def wait_ready(self, host: str, port: int) -> None:
        """However long loading takes. Raises InvalidInput with its last words when it ends instead."""
        while not _is_ready(host, port):
            self._check()
            time.sleep(_LOOK_SECONDS)

    def wait(self) -> None:
        """Until it ends by itself, which is an error. Raises Unavailable."""
        assert self._process is not None  # noqa: S101 - it was started
        self._process.wait()
        self._check()

    def sandbox(self) -> dict[str, Any]:
        """`level` (none, files, full) and what is missing, in words."""
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self._work / "tmp" / "sandbox.json").read_text()))
        return {"level": "none", "missing": [f"no sandbox on {sys.platform}"]}

    def stop(self) -> None:
        """Requests under way are answered first. Returns when it is gone."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_DRAIN_SECONDS + 2.0)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        if self._listener is not None:
            self._listener.join(2.0)

    def _check(self) -> None:
        process = self._process
        if process is None or process.poll() is None:
            return
        if self._listener is not None:
            self._listener.join(2.0)
        how = (
            f"exit code {process.returncode}" if process.returncode >= 0 else f"signal {-process.returncode}"
        )
        words = " ".join(" ".join(self._tail).split())[-1500:]
        raise InvalidInput(
            Issue("PATH", f"the model server ended ({how}): {words or 'it said nothing'}"),
            next_step="check what it needs: --requirement NAME==VERSION, --python 3.N, --flavor NAME",
        )

    def _listen(self) -> None:
        assert self._process is not None  # noqa: S101 - it was started
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            words = _readable(line)
            if words:
                self._tail.append(words)
                self._log(words)


def _configuration(prepared: Prepared, digest: str, name: str, descriptor: int) -> dict[str, Any]:
    return {
        "served": {"name": name, "version": "1", "workspace": "default", "revision": "local"},
        "modelPath": str(prepared.model_path),
        "manifestPath": str(prepared.manifest_path),
        "manifestDigest": digest,
        "listen": {"fd": descriptor},
        "drainSeconds": _DRAIN_SECONDS,
        "threads": 1,
    }


def _readable(line: str) -> str:
    """What the model printed as it is, the model server's warnings and errors as words, nothing of the rest."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict) or "message" not in record:
        return line
    if record.get("level") not in _SHOWN:
        return ""
    details = [str(record[name]) for name in ("exception", "error") if record.get(name)]
    frames = record.get("frames") or []
    where = f" at {frames[-1]}" if isinstance(frames, list) and frames else ""
    return f"{record['message']}{': ' if details else ''}{', '.join(details)}{where}"


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2.0)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
