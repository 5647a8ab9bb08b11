"""The model server without any transport: metadata, readiness, inference.

`http` and `grpc` are thin skins over `Dataplane`; another protocol would be another skin. `loading` hands it the
loaded model.
"""

import asyncio
import enum
import time
from collections.abc import Callable, Mapping
from typing import Any

from podium_runtime import __version__
from podium_runtime.batching import Batcher
from podium_runtime.config import Served
from podium_runtime.errors import InvalidInput, ModelFailed, NotReady, RequestError, UnknownPath
from podium_runtime.flavors.port import Model, Stoppable, Streaming
from podium_runtime.jobs import Job, Outcome, Outputs, Stream
from podium_runtime.messages import InferRequest, InferResponse
from podium_runtime.signature import InputCheck, Signature, listed
from podium_runtime.tensors import check_size

EXTENSIONS = ("binary_tensor_data",)
"""By their names in Triton's documentation. Streamed answers have the form of no extension there."""
# Flavors whose libraries say that a prediction may be asked for from any thread. Of a class of the user's own, or of
# whatever an MLflow model wraps, nobody knows.
ANY_THREAD = frozenset({"lightgbm", "onnx", "sklearn", "xgboost"})


class Phase(enum.Enum):
    """Where the replica is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    HUNG = "hung"


ANY_NAME = "-"
"""In a path: the model that is here, whatever the name under which the client knows it. No model has this name."""


class Dataplane:
    """One revision of one model, as any protocol may ask for it. Used from one event loop."""

    def __init__(self, served: Served, batcher: Batcher, request_timeout: float, max_elements: int) -> None:
        self.served = served
        self.phase = Phase.LOADING
        self._batcher = batcher
        self.request_timeout = request_timeout
        """Seconds that one request may take, and one event of a stream."""
        self.max_elements = max_elements
        """Elements that one input tensor may have, an axis without any counting as one."""
        self._model: Model | None = None
        self._signature: Signature | None = None
        self._flavor = ""
        self._check = InputCheck(None)
        self._shares_calls = False
        self._found: dict[str, Any] = {}
        self._declared: Mapping[str, str] | None = None
        self.streams = False
        """Whether the model can answer piece by piece."""

    def adopt(self, model: Model, flavor: str, signature: Signature | None) -> None:
        """Take a loaded model. Requests are still refused until `open`."""
        self._model = model
        self._flavor = flavor
        self._signature = signature
        self._check = InputCheck(signature, model.columns)
        self._shares_calls = bool(model.rows_independent)
        if signature is not None:
            self._declared = {
                spec.name: spec.datatype for spec in signature.outputs if spec.datatype == "BF16"
            }
        self.streams = isinstance(model, Streaming)
        stream = model.predict_stream if isinstance(model, Streaming) else None
        until = model.predict_until if isinstance(model, Stoppable) else None
        self._batcher.serve(model.predict, any_thread=flavor in ANY_THREAD, stream=stream, until=until)

    def settle_rows(self, independent: bool) -> None:
        """Take what `probing` found out about a model that does not declare whether its rows are independent."""
        self._shares_calls = independent
        self._found["rows_independent"] = independent

    def open(self) -> None:
        """Become ready, unless the replica drains already."""
        if self.phase is Phase.LOADING:
            self.phase = Phase.READY

    def drain(self) -> None:
        """Stop being ready. Requests that still arrive are answered."""
        # A replica that hangs goes on saying so: its draining must not make it look alive again.
        if self.phase is not Phase.HUNG:
            self.phase = Phase.DRAINING

    def hang(self) -> None:
        """Stop being alive: the model does not come back from a call."""
        self.phase = Phase.HUNG
        self._batcher.refuse_all(NotReady("the model hangs; this replica is being replaced"))

    def is_alive(self) -> bool:
        return self.phase is not Phase.HUNG

    def is_ready(self) -> bool:
        return self.phase is Phase.READY

    @property
    def model(self) -> Model:
        """The loaded model. Raises NotReady before it is there."""
        if self._model is None:
            raise NotReady("the model is still loading")
        return self._model

    @property
    def signature(self) -> Signature | None:
        """What the model takes and gives, None where that is not known."""
        return self._signature

    @property
    def flavor(self) -> str:
        """The flavor's name, empty before the model is loaded."""
        return self._flavor

    def server_metadata(self) -> dict[str, Any]:
        """Return the server's name, version and protocol extensions."""
        return {"name": "podium-runtime", "version": __version__, "extensions": list(EXTENSIONS)}

    def model_metadata(self) -> dict[str, Any]:
        """Return the model's metadata. Raises NotReady before the model is loaded."""
        model = self.model
        signature = self._signature.as_document() if self._signature else {"inputs": [], "outputs": []}
        return {
            "name": self.served.name,
            "versions": [self.served.version],
            "platform": self._flavor,
            "inputs": signature["inputs"],
            "outputs": signature["outputs"],
            "properties": {**model.properties, **self._found},
        }

    def require(self, name: str, version: str | None, public: str | None = None) -> None:
        """Raise UnknownPath unless this replica serves that name and, where one is given, that version.

        `public`: the name under which the gateway took the request in, if it said so.
        """
        if name not in (self.served.name, ANY_NAME, public):
            raise UnknownPath(f"this replica does not serve that model; it serves {self.served.name}")
        if version is not None and version != self.served.version:
            raise UnknownPath(
                f"{name} is not served in that version; it is served in version {self.served.version}"
            )

    def check(self, request: InferRequest) -> tuple[Mapping[str, Any], int, frozenset[str] | None]:
        """Return checked (inputs, rows, wanted outputs). Raises InvalidInput, or NotReady before there is a model."""
        if self._model is None or self.phase is Phase.LOADING:
            raise NotReady("the model is still loading")
        if self.phase is Phase.HUNG:
            raise NotReady("the model hangs; this replica is being replaced")
        if request.model_name is not None and request.model_name != self.served.name:
            raise InvalidInput("model_name", f"{self.served.name}, as in the path, or none", "another name")
        if request.model_version is not None and request.model_version != self.served.version:
            raise InvalidInput("model_version", f"{self.served.version} or none", "another version")
        for index, array in enumerate(request.inputs.values()):
            if array.size > self.max_elements or not array.size:
                check_size(array.shape, self.max_elements, f"inputs[{index}].shape")
        inputs, rows = self._check.check_inputs(request.inputs)
        wanted = self._check.check_outputs(request.outputs) if request.outputs else None
        return inputs, rows, wanted

    def submit(
        self,
        request: InferRequest,
        answer: Callable[[Outcome], None],
        timeout: float | None = None,
        also: str | None = None,
    ) -> Job:
        """Check and queue a request. `answer` is called with the outputs, for `respond`, or with a RequestError.

        `timeout` in seconds shortens the configured one; `also`: an output that is computed beside the wanted ones if
        the model has it. Raises InvalidInput, QueueFull or NotReady.
        """
        inputs, rows, wanted = self.check(request)
        if wanted is not None and also is not None and self._check.has_output(also):
            wanted |= {also}
        seconds = self.request_timeout if timeout is None else min(timeout, self.request_timeout)
        if not self._shares_calls:
            rows = 0
        job = Job(inputs, rows, wanted, time.monotonic() + seconds, answer)
        self._batcher.submit(job)
        return job

    def stream(self, request: InferRequest, emit: Callable[[Outcome | None], None]) -> Stream:
        """Check and queue a request for a streamed answer; `jobs.Stream` says how `emit` is called.

        Raises UnknownPath where the model cannot stream, InvalidInput, QueueFull or NotReady.
        """
        inputs, _, _ = self.check(request)
        if not self.streams:
            raise UnknownPath(f"{self.served.name} answers in one piece: it has no predict_stream")
        return self._batcher.submit_stream(inputs, self.request_timeout, emit)

    def resume(self, stream: Stream) -> None:
        """Ask for a stream's next event, once the one before has gone out."""
        self._batcher.resume(stream)

    def abandon(self, waiting: Job | Stream) -> None:
        """Drop a request whose client hung up, before it costs a prediction."""
        self._batcher.abandon(waiting)

    def respond(self, request: InferRequest, outputs: Outputs) -> InferResponse:
        """Return the response for a request's outputs, only the wanted ones where some were named.

        Raises InvalidInput for a wanted output that the model does not have, and ModelFailed for one that its
        signature promises and its answer lacks.
        """
        if request.outputs:
            for index, name in enumerate(request.outputs):
                if name not in outputs:
                    raise self._lacks(name, index, outputs)
            outputs = {name: outputs[name] for name in request.outputs}
        return InferResponse(self.served.name, self.served.version, outputs, request.id, self._declared)

    def _lacks(self, name: str, index: int, outputs: Outputs) -> RequestError:
        if self._signature is not None and any(spec.name == name for spec in self._signature.outputs):
            return ModelFailed(LookupError(f"the answer has no {name}, which the signature promises"))
        return InvalidInput(f"outputs[{index}].name", f"one of {listed(list(outputs))}", "another name")

    async def infer(
        self,
        request: InferRequest,
        timeout: float | None = None,
        also: str | None = None,
        see: Callable[[Outputs], None] | None = None,
    ) -> InferResponse:
        """Return the model's answer. `see` is called with all outputs before that, `also` (as in `submit`) among them.

        Raises the errors under RequestError; cancelling it abandons the request.
        """
        answered: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()

        def answer(outcome: Outcome) -> None:
            if answered.done():
                return
            if isinstance(outcome, RequestError):
                answered.set_exception(outcome)
            else:
                answered.set_result(outcome)

        job = self.submit(request, answer, timeout, also)
        try:
            outputs = await answered
            if see is not None:
                see(outputs)
            return self.respond(request, outputs)
        except asyncio.CancelledError:
            self.abandon(job)
            raise
