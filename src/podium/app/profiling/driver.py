"""The process that asks: started once per profile, given one job after the other. Called by `profiler`; runs `load`."""

import contextlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from podium.app.profiling import load
from podium.resources.errors import Unavailable

_LOOK_SECONDS = 0.1
_PATIENCE_SECONDS = 30.0


class Driver:
    """A context manager. Its process ends with it, and by itself when this process dies."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(load.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def run(self, job: dict[str, Any], tick: Callable[[], None]) -> dict[str, Any]:
        """The answer to one job (`load`). `tick` is called ten times a second meanwhile, and may raise."""
        process = self._process
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        deadline = time.monotonic() + job["settle"] + job["seconds"] + _PATIENCE_SECONDS
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            while not select.select([process.stdout], [], [], _LOOK_SECONDS)[0]:
                tick()
                if time.monotonic() > deadline:
                    raise Unavailable(
                        "the process that asks for predictions hangs", next_step="profile again"
                    )
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise Unavailable("the process that asks for predictions ended", next_step="profile again")
        return dict(json.loads(line))
