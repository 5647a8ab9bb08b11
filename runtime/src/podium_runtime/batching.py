"""The queue in front of the model, and the one thread that calls it.

`core` submits jobs from the event loop; the model thread takes whatever queued up while it was busy and calls the
model once for all of it. Nothing waits for company unless `max_delay` says so. A model that may be called from any
thread and is quick is called by the event loop itself while its thread is idle: with everything that arrived in one
turn of the loop. Jobs whose time is over or whose client hung up are answered from the event loop at once and
skipped before they cost a prediction.

A stream takes its place at the end of the queue again for every event: between two of its events everything that
waited gets its turn.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from podium_runtime.calling import Answers, Caller, Pace
from podium_runtime.errors import ClientGone, DeadlineExceeded, ModelFailed, QueueFull, RequestError
from podium_runtime.jobs import Job, Limits, Outcome, Predict, PredictStream, PredictUntil, Stream, Task
from podium_runtime.logs import frames
from podium_runtime.metrics import Metrics
from podium_runtime.tensors import Array

SWEEP_SECONDS = 0.05
_LOOKS = 3
"""Turns of the event loop in which requests are gathered, at most."""
_ENOUGH = 16
"""Rows for which a call of the model need not become any larger: beyond, clients would only be idle together."""

log = logging.getLogger(__name__)


class Batcher:
    """Owns the model thread. All methods but those of the thread itself are called from one event loop."""

    def __init__(self, limits: Limits, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self._limits = limits
        self._loop = loop
        self.caller = Caller(metrics)
        self._pace = Pace()
        self._any_thread = False
        self._queue: queue.SimpleQueue[Job | Stream | Task | None] = queue.SimpleQueue()
        self._carried: Job | Stream | Task | None = None
        self._fresh: list[Job] = []
        self._seen = self._turns = 0
        self._together = 1
        """Requests that the last call of the event loop was for."""
        self._in_thread = 0
        self._pending: set[Job | Stream] = set()
        self._streams = 0
        self._sweeper: asyncio.TimerHandle | None = None
        # A daemon: a model that hangs must not keep a drained process alive.
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self.on_death: Callable[[BaseException], object] = _log_death
        """Called by the model thread when it ends by an error, after which no job would ever be answered."""
        self._thread.start()
        metrics.queue_length = self.waiting
        metrics.streams = lambda: self._streams

    def waiting(self) -> int:
        """Return how many jobs wait for the model."""
        return self._queue.qsize() + (self._carried is not None) + len(self._fresh)

    def unanswered(self) -> int:
        """Return how many jobs have no answer yet, the running ones included."""
        return len(self._pending)

    def serve(
        self,
        predict: Predict,
        any_thread: bool = False,
        stream: PredictStream | None = None,
        until: PredictUntil | None = None,
    ) -> None:
        """Use `predict` for jobs from now on, `until` for those alone where there is one, and `stream` for streams.

        `any_thread` says that `predict` may be called from one thread now and from another next.
        """
        self.caller.predict = predict
        self.caller.predict_until = until
        if stream is not None:
            self.caller.predict_stream = stream
        self._any_thread = any_thread and not self._limits.max_delay

    async def run(self, work: Callable[[], Any]) -> Any:
        """Return what `work` returns, run in the model thread; raises what it raises."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._hand_over(Task(work, future))
        return await future

    def submit(self, job: Job) -> None:
        """Queue one request. Raises QueueFull.

        Its `answer` is called with the outputs, or with DeadlineExceeded, ClientGone, ModelFailed or what the model
        refused the input for.
        """
        most = self._limits.max_waiting
        if self._in_thread + len(self._fresh) >= most and self.waiting() >= most:
            raise QueueFull(f"{most} requests are waiting already, the most this replica allows")
        if job.rows and self._limits.max_rows > 1:
            inputs = job.inputs
            key: list[object] = [job.wanted]
            for name in sorted(inputs) if len(inputs) > 1 else inputs:
                array = inputs[name]
                key += (name, array.dtype, array.shape[1:])
            job.key = tuple(key)
        self._wait(job)
        if self._in_thread or not self._any_thread:
            self._hand_over(job)
        else:
            if not self._fresh:
                self._loop.call_soon(self._dispatch)
            self._fresh.append(job)

    def submit_stream(
        self, inputs: Mapping[str, Array], timeout: float, emit: Callable[[Outcome | None], None]
    ) -> Stream:
        """Queue a streamed answer, each event of which may take `timeout` seconds. Raises QueueFull."""
        if self._streams >= self._limits.max_streams:
            raise QueueFull(
                f"{self._streams} answers are being streamed already, the most this replica allows"
            )
        self._streams += 1
        stream = Stream(inputs, timeout, emit)
        self.resume(stream)
        return stream

    def resume(self, stream: Stream) -> None:
        """Ask for a stream's next event."""
        if not stream.over:
            stream.deadline = time.monotonic() + stream.timeout
            self._wait(stream)
            self._hand_over(stream)

    def abandon(self, waiting: Job | Stream) -> None:
        """Drop a request whose client hung up."""
        self._refuse(waiting, ClientGone("the client hung up"))

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

    def _wait(self, waiting: Job | Stream) -> None:
        self._pending.add(waiting)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _hand_over(self, item: Job | Stream | Task) -> None:
        self._in_thread += 1
        self._queue.put(item)

    def _dispatch(self) -> None:
        """Call the model for what arrived in this turn of the loop, or hand it over to the model's thread."""
        if self._grows():
            self._loop.call_soon(self._dispatch)
            return
        fresh, self._fresh = self._fresh, []
        self._turns, self._seen, self._together = 0, 0, len(fresh)
        place = 0
        while place < len(fresh):
            batch, rows = self._compatible(fresh, place)
            place += len(batch)
            # Only requests that may share a call have a number of rows, by which calls can be compared.
            if self._in_thread or not rows or not self._pace.is_quick(rows):
                for job in batch:
                    self._hand_over(job)
                continue
            started, processor = time.perf_counter(), time.thread_time()
            answers = self.caller.answer(batch, self._answer)
            self._pace.in_loop(rows, time.perf_counter() - started, time.thread_time() - processor)
            self._answer(answers)

    def _grows(self) -> bool:
        """Return whether to look once more at what has arrived before the model is called.

        Under load more requests lie in the sockets by the time that the first ones are read: nobody is waited for, but
        what is there goes together. A request that comes alone, as the last one did, is not held up by a look.
        """
        arrived = len(self._fresh)
        if arrived <= self._seen or self._turns == _LOOKS or arrived == self._together == 1:
            return False
        self._seen = arrived
        self._turns += 1
        return arrived < _ENOUGH

    def _compatible(self, jobs: Sequence[Job], place: int) -> tuple[Sequence[Job], int]:
        """Return the job at `place` with the compatible ones right behind it, and their rows."""
        first = jobs[place]
        rows, end = first.rows, place + 1
        if first.key is not None:
            while end < len(jobs):
                job = jobs[end]
                if job.key != first.key or rows + job.rows > self._limits.max_rows:
                    break
                rows += job.rows
                end += 1
        return jobs[place:end], rows

    def _sweep(self) -> None:
        now = time.monotonic()
        for waiting in list(self._pending):
            if waiting.deadline <= now:
                self._refuse(waiting, DeadlineExceeded("the deadline passed before the model answered"))
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._pending else None

    def _refuse(self, waiting: Job | Stream, error: RequestError) -> None:
        if isinstance(waiting, Stream):
            self._end_stream(waiting, error)
        elif not waiting.abandoned:
            waiting.abandoned = True
            self._tell(waiting, error)

    def _answer(self, answers: Answers) -> None:
        for job, outcome in answers:
            if job in self._pending:
                self._tell(job, outcome)

    def _tell(self, job: Job, outcome: Outcome) -> None:
        self._pending.discard(job)
        try:
            job.answer(outcome)
        except BaseException as error:
            # One answer that cannot be written must not cost its neighbours theirs.
            _log_lost(error)

    def _answered(self, answers: Answers, done: int) -> None:
        self._in_thread -= done
        self._answer(answers)

    def _event(self, stream: Stream, outcome: Outcome | None) -> None:
        self._in_thread -= 1
        self._pending.discard(stream)
        if stream.over:
            self._release(stream)
        elif outcome is None or isinstance(outcome, RequestError):
            stream.iterator = None
            self._end_stream(stream, outcome)
        else:
            self._emit(stream, outcome)

    def _emit(self, stream: Stream, outcome: Outcome | None) -> None:
        try:
            stream.emit(outcome)
        except BaseException as error:
            if stream.over:
                _log_lost(error)
            else:
                # Without a reason, what was broken off would look complete.
                failed = error if isinstance(error, RequestError) else ModelFailed(error)
                self._end_stream(stream, failed)

    def _end_stream(self, stream: Stream, outcome: RequestError | None) -> None:
        """End a stream, whether it waits for the model, is in it, or waits for its reader."""
        if stream.over:
            return
        stream.over = True
        self._streams -= 1
        waits = stream in self._pending
        self._pending.discard(stream)
        if not waits:
            self._release(stream)
        self._emit(stream, outcome)

    def _release(self, stream: Stream) -> None:
        if stream.iterator is not None:
            self._hand_over(stream)

    # In the model thread.

    def _work(self) -> None:
        try:
            while (item := self._next()) is not None:
                if isinstance(item, Job):
                    self._run_batch(item)
                elif isinstance(item, Stream):
                    self._run_stream(item)
                else:
                    self._run_task(item)
        except BaseException as error:
            self.on_death(error)

    def _next(self) -> Job | Stream | Task | None:
        if self._carried is not None:
            item, self._carried = self._carried, None
            return item
        return self._queue.get()

    def _run_batch(self, first: Job) -> None:
        batch, rows = self._gather(first)
        started = time.perf_counter()
        answers = self.caller.answer(batch, lambda known: self._post(self._answer, known))
        if rows:
            self._pace.in_thread(rows, time.perf_counter() - started)
        self._post(self._answered, answers, len(batch))

    def _gather(self, first: Job) -> tuple[list[Job], int]:
        """Return `first` and the compatible jobs that queued up behind it, in order, and their rows."""
        if first.key is None:
            return [first], first.rows
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
        return batch, rows

    def _run_stream(self, stream: Stream) -> None:
        if not stream.over:
            self._post(self._event, stream, self.caller.advance(stream))
            return
        if error := self.caller.close(stream):
            extra = {"exception": type(error).__name__, "frames": frames(error.__traceback__)}
            log.warning("the model failed on the end of a stream", extra=extra)
        self._post(self._event, stream, None)

    def _run_task(self, task: Task) -> None:
        try:
            result = task.work()
        except BaseException as error:
            self._post(self._done, task.future, None, error)
        else:
            self._post(self._done, task.future, result, None)

    def _done(self, future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
        self._in_thread -= 1
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _post(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            # The loop was closed while a model hung past the drain; nobody is left to answer.
            return


def _log_death(error: BaseException) -> None:
    extra = {"exception": type(error).__name__, "frames": frames(error.__traceback__)}
    log.critical("the model's thread has ended", extra=extra)


def _log_lost(error: BaseException) -> None:
    extra = {"exception": type(error).__name__, "frames": frames(error.__traceback__)}
    log.error("an answer could not be given", extra=extra)
