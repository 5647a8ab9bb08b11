"""What one replica counts, and its Prometheus text.

`batching`, `calling` and `http` count here; `http` serves the text at /metrics. Written out by hand because the
model's environment should not have to carry a metrics library. Counters are touched from the event loop and from the
model thread, but never a single one by both at the same time.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path

from podium_runtime.config import Served

BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """Counts of observations at or below each bound, cumulative only when written."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> list[str]:
        """Return the sample lines of this histogram in Prometheus text format 0.0.4."""
        total = 0
        lines = []
        for bound, count in zip((*map(_number, self.bounds), "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
        return [*lines, f"{name}_sum{{{labels}}} {_number(self._sum)}", f"{name}_count{{{labels}}} {total}"]


class Metrics:
    """The replica's counters. Labels are model, version and revision: bounded, as one process serves one revision."""

    def __init__(self, served: Served) -> None:
        labels = {"model": served.name, "version": served.version, "revision": served.revision}
        self._labels = ",".join(f'{key}="{_escape(value)}"' for key, value in labels.items())
        self.requests: dict[int, int] = {}
        """Infer requests by status code; 499 stands for a client that hung up."""
        self.request_seconds = Histogram(SECONDS)
        self.batch_rows = Histogram(BATCH_ROWS)
        self.predict_seconds = Histogram(SECONDS)
        self.event_seconds = Histogram(SECONDS)
        self.cascade: dict[str, int] = {}
        """Answers in a cascade by how sure they were."""
        self.splits = 0
        """Failed batches that were split in halves."""
        self.queue_length: Callable[[], int] = lambda: 0
        self.streams: Callable[[], int] = lambda: 0
        self.connections: Callable[[], int] = lambda: 0
        self.ready: Callable[[], bool] = lambda: False

    def count_request(self, code: int, seconds: float) -> None:
        """Count one answered infer request that took `seconds` from its headers to its answer."""
        self.requests[code] = self.requests.get(code, 0) + 1
        self.request_seconds.observe(seconds)

    def count_cascade(self, said: str) -> None:
        """Count one answer that the gateway wanted to know the confidence of: `sure`, `unsure` or `unknown`."""
        self.cascade[said] = self.cascade.get(said, 0) + 1

    def text(self) -> bytes:
        """Return everything in Prometheus text format 0.0.4."""
        at = self._labels
        lines = _head("requests_total", "counter", "Infer requests by status code.")
        lines += [
            f'podium_runtime_requests_total{{{at},code="{code}"}} {count}'
            for code, count in sorted(self.requests.items())
        ]
        for name, histogram, words in (
            (
                "request_seconds",
                self.request_seconds,
                "Seconds from an infer request's headers to its answer.",
            ),
            ("batch_rows", self.batch_rows, "Rows per call of the model."),
            ("predict_seconds", self.predict_seconds, "Seconds per call of the model."),
            ("event_seconds", self.event_seconds, "Seconds of the model per event of a streamed answer."),
        ):
            lines += _head(name, "histogram", words)
            lines += histogram.lines(f"podium_runtime_{name}", at)
        if self.cascade:
            lines += _head("cascade_total", "counter", "Answers in front of a larger model, by confidence.")
            lines += [
                f'podium_runtime_cascade_total{{{at},said="{said}"}} {count}'
                for said, count in sorted(self.cascade.items())
            ]
        for name, kind, value, words in self._single():
            lines += _head(name, kind, words)
            lines.append(f"podium_runtime_{name}{{{at}}} {value}")
        return ("\n".join(lines) + "\n").encode()

    def _single(self) -> list[tuple[str, str, int, str]]:
        ready = "1 once the model is loaded and warm, 0 before and while draining."
        singles = [
            ("batch_splits_total", "counter", self.splits, "Failed batches that were split in halves."),
            ("queue_length", "gauge", self.queue_length(), "Requests waiting for the model."),
            ("streams", "gauge", self.streams(), "Streamed answers under way."),
            ("connections", "gauge", self.connections(), "Open HTTP connections."),
            ("ready", "gauge", int(self.ready()), ready),
        ]
        memory = resident_bytes()
        if memory is not None:
            singles.append(("resident_memory_bytes", "gauge", memory, "Resident memory of this process."))
        return singles


_STATM = Path("/proc/self/statm")


def resident_bytes() -> int | None:
    """Return this process's resident memory in bytes; None where the system has no /proc to tell it."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _head(name: str, kind: str, words: str) -> list[str]:
    return [f"# HELP podium_runtime_{name} {words}", f"# TYPE podium_runtime_{name} {kind}"]


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) else repr(value)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
