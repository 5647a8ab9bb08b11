"""Environments of other people's clients, each apart from ours: their protobuf descriptors clash with one another.

Built by `tools/side_environment.sh` from a lock with hashes (`requirements/clients-*.txt`), kept under `.cache` by the
lock's digest. Tests talk to a driver process in it, one JSON line per call and answer.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


def client_python(name: str) -> Path:
    """The interpreter of the environment that `requirements/NAME.txt` describes; built the first time, by one test
    process however many want it."""
    lock = ROOT / "requirements" / f"{name}.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = (
        ROOT / ".cache" / "clients" / f"{name}-{digest}-{sys.version_info.major}.{sys.version_info.minor}"
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    python, complete = folder / "bin" / "python", folder / "complete"
    with (folder.parent / f"{folder.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if complete.exists() and python.exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        command = ["tools/side_environment.sh", folder, lock]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        complete.touch()
    return python


class Driver:
    """A process in a client's environment that does what it is told; see `triton_driver`."""

    def __init__(self, python: Path, script: Path) -> None:
        self.process = subprocess.Popen(
            [python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, call: str, /, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"call": call, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the driver ended with {self.process.wait(10)}"
        answer: dict[str, Any] = json.loads(line)
        assert "bug" not in answer, answer["bug"]
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
