"""The loop that asks and counts, on one thread. Called by `__main__`; calls `wire` and `histogram`.

Closed (`rate` None): each connection asks again as soon as it has its answer, so a slow server is asked less often.
Open: requests are due at a rate, whatever the answers do. A latency counts from the moment a request was due, not from
when a connection was free for it: otherwise a server that stands still for a second would look as if only a few
requests had been slow (coordinated omission; Gil Tene, "How NOT to Measure Latency"). What was due but could not be
sent by the end counts as `unsent`, with the time that it had waited by then.
"""

import random
import select
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from podium.load.histogram import Histogram
from podium.load.wire import Broken, Connection, Place

_SEED = 20
_SWEEP_SECONDS = 0.1
_PAUSE_SECONDS = 0.05
"""Before a connection that failed is opened again: a dead server must not keep the generator busy with errors."""
_READ, _WRITE = select.POLLIN, select.POLLOUT
TIMEOUT_WORDS = "no answer in time"


@dataclass(frozen=True)
class Plan:
    """One run. Times in seconds."""

    place: Place
    requests: Sequence[bytes]
    """Whole requests, asked in turn."""
    connections: int
    seconds: float
    settle: float = 0.0
    """Before `seconds`: asked, but not counted."""
    rate: float | None = None
    """Requests per second; None: closed loop."""
    random: bool = False
    """Open loop: due at random moments (Poisson), not evenly."""
    limit: int | None = None
    """Requests that are asked at most, those while settling included."""
    timeout: float = 30.0
    """For one answer, from when the request was sent."""
    first: int = 0
    """Which of `requests` comes first, so that several processes do not ask the same in step."""


