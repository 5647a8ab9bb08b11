"""The queue and the model thread: who goes together, who is dropped, and who gets whose answer."""

import asyncio
import contextlib
import threading
import time

import numpy as np
import pytest

from podium_runtime.batching import Batcher
from podium_runtime.calling import QUICK_SECONDS
from podium_runtime.config import Served
from podium_runtime.errors import (
    ClientGone,
    DeadlineExceeded,
    ModelFailed,
    NotReady,
    QueueFull,
    RequestError,
)
from podium_runtime.jobs import Job, Limits
from podium_runtime.metrics import Metrics


class Gate:
    """A model that doubles its input, records the rows of every call, and can be held."""

    def __init__(self):
        self.calls = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.refuse = set()

    def __call__(self, inputs, wanted):
        x = inputs["x"]
        self.calls.append([float(v) for v in x[:, 0]])
        self.entered.set()
        assert self.open.wait(30)
        if self.refuse.intersection(x[:, 0]):
            raise ValueError("one of them is bad")
        return {"y": x * 2}


@contextlib.asynccontextmanager
async def batcher(gate, max_rows=64, max_delay=0.0, max_waiting=1000):
    made = Batcher(
        Limits(max_rows, max_delay, max_waiting, max_streams=2),
        Metrics(Served("m", "1", "w", "r")),
        asyncio.get_running_loop(),
    )
    made.serve(gate)
    try:
        yield made
    finally:
        gate.open.set()
        assert made.stop()


