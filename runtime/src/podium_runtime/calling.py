"""Calls of the model: for several jobs at once, in halves when that fails, and event by event for streams.

Used by `batching`, from the model thread, or from the event loop itself for models that are quick and may be called
from any thread: then there is no hand-over between threads, which costs more than such a call. `Pace` decides which.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from podium_runtime.errors import DeadlineExceeded, ModelFailed, RequestError
from podium_runtime.jobs import Job, Outcome, Outputs, Predict, PredictStream, PredictUntil, Stream
from podium_runtime.metrics import Metrics
from podium_runtime.tensors import Array

Answers = list[tuple[Job, Outcome]]

QUICK_SECONDS = 0.002
"""A call that takes less may run in the event loop; the hand-over to a thread and back costs about 0.1 ms."""
_MEASURED = 8
_BAN_SECONDS = 10.0


class Caller:
    """Calls the model. Never used by two threads at once; `batching` sees to that."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.predict: Predict = _not_serving
        self.predict_until: PredictUntil | None = None
        """`predict` of a model that can be stopped (`port.Stoppable`)."""
        self.predict_stream: PredictStream = _not_streaming
        self.entered = 0.0
        """The `time.monotonic()` instant at which the model was entered; 0 while it is not being called."""

    def answer(self, batch: Sequence[Job], early: Callable[[Answers], None]) -> Answers:
        """Return the answers of a batch, whose jobs are compatible.

        A call that fails is repeated in halves, until the guilty request stands alone and its neighbours have their
        answers. A RequestError of the flavor's own (InvalidInput, say) is that request's answer as it stands, anything
        else becomes ModelFailed. What is known by then goes to `early`, since trying the halves may take a while.
        Jobs that were answered otherwise are left out, those whose time is over cost no prediction.
        """
        answers: Answers = []
        self._halve(batch, answers, early)
        return answers

    def _halve(self, batch: Sequence[Job], answers: Answers, early: Callable[[Answers], None]) -> None:
        now = time.monotonic()
        jobs = []
        for job in batch:
            if job.abandoned:
                continue
            if job.deadline <= now:
                job.abandoned = True
                late = DeadlineExceeded("the deadline passed while the request waited for the model")
                answers.append((job, late))
            else:
                jobs.append(job)
        if not jobs:
            return
        try:
            answers.extend(self._call(jobs, now))
        except BaseException as error:
            # All of them: sys.exit() in a model, its CancelledError or a panic of its native library must fail one
            # request, not silently end the thread.
            if len(jobs) == 1:
                answers.append((jobs[0], _reason(error)))
                return
            self._metrics.splits += 1
            early(list(answers))
            answers.clear()
            middle = len(jobs) // 2
            self._halve(jobs[:middle], answers, early)
            self._halve(jobs[middle:], answers, early)

    def _call(self, jobs: Sequence[Job], now: float) -> Answers:
        first = jobs[0]
        alone = len(jobs) == 1
        rows = first.rows
        if alone:
            inputs = first.inputs
        else:
            rows = sum(job.rows for job in jobs)
            inputs = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in first.inputs}
        started = time.perf_counter()
        self.entered = now
        try:
            if alone and self.predict_until is not None:
                outputs = self.predict_until(inputs, first.wanted, first.is_over)
            else:
                outputs = self.predict(inputs, first.wanted)
        finally:
            self.entered = 0.0
            self._metrics.predict_seconds.observe(time.perf_counter() - started)
            self._metrics.batch_rows.observe(rows or 1)
        return [(first, outputs)] if alone else _shares(jobs, rows, outputs)

    def advance(self, stream: Stream) -> Outcome | None:
        """Return a stream's next event, None at its end, or why it fails."""
        self.entered = time.monotonic()
        started = time.perf_counter()
        try:
            if stream.iterator is None:
                stream.iterator = iter(self.predict_stream(stream.inputs))
            return next(stream.iterator, None)
        except BaseException as error:
            return _reason(error)
        finally:
            self.entered = 0.0
            self._metrics.event_seconds.observe(time.perf_counter() - started)

    def close(self, stream: Stream) -> BaseException | None:
        """End a stream that nobody wants any more; return what its generator raised on being closed."""
        close = getattr(stream.iterator, "close", None)
        stream.iterator = None
        if close is None:
            return None
        self.entered = time.monotonic()
        try:
            close()
        except BaseException as error:
            return error
        finally:
            self.entered = 0.0
        return None


def _reason(error: BaseException) -> RequestError:
    """Return why a request gets no prediction: what a flavor or the user's class refused it for, or its failure."""
    # A class of the user's own below InvalidInput may have left its beginning out, and then has nothing to tell.
    if isinstance(error, RequestError) and hasattr(error, "message"):
        return error
    return ModelFailed(error)


def _shares(jobs: Sequence[Job], rows: int, outputs: Mapping[str, Array]) -> Answers:
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != rows:
            raise ValueError(f"output {name} has shape {list(array.shape)} for {rows} rows")
    answers: Answers = []
    start = 0
    for job in jobs:
        end = start + job.rows
        answers.append((job, {name: array[start:end] for name, array in outputs.items()}))
        start = end
    return answers


def _not_serving(inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
    raise RuntimeError("a job was submitted before a model was there")


def _not_streaming(inputs: Mapping[str, Array]) -> Iterator[Outputs]:
    raise RuntimeError("a stream was submitted to a model that has none")


class Pace:
    """How long calls take, by their number of rows: which ones may run in the event loop.

    Calls in the model's thread qualify a size (in powers of two) once the quickest of the last eight took less than
    QUICK_SECONDS: the quickest, because under load that thread also waits for the interpreter. Calls in the event
    loop that took processor time beyond that, or ten times as long on the clock (a busy machine takes a processor
    away now and then), are slow: three in a row, or one with ten times the processor time, send this size back to
    the thread for ten seconds.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, _Size] = {}

    def is_quick(self, rows: int) -> bool:
        """Return whether a call with that many rows is expected to be quick."""
        size = self._sizes.get(rows.bit_length())
        return size is not None and size.quick

    def in_thread(self, rows: int, seconds: float) -> None:
        """Note a call that ran in the model's thread."""
        size = self._sizes.get(rows.bit_length())
        if size is None:
            size = self._sizes[rows.bit_length()] = _Size()
        recent = size.recent
        recent.append(seconds)
        if len(recent) == _MEASURED and min(recent) < QUICK_SECONDS and time.monotonic() >= size.banned_until:
            size.quick = True

    def in_loop(self, rows: int, seconds: float, processor: float) -> None:
        """Note a call that ran in the event loop: seconds on the clock, and seconds of the processor."""
        size = self._sizes[rows.bit_length()]
        if processor < QUICK_SECONDS and seconds < 10 * QUICK_SECONDS:
            size.slow = 0
            return
        size.slow += 1
        if size.slow >= 3 or processor >= 10 * QUICK_SECONDS:
            size.quick, size.slow = False, 0
            size.banned_until = time.monotonic() + _BAN_SECONDS
            size.recent.clear()


class _Size:
    __slots__ = ("banned_until", "quick", "recent", "slow")

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=_MEASURED)
        self.quick = False
        self.slow = 0
        self.banned_until = 0.0