@dataclass
class Found:
    """What became of a run. Only requests that were due after `settle` are in it."""

    latencies: Histogram = field(default_factory=Histogram)
    """Of every answer, whatever its status; of requests unsent or given up, as far as they had waited."""
    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Requests without an answer, by what happened."""
    samples: dict[int, str] = field(default_factory=dict)
    """The beginning of the first answer with each status that is not 2xx."""
    sent: int = 0
    """Requests that were begun, those while settling included."""
    received: int = 0
    """Bytes of counted answers."""
    unsent: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    """Share of the time that the generator itself computed: near 1 it is the bottleneck."""

    @property
    def answered(self) -> int:
        """Answers of any status."""
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        """Answers that are not 2xx, and requests without one."""
        bad = sum(count for status, count in self.statuses.items() if not 200 <= status < 300)
        return bad + sum(self.errors.values())

    def merge(self, other: "Found") -> None:
        """Adds what another process found in the same time."""
        self.latencies.merge(other.latencies)
        self.statuses.update(other.statuses)
        self.errors.update(other.errors)
        self.samples = {**other.samples, **self.samples}
        self.sent += other.sent
        self.received += other.received
        self.unsent += other.unsent
        self.seconds, self.busy = max(self.seconds, other.seconds), max(self.busy, other.busy)

    def document(self) -> dict[str, Any]:
        """For another process."""
        rest = ("sent", "received", "unsent", "seconds", "busy")
        return {
            "latencies": self.latencies.document(),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "errors": dict(self.errors),
            "samples": {str(status): text for status, text in self.samples.items()},
            **{name: getattr(self, name) for name in rest},
        }

    @classmethod
    def parse(cls, document: dict[str, Any]) -> "Found":
        """What `document` made."""
        made = {
            "latencies": Histogram.parse(document["latencies"]),
            "statuses": Counter({int(status): count for status, count in document["statuses"].items()}),
            "errors": Counter(document["errors"]),
            "samples": {int(status): text for status, text in document["samples"].items()},
        }
        return cls(**{**document, **made})


class Run:
    """One plan, carried out once. `control`: a descriptor; when it can be read `heard` is called, which may `stop`."""

    def __init__(
        self, plan: Plan, control: int | None = None, heard: Callable[[], None] = lambda: None
    ) -> None:
        self._plan, self._control, self._heard = plan, control, heard
        self.found = Found()
        self._poll = select.epoll() if hasattr(select, "epoll") else select.poll()
        self._waits = self._poll.fileno() if isinstance(self._poll, select.epoll) else None
        self._scale = 1.0 if self._waits is not None else 1000.0
        self._open: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self._again: deque[float] = deque()
        """When a connection that failed may be opened again."""
        self._asked = 0
        self._recent: list[float] = []
        self._begin = self._from = self._until = self._due = self._last = 0.0
        self._arrivals = _arrivals(plan)
        self._stopped = False

    def stop(self) -> None:
        """Ask nothing more; answers under way are waited for."""
        if not self._stopped:
            self._stopped = True
            self._until = min(self._until, time.perf_counter())

    def measure(self, tick: Callable[[Found], None] = lambda found: None) -> Found:
        """Run to the end. `tick` is given what was found so far, about once per second."""
        plan, clock = self._plan, time.perf_counter
        if self._control is not None:
            self._poll.register(self._control, _READ)
        self._begin = clock()
        self._from = self._begin + plan.settle
        self._until, self._last = self._from + plan.seconds, self._from
        self._due = self._begin + next(self._arrivals, 0.0)
        computed, shown, swept = time.process_time(), self._begin, self._begin
        try:
            if plan.rate is None:
                self._again.extend([self._begin] * plan.connections)
            while (now := clock()) < self._until and not self._exhausted():
                self._round(now)
                if now - swept > _SWEEP_SECONDS:
                    swept = now
                    self._sweep(now)
                    if now - shown > 1.0:
                        shown = now
                        self._measured(now, computed)
                        tick(self.found)
            self._finish(clock())
            self._measured(self._until if plan.rate is not None else max(self._last, self._until), computed)
        finally:
            for connection in self._open.values():
                connection.close()
            if hasattr(self._poll, "close"):
                self._poll.close()
        return self.found

    # --- the loop ----------------------------------------------------------------------------------------------

    def _exhausted(self) -> bool:
        """All requests that were allowed are asked."""
        return self._plan.limit is not None and self._asked >= self._plan.limit

    def _round(self, now: float) -> None:
        wait = min(self._until - now, _SWEEP_SECONDS)
        if self._plan.rate is None:
            while self._again and self._again[0] <= now and not self._exhausted():
                self._again.popleft()
                self._ask(None, now, now)
        else:
            while self._due <= now and self._is_free(now) and not self._exhausted():
                # Arrivals that find no free connection wait in `_arrivals`: none is forgotten, none is stored.
                due, self._due = self._due, self._begin + next(self._arrivals)
                self._ask(self._idle.pop() if self._idle else None, due, now)
            wait = min(wait, max(0.0, self._due - now)) if self._is_free(now) else wait
        if self._again:
            wait = min(wait, max(0.0, self._again[0] - now))
        self._listen(wait)

    def _is_free(self, now: float) -> bool:
        """Whether a request that is due could be sent. After a failure nothing is opened until its pause is over."""
        if self._idle:
            return True
        while self._again and self._again[0] <= now:
            self._again.popleft()
        return len(self._open) < self._plan.connections and not self._again

    def _listen(self, wait: float) -> None:
        if self._waits is not None and self._plan.rate is not None and wait > 0:
            # epoll waits in whole milliseconds, and a request that is due must not wait for that.
            select.select([self._waits], [], [], wait)
            wait = 0.0
        for handle, events in self._poll.poll(max(0.0, wait) * self._scale):
            if handle == self._control:
                self._heard()
                continue
            connection = self._open.get(handle)
            if connection is not None:
                self._serve(connection, events)

    def _ask(self, connection: Connection | None, due: float, now: float) -> None:
        """The next request, on this connection or on a new one."""
        payload = self._plan.requests[(self._plan.first + self._asked) % len(self._plan.requests)]
        self._asked += 1
        try:
            if connection is None:
                connection = Connection(self._plan.place)
                self._open[connection.fileno()] = connection
                self._poll.register(connection.fileno(), _READ | _WRITE)
            wrote = connection.wants_write
            connection.ask(payload, due, now)
        except Broken as error:
            if connection is not None:
                self._lose(connection, str(error))
                return
            self._again.append(time.perf_counter() + _PAUSE_SECONDS)
            if due >= self._from:
                self.found.errors[str(error)] += 1
            return
        if connection.wants_write and not wrote:
            self._poll.modify(connection.fileno(), _READ | _WRITE)

    def _serve(self, connection: Connection, events: int) -> None:
        try:
            if events & _WRITE:
                connection.push()
                if not connection.wants_write:
                    self._poll.modify(connection.fileno(), _READ)
            if not events & ~_WRITE or not connection.read():
                return
        except Broken as error:
            self._lose(connection, str(error))
            return
        self._count(connection)

    def _count(self, connection: Connection) -> None:
        now = self._last = time.perf_counter()
        if self._counts(connection.started, now):
            found, status = self.found, connection.status
            found.statuses[status] += 1
            found.received += connection.received
            self._recent.append(now - connection.started)
            if not 200 <= status < 300 and status not in found.samples:
                found.samples[status] = connection.sample()
        connection.finish()
        if connection.closes:
            self._drop(connection)
            if self._plan.rate is None:
                self._again.append(now)
        elif self._plan.rate is not None:
            self._idle.append(connection)
        elif now < self._until and not self._exhausted():
            self._ask(connection, now, now)

    def _counts(self, started: float, now: float) -> bool:
        """Open loop: what was due after settling. Closed: what was over after it."""
        return (now if self._plan.rate is None else started) >= self._from

    # --- what goes wrong ---------------------------------------------------------------------------------------

    def _lose(self, connection: Connection, words: str) -> None:
        """Its connection broke, under a request or idle."""
        self._drop(connection)
        now = time.perf_counter()
        if connection.busy and self._counts(connection.started, now):
            self.found.errors[words] += 1
            if words == TIMEOUT_WORDS:
                # Quick errors would make a server look quick; one that did not answer took at least this long.
                self._recent.append(now - connection.started)
        if connection in self._idle:
            self._idle.remove(connection)
        else:
            self._again.append(now + _PAUSE_SECONDS)

    def _drop(self, connection: Connection) -> None:
        self._open.pop(connection.fileno(), None)
        self._poll.unregister(connection.fileno())
        connection.close()

    def _sweep(self, now: float) -> None:
        """Latencies into their buckets, and an end to what has had its time."""
        self.found.latencies.add(self._recent)
        self._recent.clear()
        late = [
            connection
            for connection in self._open.values()
            if connection.busy and now - connection.asked > self._plan.timeout
        ]
        for connection in late:
            self._lose(connection, TIMEOUT_WORDS)

    def _finish(self, now: float) -> None:
        """The time is over: wait for what is under way, and count what was due and never sent."""
        self._until = min(self._until, now)
        while any(connection.busy for connection in self._open.values()):
            self._listen(_SWEEP_SECONDS)
            self._sweep(time.perf_counter())
        if self._plan.rate is not None and not self._exhausted():
            waiting = []
            while self._due < self._until:
                if self._due >= self._from:
                    waiting.append(self._until - self._due)
                self._due = self._begin + next(self._arrivals)
            self.found.unsent = len(waiting)
            self.found.latencies.add(waiting)
        self.found.latencies.add(self._recent)
        self._recent.clear()

    def _measured(self, now: float, computed: float) -> None:
        found = self.found
        found.sent = self._asked
        found.seconds = max(0.0, now - self._from)
        found.busy = min(1.0, (time.process_time() - computed) / max(1e-9, now - self._begin))


def _arrivals(plan: Plan) -> Iterator[float]:
    """When each request is due, in seconds from the beginning; nothing in a closed loop."""
    if plan.rate is None:
        return
    # The same arrivals in every run; no secret.
    chance = random.Random(_SEED + plan.first)  # noqa: S311
    at, number = 0.0, 0
    while True:
        yield at
        number += 1
        at = at + chance.expovariate(plan.rate) if plan.random else number / plan.rate
