"""What stands in the queue in front of the model: requests, streams, and other work for its thread.

`core` asks `batching` to make them; `calling` works them off.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from podium_runtime.errors import RequestError
from podium_runtime.tensors import Array

Outputs = Mapping[str, Array]
Outcome = Outputs | RequestError
Predict = Callable[[Mapping[str, Array], frozenset[str] | None], dict[str, Array]]
PredictUntil = Callable[[Mapping[str, Array], frozenset[str] | None, Callable[[], bool]], dict[str, Array]]
PredictStream = Callable[[Mapping[str, Array]], Iterator[Outputs]]


@dataclass(frozen=True)
class Limits:
    """`max_rows` per call, `max_delay` in seconds, `max_waiting` jobs, `max_streams` under way."""

    max_rows: int
    max_delay: float
    max_waiting: int
    max_streams: int


class Job:
    """One request's place in the queue. Made and answered in the event loop.

    The model thread writes nothing of it but `abandoned`, for a job whose time is over.

    `answer` is called exactly once, in the event loop, with the outputs or with why there are none.
    """

    __slots__ = ("abandoned", "answer", "deadline", "inputs", "key", "rows", "wanted")

    def __init__(
        self,
        inputs: Mapping[str, Array],
        rows: int,
        wanted: frozenset[str] | None,
        deadline: float,
        answer: Callable[[Outcome], None],
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        """0 means that this job never shares a call."""
        self.wanted = wanted
        self.deadline = deadline
        """A `time.monotonic()` instant."""
        self.answer = answer
        self.abandoned = False
        """Answered already: it must cost no prediction any more."""
        self.key: object = None
        """Jobs with the same key may share a call; None shares with nobody."""

    def is_over(self) -> bool:
        """Whether nobody waits for the answer any more: answered otherwise, or its time is over."""
        return self.abandoned or time.monotonic() >= self.deadline


class Stream:
    """One streamed answer. It stands in the queue once per event, behind whatever came in the meantime.

    `emit` is called in the event loop with each event, then once with None at the end or with the error that ended
    it. After an event nothing happens until `Batcher.resume`: a reader who is slow holds back the model's generator
    and nobody else.
    """

    __slots__ = ("deadline", "emit", "inputs", "iterator", "over", "timeout")

    def __init__(
        self, inputs: Mapping[str, Array], timeout: float, emit: Callable[[Outcome | None], None]
    ) -> None:
        self.inputs = inputs
        self.timeout = timeout
        """Seconds that each event may take."""
        self.emit = emit
        self.deadline = 0.0
        self.iterator: Iterator[Outputs] | None = None
        self.over = False
        """Whether nobody wants more of it: the model thread then only closes the iterator."""


class Task:
    """Something else for the model thread: loading, warming up."""

    __slots__ = ("future", "work")

    def __init__(self, work: Callable[[], Any], future: "asyncio.Future[Any]") -> None:
        self.work = work
        self.future = future
