"""Who asks: wrk where it is installed, else Podium's own generator. Both closed loop, bound to a core.

Called by `rounds`. wrk (Will Glozer, https://github.com/wg/wrk) is native and takes a third of the processor time per
request; Debian and Homebrew have it under this name. Requests are the same, byte for byte but for their `Host`.
"""

import json
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.runtime.contestants import bound_to
from podium.load.driver import Driver, Job
from podium.load.requests import request_bytes
from podium.resources.errors import Unavailable

_WARM = 0.3
_SCRIPT = """
local made = {}
init = function(args)
  for number, headers in ipairs(HEADERS) do
    made[number] = wrk.format("POST", PATH, headers, BODY)
  end
end
local at = 0
request = function()
  at = at % #made + 1
  return made[at]
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('JSON{"requests":%d,"microseconds":%d,"failed":%d,"p50":%f,"p99":%f}',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50.0), latency:percentile(99.0)))
end
"""


@dataclass(frozen=True)
class Asked:
    """What is asked, of whom: `headers` of each request in turn."""

    port: int
    path: str
    body: str
    headers: Sequence[dict[str, str]]


@dataclass(frozen=True)
class Figures:
    """One run. `busy`: share of the time that the generator itself computed; near 1 it is the bottleneck."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    busy: float


class NothingAnswered(Unavailable):
    """Neither an answer nor a failure in all the time."""


class Generator(Protocol):
    """Asks for some seconds. Raises Unavailable where a request failed: that would be no measurement."""

    name: str

    def measure(self, asked: Asked, connections: int, seconds: float) -> Figures:
        """One run."""


class Wrk:
    """One thread of wrk. `seconds` are whole ones to it."""

    name = "wrk"

    def __init__(self, folder: Path, core: int | None) -> None:
        self._folder, self._core = folder, core

    def measure(self, asked: Asked, connections: int, seconds: float) -> Figures:
        """See `Generator`."""
        script = self._folder / f"ask-{asked.port}.lua"
        script.write_text(_lua(asked) + _SCRIPT)
        whole = max(1, round(seconds))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with bound_to(self._core):
            done = subprocess.run(
                ["wrk", "-t1", f"-c{connections}", f"-d{whole}s", "-s", script, f"http://127.0.0.1:{asked.port}/"],
                capture_output=True, text=True, check=False, timeout=whole + 60,
            )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        _, _, told = done.stdout.partition("JSON")
        found = json.loads(told) if told else {}
        if found.get("requests") == 0:
            raise NothingAnswered(f"no answer in {whole} s at {connections} connections, port {asked.port}")
        if done.returncode or not found or found["failed"]:
            raise Unavailable(f"wrk failed: {done.stdout[-500:]} {done.stderr[-500:]} {found}")
        computed = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
        passed = found["microseconds"] / 1e6
        return Figures(
            requests=found["requests"], per_second=found["requests"] / passed, p50_ms=found["p50"] / 1000,
            p99_ms=found["p99"] / 1000, busy=min(1.0, computed / passed),
        )  # fmt: skip


class Own:
    """`podium load`'s generator, in as many processes as are asked for."""

    name = "podium load"

    def __init__(self, core: int | None, processes: int = 1) -> None:
        self._cores = [] if core is None else [core]
        self._processes = processes

    def measure(self, asked: Asked, connections: int, seconds: float) -> Figures:
        """See `Generator`."""
        requests = [
            request_bytes(
                asked.path, f"127.0.0.1:{asked.port}", headers=list(headers.items()), body=asked.body.encode()
            )
            for headers in asked.headers
        ]
        place = {"address": "127.0.0.1", "port": asked.port, "tls": None}
        with Driver(self._processes, self._cores) as driver:
            found = driver.run(Job(place, requests, connections, seconds, settle=_WARM))
        if not found.answered and not found.failed:
            raise NothingAnswered(
                f"no answer in {seconds:g} s at {connections} connections, port {asked.port}"
            )
        if found.failed:
            raise Unavailable(f"the load failed: {found.statuses} {found.errors} {found.samples}")
        took = found.latencies
        return Figures(
            requests=found.sent, per_second=found.answered / found.seconds, p50_ms=took.quantile(0.5) * 1000,
            p99_ms=took.quantile(0.99) * 1000, busy=found.busy,
        )  # fmt: skip


def best(folder: Path, core: int | None) -> Generator:
    """wrk if it is there."""
    return Wrk(folder, core) if shutil.which("wrk") else Own(core)


def _lua(asked: Asked) -> str:
    rows = []
    for headers in asked.headers:
        pairs = ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items())
        rows.append(f"{{{pairs}}}")
    first = f"local PATH = {json.dumps(asked.path)}\nlocal BODY = [==[{asked.body}]==]\n"
    return f"{first}local HEADERS = {{{', '.join(rows)}}}\n"
