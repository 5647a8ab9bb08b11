"""The generator as a process: run by its file with `python -I -S`, so that it starts quickly and imports nothing else.

Reads jobs as lines of JSON on stdin and answers each with lines of JSON on stdout: `{"progress": ...}` about once per
second, then `{"found": ...}`, or `{"error": text}`. The line `stop` ends a job early; the end of stdin ends the
process, in the middle of a job too. Started by `driver`.

    job   {"place": {"unix" | "address", "port", "tls": null or as `tls.Tls.document` has it},
           "requests": [text, each letter a byte], "connections", "seconds", "settle", "rate", "random", "limit",
           "timeout", "first", "core": number or null}
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

if not __package__:
    # Run by its file: isolated, no folder of ours is on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from podium.load.generator import Found, Plan, Run
from podium.load.tls import context_of
from podium.load.wire import Place


def plan_of(job: dict[str, Any]) -> Plan:
    """A job as a plan. Raises OSError for certificates that cannot be read."""
    place = job["place"]
    tls = context_of(place["tls"]) if place.get("tls") else None
    where = Place(
        unix=place.get("unix", ""), address=place.get("address", ""), port=place.get("port", 0), tls=tls,
        server_name=place["tls"]["name"] if place.get("tls") else "",
    )  # fmt: skip
    rest = ("connections", "seconds", "settle", "rate", "random", "limit", "timeout", "first")
    requests = [text.encode("latin-1") for text in job["requests"]]
    return Plan(place=where, requests=requests, **{name: job[name] for name in rest})


class Jobs:
    """Stdin and stdout of this process."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def serve(self) -> int:
        """Jobs until stdin closes."""
        while (line := self._line()) is not None:
            if line == b"stop":
                continue  # for a job that had ended by itself
            try:
                found = self._carry_out(json.loads(line))
            except EOFError:
                return 0
            except OSError as error:
                self._say({"error": f"{error.filename or ''} {error.strerror or error}".strip()})
            else:
                self._say({"found": found.document()})
        return 0

    def _carry_out(self, job: dict[str, Any]) -> Found:
        if job["core"] is not None:
            os.sched_setaffinity(0, {job["core"]})
        _allow_files(job["connections"] + 64)

        def heard() -> None:
            if self._line() is None:
                raise EOFError
            run.stop()

        run = Run(plan_of(job), sys.stdin.fileno(), heard)
        return run.measure(lambda found: self._say({"progress": found.document()}))

    def _line(self) -> bytes | None:
        """The next line; None at the end."""
        while b"\n" not in self._pending:
            piece = os.read(sys.stdin.fileno(), 2**20)
            if not piece:
                return None
            self._pending += piece
        line, _, rest = bytes(self._pending).partition(b"\n")
        self._pending = bytearray(rest)
        return line

    @staticmethod
    def _say(what: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(Jobs().serve())
