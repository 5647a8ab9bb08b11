"""What each part of the chain costs: processor time of the chain without it, per request.

Called by `__main__`. Requests per second say little about a few microseconds on a machine that does other things too;
processor time says more, and of many short looks the lower ones, in which the rest of the machine was quiet, say most.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gateway.contestants import Contestant
from benchmarks.gateway.generators import Asked
from podium.load.driver import Driver, Job
from podium.load.requests import request_bytes
from podium.resources.errors import Unavailable

CONNECTIONS = 16
_SECONDS = 0.25
_SHARE = 0.2
"""Of the looks, ordered, the one that is told."""


def costs(
    contestants: Sequence[Contestant],
    whole: str,
    core: int | None,
    *,
    looks: int,
    say: Callable[[str], object],
) -> list[dict[str, Any]]:
    """Rows, the most saved first. `whole`: the name of the full chain. Raises Unavailable where a request failed."""
    jobs = {one.name: _job(one.asked) for one in contestants}
    taken: dict[str, list[float]] = {one.name: [] for one in contestants}
    with Driver(1, [] if core is None else [core]) as driver:
        for look in range(looks):
            say(f"parts of the chain: look {look + 1} of {looks}")
            for one in contestants if look % 2 == 0 else list(reversed(contestants)):
                before = processor_seconds(one.pid)
                found = driver.run(jobs[one.name])
                if found.failed:
                    raise Unavailable(f"{one.name} failed: {found.statuses} {found.errors} {found.samples}")
                if found.sent:
                    taken[one.name].append((processor_seconds(one.pid) - before) / found.sent * 1e6)
    low = {name: sorted(values)[int(_SHARE * len(values))] for name, values in taken.items() if values}
    rows = [
        {"chain": name, "cpu_us": round(value, 1), "saved_us": round(low[whole] - value, 1)}
        for name, value in low.items()
    ]
    return sorted(rows, key=lambda row: -float(str(row["saved_us"])))


def processor_seconds(pid: int) -> float:
    """That all threads of a process have computed for, to the nanosecond where the kernel tells."""
    try:
        threads = [path.read_text().split()[0] for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    except (OSError, IndexError):
        threads = []
    if threads:
        return sum(int(value) for value in threads) / 1e9
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _job(asked: Asked) -> Job:
    requests = [
        request_bytes(
            asked.path, f"127.0.0.1:{asked.port}", headers=list(headers.items()), body=asked.body.encode()
        )
        for headers in asked.headers
    ]
    return Job({"address": "127.0.0.1", "port": asked.port, "tls": None}, requests, CONNECTIONS, _SECONDS)