class Asked:
    """A submitted job and the future of its answer, which must come exactly once."""

    def __init__(self, made, inputs, rows, wanted, deadline):
        self.future = asyncio.get_running_loop().create_future()
        self.job = Job(inputs, rows, wanted, deadline, self._answer)
        made.submit(self.job)

    def _answer(self, outcome):
        if isinstance(outcome, RequestError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


def submit(made, *values, seconds=30.0, wanted=None, by_row=True):
    inputs = {"x": np.array(values, dtype=float).reshape(-1, 1)}
    return Asked(made, inputs, len(values) if by_row else 0, wanted, time.monotonic() + seconds)


async def hold(made, gate):
    """Occupy the model with one job and return it."""
    gate.open.clear()
    job = submit(made, 0)
    await asyncio.to_thread(gate.entered.wait, 30)
    return job


def test_what_queued_up_goes_together_and_everyone_gets_their_own():
    async def main():
        gate = Gate()
        async with batcher(gate) as made:
            first = await hold(made, gate)
            jobs = [submit(made, value, value + 0.5) for value in range(1, 6)]
            assert made.waiting() == 5
            gate.open.set()
            assert (await first.future)["y"].tolist() == [[0.0]]
            for value, job in enumerate(jobs, 1):
                assert (await job.future)["y"].tolist() == [[2.0 * value], [2.0 * value + 1]]
            assert [len(call) for call in gate.calls] == [1, 10]
            assert made.unanswered() == 0

    asyncio.run(main())


def test_no_call_has_more_rows_than_allowed_but_a_large_request_goes_alone():
    async def main():
        gate = Gate()
        async with batcher(gate, max_rows=4) as made:
            await hold(made, gate)
            jobs = [
                submit(made, 1, 2, 3),
                submit(made, 4, 5),
                submit(made, *range(10, 20)),
                submit(made, 6, 7),
            ]
            gate.open.set()
            await asyncio.gather(*(job.future for job in jobs))
            assert [len(call) for call in gate.calls] == [1, 3, 2, 10, 2]

    asyncio.run(main())


def test_different_requests_do_not_mix():
    async def main():
        gate = Gate()
        async with batcher(gate) as made:
            await hold(made, gate)
            jobs = [
                submit(made, 1),
                submit(made, 2, wanted=frozenset({"y"})),
                submit(made, 3, by_row=False),
                submit(made, 4),
            ]
            gate.open.set()
            await asyncio.gather(*(job.future for job in jobs))
            assert gate.calls == [[0], [1], [2], [3], [4]]

    asyncio.run(main())


def test_a_delay_waits_for_company():
    async def main():
        gate = Gate()
        async with batcher(gate, max_rows=3, max_delay=30) as made:
            jobs = [submit(made, value) for value in range(3)]
            await asyncio.gather(*(job.future for job in jobs))
            assert gate.calls == [[0, 1, 2]]

    asyncio.run(main())


@pytest.mark.parametrize("bad", [{3.0}, {1.0, 8.0}, {float(n) for n in range(1, 9)}])
def test_a_guilty_request_stands_alone_and_its_neighbours_are_answered(bad):
    async def main():
        gate = Gate()
        gate.refuse = bad
        async with batcher(gate) as made:
            await hold(made, gate)
            jobs = {value: submit(made, value) for value in range(1, 9)}
            gate.open.set()
            for value, job in jobs.items():
                if value in bad:
                    with pytest.raises(ModelFailed, match="ValueError: one of them is bad"):
                        await job.future
                else:
                    assert (await job.future)["y"].tolist() == [[2.0 * value]]

    asyncio.run(main())


def test_a_model_that_loses_rows_is_asked_one_by_one():
    async def main():
        gate = Gate()
        rows = []

        def lossy(inputs, wanted):
            outputs = gate(inputs, wanted)
            rows.append(len(inputs["x"]))
            return {"y": outputs["y"][:1]}

        async with batcher(gate) as made:
            made.serve(lossy)
            await hold(made, gate)
            jobs = [submit(made, value) for value in range(1, 4)]
            gate.open.set()
            answers = [(await job.future)["y"].tolist() for job in jobs]
            assert answers == [[[2.0]], [[4.0]], [[6.0]]]
            assert rows[-1] == 1

    asyncio.run(main())


def test_a_full_queue_refuses():
    async def main():
        gate = Gate()
        async with batcher(gate, max_waiting=2) as made:
            await hold(made, gate)
            jobs = [submit(made, 1), submit(made, 2)]
            with pytest.raises(QueueFull):
                submit(made, 3)
            gate.open.set()
            await asyncio.gather(*(job.future for job in jobs))

    asyncio.run(main())


def test_expired_requests_are_answered_at_once_and_cost_no_prediction():
    async def main():
        gate = Gate()
        async with batcher(gate) as made:
            running = await hold(made, gate)
            late, fine = submit(made, 1, seconds=0.01), submit(made, 2)
            with pytest.raises(DeadlineExceeded):
                await asyncio.wait_for(late.future, 10)  # while the model is still held
            assert not running.future.done()
            gate.open.set()
            await fine.future
            assert gate.calls == [[0], [2]]

    asyncio.run(main())


def test_a_request_that_the_model_hangs_on_is_answered_at_its_deadline():
    async def main():
        gate = Gate()
        gate.open.clear()
        async with batcher(gate) as made:
            with pytest.raises(DeadlineExceeded):
                await asyncio.wait_for(submit(made, 1, seconds=0.01).future, 10)

    asyncio.run(main())


def test_a_request_whose_client_went_away_costs_no_prediction():
    async def main():
        gate = Gate()
        async with batcher(gate) as made:
            await hold(made, gate)
            gone, fine = submit(made, 1), submit(made, 2)
            made.abandon(gone.job)
            with pytest.raises(ClientGone):
                await gone.future
            gate.open.set()
            await fine.future
            assert gate.calls == [[0], [2]]

    asyncio.run(main())


def test_the_rest_is_refused_when_the_drain_runs_out():
    async def main():
        gate = Gate()
        async with batcher(gate) as made:
            running = await hold(made, gate)
            waiting = submit(made, 1)
            assert made.refuse_all(NotReady("stopped")) == 2
            for job in (running, waiting):
                with pytest.raises(NotReady):
                    await job.future

    asyncio.run(main())


def test_other_work_runs_in_the_model_thread_and_raises_there():
    async def main():
        gate = Gate()
        async with batcher(gate) as made:
            assert await made.run(lambda: threading.current_thread().name) == "model"
            with pytest.raises(ZeroDivisionError):
                await made.run(lambda: 1 // 0)

    asyncio.run(main())


async def made_quick(made, calls=8):
    """Show the batcher that calls of one row are quick, as a replica's first requests do."""
    for value in range(calls):
        await submit(made, value).future


class Threads(Gate):
    """A gate that also records the thread of every call, and takes as much processor time as it is told."""

    def __init__(self):
        super().__init__()
        self.threads = []
        self.seconds = 0.0

    def __call__(self, inputs, wanted):
        self.threads.append(threading.current_thread().name)
        until = time.thread_time() + self.seconds
        while time.thread_time() < until:
            pass
        return super().__call__(inputs, wanted)


def test_a_quick_model_is_called_by_the_loop_with_all_that_came_in_one_turn():
    async def main():
        gate = Threads()
        async with batcher(gate) as made:
            made.serve(gate, any_thread=True)
            await made_quick(made)
            assert set(gate.threads) == {"model"}
            gate.threads.clear()
            gate.calls.clear()
            assert (await submit(made, 5).future)["y"].tolist() == [[10.0]]
            assert gate.threads == [threading.current_thread().name]
            # Two rows were never measured: they go to the thread until they were.
            for _ in range(9):
                await asyncio.gather(*(asked.future for asked in (submit(made, 1), submit(made, 2))))
            assert gate.calls[-1] == [1.0, 2.0]
            assert gate.threads[-1] == threading.current_thread().name

    asyncio.run(main())


def test_what_arrives_while_requests_are_gathered_goes_along_and_nobody_is_waited_for():
    async def main():
        gate = Threads()
        async with batcher(gate) as made:
            made.serve(gate, any_thread=True)
            await made_quick(made)
            for _ in range(9):
                await asyncio.gather(*(submit(made, value).future for value in range(3)))
            gate.calls.clear()
            loop = asyncio.get_running_loop()
            asked = [submit(made, 1), submit(made, 2)]
            # The next turn of the loop brings one more, and the turn after that none.
            loop.call_soon(lambda: asked.append(submit(made, 3)))
            turns = 0
            while not asked[0].future.done():
                await asyncio.sleep(0)
                turns += 1
            await asyncio.gather(*(one.future for one in asked))
            assert gate.calls == [[1.0, 2.0, 3.0]]
            assert turns <= 4
            # One that comes alone, as the one before did, is answered without another look.
            await submit(made, 5).future
            alone = submit(made, 6)
            await asyncio.sleep(0)
            assert alone.future.done()

    asyncio.run(main())


@pytest.mark.parametrize(("times", "slow"), [(3, 4), (1, 15)])
def test_a_model_that_turns_slow_goes_back_to_its_thread(times, slow):
    """Three calls in a row of more than what is quick, or one of more than ten times that."""

    async def main():
        gate = Threads()
        async with batcher(gate) as made:
            made.serve(gate, any_thread=True)
            await made_quick(made)
            gate.seconds = slow * QUICK_SECONDS
            for _ in range(times):
                await submit(made, 5).future
                assert gate.threads[-1] == threading.current_thread().name
            gate.seconds = 0.0
            await made_quick(made, 12)
            assert gate.threads[-1] == "model"  # for ten seconds, whatever it shows meanwhile

    asyncio.run(main())


def test_a_guilty_request_stands_alone_in_the_loop_too():
    async def main():
        gate = Threads()
        async with batcher(gate) as made:
            made.serve(gate, any_thread=True)
            await made_quick(made)
            gate.refuse = {3.0}
            with pytest.raises(ModelFailed):
                await submit(made, 3).future
            assert gate.threads[-1] == threading.current_thread().name
            asked = [submit(made, value) for value in range(1, 6)]
            results = await asyncio.gather(*(one.future for one in asked), return_exceptions=True)
            assert [isinstance(result, ModelFailed) for result in results] == [
                False,
                False,
                True,
                False,
                False,
            ]

    asyncio.run(main())


def test_a_model_of_one_thread_never_leaves_it():
    async def main():
        gate = Threads()
        async with batcher(gate) as made:
            await made_quick(made, 30)
            assert set(gate.threads) == {"model"}

    asyncio.run(main())


def test_an_answer_that_raises_costs_its_neighbours_nothing():
    async def main():
        gate = Gate()
        async with batcher(gate) as made:
            await hold(made, gate)

            def raising(outcome):
                raise RuntimeError("nobody could write this")

            made.submit(Job({"x": np.ones((1, 1))}, 1, None, time.monotonic() + 30, raising))
            fine = submit(made, 2)
            gate.open.set()
            assert (await fine.future)["y"].tolist() == [[4.0]]

    asyncio.run(main())
