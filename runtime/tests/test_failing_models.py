"""What a model may raise, and what becomes of it: in its thread, in the event loop, in a batch and in a stream."""

import asyncio
import threading
import time

import numpy as np
import pytest

from podium_runtime import InvalidInput
from podium_runtime.errors import DeadlineExceeded, ModelFailed, RequestError
from podium_runtime.jobs import Job
from runtime.tests.test_batching import Gate, batcher, hold, made_quick, submit


class Panic(BaseException):
    """Like the exceptions of pyo3, which stand outside of Exception."""


class Age(InvalidInput):
    """A refusal of the user's own."""

    def __init__(self) -> None:
        super().__init__("age", "a number from 0 to 150", "one outside that")


class Half(InvalidInput):
    """One that forgot to be what it says."""

    def __init__(self) -> None:
        pass


def raising(error, bad=None):
    """A model that raises for the inputs in `bad`, for all where there is None, and doubles the others."""

    def predict(inputs, wanted):
        if bad is None or bad.intersection(inputs["x"][:, 0]):
            raise error
        return {"y": inputs["x"] * 2}

    return predict


ODD = [
    Half(),
    SystemExit(3),
    Panic("a panic"),
    asyncio.CancelledError(),
    KeyboardInterrupt(),
    StopIteration(),
]


@pytest.mark.parametrize("error", ODD, ids=repr)
@pytest.mark.parametrize("any_thread", [False, True], ids=["thread", "loop"])
def test_whatever_a_model_raises_fails_the_request_only(error, any_thread):
    async def main():
        gate = Gate()
        async with batcher(gate) as made:
            made.serve(gate, any_thread=any_thread)
            if any_thread:
                await made_quick(made)
            made.serve(raising(error), any_thread=any_thread)
            with pytest.raises(ModelFailed, match=type(error).__name__):
                await asyncio.wait_for(submit(made, 1).future, 30)
            made.serve(gate, any_thread=any_thread)
            assert (await asyncio.wait_for(submit(made, 1).future, 30))["y"].tolist() == [[2.0]]

    asyncio.run(main())


@pytest.mark.parametrize("error", [Age(), DeadlineExceeded("out of time"), Panic()], ids=repr)
def test_in_a_batch_the_guilty_one_alone_is_told_its_reason(error):
    async def main():
        gate = Gate()
        async with batcher(gate) as made:
            first = await hold(made, gate)
            made.serve(raising(error, {3.0}))
            asked = [submit(made, value) for value in range(1, 6)]
            gate.open.set()
            results = await asyncio.gather(*(one.future for one in asked), return_exceptions=True)
            await first.future
            expected = error if isinstance(error, RequestError) else ModelFailed(error)
            for value, result in enumerate(results, 1):
                if value == 3:
                    assert type(result) is type(expected)
                    assert result.message == expected.message
                else:
                    assert result["y"].tolist() == [[2.0 * value]]

    asyncio.run(main())


class Events:
    """A stream's reader: asks for the next event at once, and keeps what came."""

    def __init__(self, made, broken=False):
        self.made, self.broken = made, broken
        self.came = []
        self.over = asyncio.get_running_loop().create_future()
        self.stream = made.submit_stream({"x": np.ones((1, 1))}, 30.0, self.emit)

    def emit(self, outcome):
        self.came.append(outcome)
        if outcome is None or isinstance(outcome, RequestError):
            self.over.set_result(outcome)
        elif self.broken:
            raise Panic("this event cannot be written")
        else:
            self.made.resume(self.stream)


def streaming(*steps):
    def predict_stream(inputs):
        for step in steps:
            if isinstance(step, BaseException):
                raise step
            yield {"y": np.array([step])}

    return predict_stream


@pytest.mark.parametrize("error", [Panic("a panic"), asyncio.CancelledError(), Age()], ids=repr)
def test_a_stream_ends_with_what_it_raised(error):
    async def main():
        gate = Gate()
        async with batcher(gate) as made:
            made.serve(gate, stream=streaming(1, error))
            events = Events(made)
            last = await asyncio.wait_for(events.over, 30)
            assert len(events.came) == 2
            assert last is error if isinstance(error, RequestError) else type(last) is ModelFailed
            assert (await asyncio.wait_for(submit(made, 1).future, 30))["y"].tolist() == [[2.0]]

    asyncio.run(main())


def test_a_stream_whose_event_cannot_be_written_does_not_end_like_a_complete_one():
    async def main():
        gate = Gate()
        async with batcher(gate) as made:
            made.serve(gate, stream=streaming(1, 2, 3))
            events = Events(made, broken=True)
            last = await asyncio.wait_for(events.over, 30)
            assert isinstance(last, ModelFailed)
            assert "Panic" in last.message
            assert (await asyncio.wait_for(submit(made, 1).future, 30))["y"].tolist() == [[2.0]]

    asyncio.run(main())


def test_a_generator_that_panics_when_it_is_closed_costs_nobody_anything():
    async def main():
        gate = Gate()
        closed = threading.Event()

        def stubborn(inputs):
            try:
                yield {"y": np.ones(1)}
                yield {"y": np.ones(1)}
            finally:
                closed.set()
                raise Panic("not even now")

        async with batcher(gate) as made:
            made.serve(gate, stream=stubborn)
            events = Events(made, broken=True)
            await asyncio.wait_for(events.over, 30)
            assert (await asyncio.wait_for(submit(made, 1).future, 30))["y"].tolist() == [[2.0]]
            assert closed.wait(30)

    asyncio.run(main())


def test_a_thread_that_dies_of_an_error_of_ours_says_so():
    async def main():
        gate = Gate()
        died = asyncio.get_running_loop().create_future()
        async with batcher(gate) as made:
            loop = asyncio.get_running_loop()
            made.on_death = lambda error: loop.call_soon_threadsafe(died.set_result, error)
            broken = Job({"x": np.ones((1, 1))}, 1, None, time.monotonic() + 30, lambda outcome: None)
            del broken.abandoned  # what no job lacks
            made.submit(broken)
            assert isinstance(await asyncio.wait_for(died, 30), AttributeError)

    asyncio.run(main())
