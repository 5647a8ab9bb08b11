"""The core without any transport: what it refuses before the model, after it, and how it answers for a hung one."""

import asyncio
import contextlib

import numpy as np
import pytest

from podium_runtime.batching import Batcher
from podium_runtime.config import Served
from podium_runtime.core import Dataplane, Phase
from podium_runtime.errors import InvalidInput, ModelFailed
from podium_runtime.jobs import Limits
from podium_runtime.messages import InferRequest
from podium_runtime.metrics import Metrics
from podium_runtime.signature import parse_signature

BY_ROW = parse_signature(
    {
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, -1]}],
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
    }
)


class Answers:
    """A model that gives what it is told, whatever it is asked."""

    columns = None
    rows_independent = True

    def __init__(self, **outputs):
        self.outputs = outputs
        self.properties = {"made": "here"}

    def predict(self, inputs, wanted):
        return self.outputs

    def infer_signature(self):
        return None

    def framework(self):
        return {}


@contextlib.asynccontextmanager
async def dataplane(model, signature=None, max_elements=1000):
    served = Served("churn", "3", "default", "churn-00001")
    batcher = Batcher(Limits(64, 0.0, 10, 1), Metrics(served), asyncio.get_running_loop())
    core = Dataplane(served, batcher, 30.0, max_elements)
    core.adopt(model, "python", signature)
    core.open()
    try:
        yield core
    finally:
        assert batcher.stop()


def request(shape=(1, 2), **more):
    return InferRequest({"x": np.zeros(shape)}, **more)


def test_rows_without_columns_count_against_the_limit_of_elements():
    async def main():
        async with dataplane(Answers(y=np.zeros(1)), BY_ROW) as core:
            assert core.check(request((1000, 0)))[1] == 1000
            for shape in ((1001, 0), (1001, 1), (2**31 - 1, 0)):
                with pytest.raises(InvalidInput, match="at most 1000 elements") as caught:
                    core.check(InferRequest({"x": np.empty(shape, np.int8)}))
                assert caught.value.field == "inputs[0].shape"

    asyncio.run(main())


def test_a_wanted_output_that_the_model_does_not_have_is_refused():
    async def main():
        async with dataplane(Answers(a=np.ones(1), b=np.ones(2))) as core:
            with pytest.raises(InvalidInput) as caught:
                await core.infer(request(outputs=("b", "nope")))
            assert (caught.value.field, caught.value.expected) == ("outputs[1].name", "one of a, b")
            found = await core.infer(request(outputs=("b",)))
            assert list(found.outputs) == ["b"]

    asyncio.run(main())


def test_a_model_that_lacks_what_its_signature_promises_has_failed():
    async def main():
        async with dataplane(Answers(z=np.ones(1)), BY_ROW) as core:
            with pytest.raises(ModelFailed, match="LookupError: the answer has no y"):
                await core.infer(request(outputs=("y",)))

    asyncio.run(main())


@pytest.mark.parametrize("named", [{}, {"model_name": "churn"}, {"model_version": "3"}])
def test_a_request_may_name_the_model_that_is_served(named):
    async def main():
        async with dataplane(Answers(y=np.ones(1))) as core:
            assert (await core.infer(request(**named))).outputs["y"].tolist() == [1.0]

    asyncio.run(main())


@pytest.mark.parametrize(("field", "value"), [("model_name", "credit"), ("model_version", "77")])
def test_a_request_that_names_another_model_is_refused(field, value):
    async def main():
        async with dataplane(Answers(y=np.ones(1))) as core:
            with pytest.raises(InvalidInput) as caught:
                core.check(request(**{field: value}))
            assert caught.value.field == field
            assert value not in caught.value.message

    asyncio.run(main())


def test_a_hung_replica_does_not_look_alive_because_it_drains():
    async def main():
        async with dataplane(Answers()) as core:
            core.hang()
            core.drain()
            assert core.phase is Phase.HUNG
            assert not core.is_alive()

    asyncio.run(main())


def test_what_was_found_out_about_rows_is_in_the_metadata():
    async def main():
        async with dataplane(Answers(y=np.ones(1)), BY_ROW) as core:
            assert core.model_metadata()["properties"] == {"made": "here"}
            core.settle_rows(False)
            assert core.model_metadata()["properties"] == {"made": "here", "rows_independent": False}

    asyncio.run(main())
