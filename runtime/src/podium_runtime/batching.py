"""The queue in front of the model, and the one thread that calls it.

`core` submits jobs from the event loop; the model thread takes whatever queued up while it was busy and calls
the model once for all of it. Nothing waits for company unless `max_delay` says so. A call that fails is
repeated in halves, until the guilty request stands alone and its neighbours have their answers. Jobs whose time
is over or whose client hung up are answered from the event loop at once and skipped by the thread before they
cost a prediction.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from podium_runtime.errors import ClientGone, DeadlineExceeded, ModelFailed, QueueFull, RequestError
from podium_runtime.metrics import Metrics
from podium_runtime.tensors import Array

Outputs = Mapping[str, Array]
Predict = Callable[[Mapping[str, Array], frozenset[str] | None], dict[str, Array]]

SWEEP_SECONDS = 0.05


class Job:
    """One request's place in the queue. Made and answered in the event loop; the model thread only reads it."""

    __slots__ = ("abandoned", "deadline", "future", "inputs", "key", "on_wait", "rows", "wanted")

    def __init__(
        self,
        inputs: Mapping[str, Array],
        rows: int,
        wanted: frozenset[str] | None,
        deadline: float,
        future: "asyncio.Future[Outputs]",
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        """0 means that this job never shares a call."""
        self.wanted = wanted
        self.deadline = deadline
        self.future = future
        self.abandoned = False
        self.on_wait: Callable[[], None] | None = None
        self.key: object = None


@dataclass(frozen=True)
class Limits:
    """`max_rows` per call, `max_delay` in seconds, `max_waiting` jobs."""

    max_rows: int
    max_delay: float
    max_waiting: int


class _Task:
    """Something else for the model thread: loading, warming up."""

    __slots__ = ("future", "work")

    def __init__(self, work: Callable[[], Any], future: "asyncio.Future[Any]") -> None:
        self.work = work
        self.future = future


class Batcher:
    """Owns the model thread. All methods but those of the thread itself are called from one event loop."""

    def __init__(self, limits: Limits, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self._limits = limits
        self._metrics = metrics
        self._loop = loop
        self._queue: queue.SimpleQueue[Job | _Task | None] = queue.SimpleQueue()
        self._carried: Job | _Task | None = None
        self._pending: set[Job] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._predict: Predict = _not_serving
        # A daemon: a model that hangs must not keep a drained process alive.
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()
        metrics.queue_length = self.waiting

    def waiting(self) -> int:
        """Return how many jobs wait for the model."""
        return self._queue.qsize() + (self._carried is not None)

    def unanswered(self) -> int:
        """Return how many jobs have no answer yet, the running ones included."""
        return len(self._pending)

    def serve(self, predict: Predict) -> None:
        """Use `predict` for jobs from now on."""
        self._predict = predict

    async def run(self, work: Callable[[], Any]) -> Any:
        """Return what `work` returns, run in the model thread; raises what it raises."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put(_Task(work, future))
        return await future

    def submit(
        self, inputs: Mapping[str, Array], rows: int, wanted: frozenset[str] | None, deadline: float
    ) -> Job:
        """Queue one request and return its job; await `job.future` for the outputs.

        `deadline` is a `time.monotonic()` instant. Raises QueueFull, and the future raises DeadlineExceeded,
        ClientGone or ModelFailed.
        """
        if self._queue.qsize() >= self._limits.max_waiting:
            raise QueueFull(
                f"{self._limits.max_waiting} requests are waiting already, the most this replica allows"
            )
        job = Job(inputs, rows, wanted, deadline, self._loop.create_future())
        if rows and self._limits.max_rows > 1:
            job.key = (
                wanted,
                *((name, inputs[name].dtype, inputs[name].shape[1:]) for name in sorted(inputs)),
            )
        self._pending.add(job)
        self._queue.put(job)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        return job

    def abandon(self, job: Job) -> None:
        """Drop a job whose client hung up."""
        self._refuse(job, ClientGone("the client hung up"))

    def refuse_all(self, error: RequestError) -> int:
        """Answer every unanswered job with `error`; return how many there were."""
        jobs = list(self._pending)
        for job in jobs:
            self._refuse(job, error)
        return len(jobs)

    def stop(self) -> bool:
        """Let the thread end after what it does now; return whether it was idle and has ended."""
        self._queue.put(None)
        self._thread.join(timeout=0.2)
        return not self._thread.is_alive()

    # In the event loop.

    def _sweep(self) -> None:
        now = time.monotonic()
        for job in list(self._pending):
            if job.deadline <= now:
                self._refuse(job, DeadlineExceeded("the deadline passed before the model answered"))
            elif job.on_wait is not None:
                on_wait, job.on_wait = job.on_wait, None
                on_wait()
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._pending else None

    def _refuse(self, job: Job, error: RequestError) -> None:
        job.abandoned = True
        self._pending.discard(job)
        if not job.future.done():
            job.future.set_exception(error)

    def _answer(self, answers: Sequence[tuple[Job, Outputs | RequestError]]) -> None:
        for job, answer in answers:
            self._pending.discard(job)
            if job.future.done():
                continue
            if isinstance(answer, RequestError):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)

    # In the model thread.

    def _work(self) -> None:
        while True:
            item = self._next()
            if item is None:
                return
            if isinstance(item, _Task):
                self._run_task(item)
                continue
            answers: list[tuple[Job, Outputs | RequestError]] = []
            self._predict_batch(self._gather(item), answers)
            if answers:
                self._post(self._answer, answers)

    def _next(self) -> Job | _Task | None:
        if self._carried is not None:
            item, self._carried = self._carried, None
            return item
        return self._queue.get()

    def _gather(self, first: Job) -> list[Job]:
        """Return `first` and the compatible jobs that queued up behind it, in order, up to the limit of rows."""
        if first.key is None:
            return [first]
        batch, rows = [first], first.rows
        until = time.monotonic() + self._limits.max_delay if self._limits.max_delay else 0.0
        while rows < self._limits.max_rows:
            try:
                wait = until - time.monotonic() if until else 0.0
                item = self._queue.get(timeout=wait) if wait > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            if not isinstance(item, Job) or item.key != first.key or rows + item.rows > self._limits.max_rows:
                if item is None:
                    self._queue.put(None)
                else:
                    self._carried = item
                break
            batch.append(item)
            rows += item.rows
        return batch

    def _predict_batch(self, batch: Sequence[Job], answers: list[tuple[Job, Outputs | RequestError]]) -> None:
        now = time.monotonic()
        jobs = [job for job in batch if not job.abandoned]
        for job in jobs:
            if job.deadline <= now:
                job.abandoned = True
                answers.append(
                    (job, DeadlineExceeded("the deadline passed while the request waited for the model"))
                )
        jobs = [job for job in jobs if not job.abandoned]
        if not jobs:
            return
        try:
            answers.extend(self._call(jobs))
        except (Exception, SystemExit) as error:
            # SystemExit too: a model that calls sys.exit() must fail its request, not silently end the thread.
            if len(jobs) == 1:
                answers.append((jobs[0], ModelFailed(error)))
                return
            self._metrics.splits += 1
            # What is known already goes out before the halves are tried, which may take a while.
            self._post(self._answer, list(answers))
            answers.clear()
            middle = len(jobs) // 2
            self._predict_batch(jobs[:middle], answers)
            self._predict_batch(jobs[middle:], answers)

    def _call(self, jobs: Sequence[Job]) -> list[tuple[Job, Outputs | RequestError]]:
        first = jobs[0]
        rows = sum(job.rows for job in jobs)
        if len(jobs) == 1:
            inputs = first.inputs
        else:
            inputs = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in first.inputs}
        started = time.perf_counter()
        try:
            outputs = self._predict(inputs, first.wanted)
        finally:
            self._metrics.predict_seconds.observe(time.perf_counter() - started)
            self._metrics.batch_rows.observe(max(rows, 1))
        if len(jobs) == 1:
            return [(first, outputs)]
        for name, array in outputs.items():
            if array.ndim == 0 or array.shape[0] != rows:
                raise ValueError(f"output {name} has shape {list(array.shape)} for {rows} rows")
        answers: list[tuple[Job, Outputs | RequestError]] = []
        start = 0
        for job in jobs:
            end = start + job.rows
            answers.append((job, {name: array[start:end] for name, array in outputs.items()}))
            start = end
        return answers

    def _run_task(self, task: _Task) -> None:
        try:
            result = task.work()
        except BaseException as error:
            self._post(_set_exception, task.future, error)
        else:
            self._post(_set_result, task.future, result)

    def _post(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            # The loop was closed while a model hung past the drain; nobody is left to answer.
            return


def _not_serving(inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
    raise RuntimeError("a job was submitted before serve()")


def _set_result(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
