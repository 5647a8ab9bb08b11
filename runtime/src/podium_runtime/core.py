"""The model server without any transport: metadata, readiness, inference.

`http` is a thin skin over `Dataplane`; another protocol would be another skin. `loading` hands it the loaded model.
"""

import enum
import time
from collections.abc import Callable, Mapping
from typing import Any

from podium_runtime import __version__
from podium_runtime.batching import Batcher, Job
from podium_runtime.config import Served
from podium_runtime.errors import NotReady, UnknownPath
from podium_runtime.flavors.port import Model
from podium_runtime.messages import InferRequest, InferResponse
from podium_runtime.signature import InputCheck, Signature


class Phase(enum.Enum):
    """Where the replica is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class Dataplane:
    """One revision of one model, as any protocol may ask for it. Used from one event loop."""

    def __init__(self, served: Served, batcher: Batcher, request_timeout: float) -> None:
        self.served = served
        self.phase = Phase.LOADING
        self._batcher = batcher
        self.request_timeout = request_timeout
        """Seconds that one request may take."""
        self._model: Model | None = None
        self._signature: Signature | None = None
        self._flavor = ""
        self._check = InputCheck(None)
        self._shares_calls = False

    def adopt(self, model: Model, flavor: str, signature: Signature | None) -> None:
        """Take a loaded model. Requests are still refused until `open`."""
        self._model = model
        self._flavor = flavor
        self._signature = signature
        self._check = InputCheck(signature, model.columns)
        self._shares_calls = model.rows_independent
        self._batcher.serve(model.predict)

    def open(self) -> None:
        """Become ready, unless the replica drains already."""
        if self.phase is Phase.LOADING:
            self.phase = Phase.READY

    def drain(self) -> None:
        """Stop being ready. Requests that still arrive are answered."""
        self.phase = Phase.DRAINING

    def is_ready(self) -> bool:
        return self.phase is Phase.READY

    def server_metadata(self) -> dict[str, Any]:
        """Return the server's name, version and protocol extensions."""
        return {"name": "podium-runtime", "version": __version__, "extensions": []}

    def model_metadata(self) -> dict[str, Any]:
        """Return the model's metadata. Raises NotReady before the model is loaded."""
        if self._model is None:
            raise NotReady("the model is still loading")
        signature = self._signature.as_document() if self._signature else {"inputs": [], "outputs": []}
        return {
            "name": self.served.name,
            "versions": [self.served.version],
            "platform": self._flavor,
            "inputs": signature["inputs"],
            "outputs": signature["outputs"],
            "properties": dict(self._model.properties),
        }

    def require(self, name: str, version: str | None) -> None:
        """Raise UnknownPath unless this replica serves that name and, where one is given, that version."""
        if name != self.served.name:
            raise UnknownPath(f"this replica does not serve that model; it serves {self.served.name}")
        if version is not None and version != self.served.version:
            raise UnknownPath(
                f"{name} is not served in that version; it is served in version {self.served.version}"
            )

    def check(self, request: InferRequest) -> tuple[Mapping[str, Any], int, frozenset[str] | None]:
        """Return checked (inputs, rows, wanted outputs). Raises InvalidInput."""
        inputs, rows = self._check.check_inputs(request.inputs)
        return inputs, rows, self._check.check_outputs(request.outputs)

    def submit(self, request: InferRequest, timeout: float | None = None) -> Job:
        """Check and queue a request; await the job's future for the outputs, then call `respond`.

        `timeout` in seconds shortens the configured one. Raises InvalidInput, QueueFull or NotReady.
        """
        if self._model is None or self.phase is Phase.LOADING:
            raise NotReady("the model is still loading")
        inputs, rows, wanted = self.check(request)
        seconds = self.request_timeout if timeout is None else min(timeout, self.request_timeout)
        return self._batcher.submit(
            inputs, rows if self._shares_calls else 0, wanted, time.monotonic() + seconds
        )

    def abandon(self, job: Job) -> None:
        """Drop a job whose client hung up, before it costs a prediction."""
        self._batcher.abandon(job)

    def respond(self, request: InferRequest, outputs: Mapping[str, Any]) -> InferResponse:
        """Return the response for a request's outputs, only the wanted ones where some were named."""
        if request.outputs:
            outputs = {name: outputs[name] for name in request.outputs if name in outputs}
        return InferResponse(self.served.name, self.served.version, outputs, request.id)

    async def infer(
        self,
        request: InferRequest,
        timeout: float | None = None,
        on_wait: Callable[[Job], None] | None = None,
    ) -> InferResponse:
        """Return the model's answer.

        `on_wait` is called once if the answer takes longer than a sweep of the queue (50 ms): the moment at
        which a transport begins to watch whether its client is still there. Raises the errors under
        RequestError.
        """
        job = self.submit(request, timeout)
        if on_wait is not None:
            job.on_wait = lambda: on_wait(job)
        return self.respond(request, await job.future)
