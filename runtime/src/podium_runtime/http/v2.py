"""The Open Inference Protocol, REST version 2, with its binary tensors and streamed answers, and /metrics.

One of the skins that `listener` asks for routes. Everything but paths and bodies is the core's.
"""

import functools
from collections.abc import Iterable

import orjson

from podium_runtime.core import ANY_NAME, Dataplane
from podium_runtime.http import asking, binary, streams
from podium_runtime.http.exchange import Exchange
from podium_runtime.http.routes import Route
from podium_runtime.jobs import Outputs
from podium_runtime.messages import InferRequest, decode_request, encode_response
from podium_runtime.metrics import Metrics

_METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class OpenInference:
    """Answers /v2 and /metrics."""

    def __init__(self, core: Dataplane, metrics: Metrics) -> None:
        self._core = core
        self._metrics = metrics

    def exact(self) -> Iterable[tuple[str, Route]]:
        served = self._core.served
        base = f"/v2/models/{served.name}"
        for path in (
            f"{base}/infer",
            f"{base}/versions/{served.version}/infer",
            f"/v2/models/{ANY_NAME}/infer",
        ):
            yield path, ("POST", self._infer)

    def find(self, parts: list[str]) -> Route | None:
        match parts:
            case ["v2"]:
                return "GET", self._server
            case ["v2", "health", "live"]:
                return "GET", self._live
            case ["v2", "health", "ready"]:
                return "GET", self._ready
            case ["metrics"]:
                return "GET", self._text
            case ["v2", "models", name, "versions", version, *rest]:
                self._core.require(name, version)
            case ["v2", "models", name, *rest]:
                self._core.require(name, None)
            case _:
                return None
        match rest:
            case []:
                return "GET", self._model
            case ["ready"]:
                return "GET", self._model_ready
            case ["infer"]:
                return "POST", self._infer
            case ["generate_stream"]:
                return "POST", self._generate_stream
        return None

    # Inference.

    def _infer(self, exchange: Exchange) -> None:
        exchange.inference = True
        request, in_binary = _decode(exchange, self._core.max_elements)
        headers = exchange.headers
        if b"accept" in headers and b"text/event-stream" in headers[b"accept"] and self._core.streams:
            streams.start(self._core, exchange, request)
            return
        write = functools.partial(self._answer, exchange, request, in_binary)
        asking.ask(self._core, exchange, request, write)

    def _answer(self, exchange: Exchange, request: InferRequest, in_binary: bool, outputs: Outputs) -> None:
        response = self._core.respond(request, outputs)
        if in_binary:
            parts, line = binary.encode_binary(request, response)
            exchange.reply_with(200, parts, binary.OCTETS, line)
        else:
            exchange.reply(200, encode_response(response))

    def _generate_stream(self, exchange: Exchange) -> None:
        exchange.inference = True
        streams.start(self._core, exchange, _decode(exchange, self._core.max_elements)[0])

    # Everything else.

    def _server(self, exchange: Exchange) -> None:
        exchange.reply(200, orjson.dumps(self._core.server_metadata()))

    def _live(self, exchange: Exchange) -> None:
        live = self._core.is_alive()
        exchange.reply(200 if live else 503, b'{"live":true}' if live else b'{"live":false}')

    def _ready(self, exchange: Exchange) -> None:
        ready = self._core.is_ready()
        document = {"ready": ready, "phase": self._core.phase.value}
        exchange.reply(200 if ready else 503, orjson.dumps(document))

    def _model(self, exchange: Exchange) -> None:
        exchange.reply(200, orjson.dumps(self._core.model_metadata()))

    def _model_ready(self, exchange: Exchange) -> None:
        ready = self._core.is_ready()
        document = {"name": self._core.served.name, "ready": ready}
        exchange.reply(200 if ready else 503, orjson.dumps(document))

    def _text(self, exchange: Exchange) -> None:
        exchange.reply(200, self._metrics.text(), _METRICS_TYPE)


def _decode(exchange: Exchange, most: int) -> tuple[InferRequest, bool]:
    """Return the request in a body, whose tensors may have `most` elements each, and whether it wants raw outputs."""
    if b"content-encoding" in exchange.headers:
        exchange.require_plain_body()
    if binary.HEADER not in exchange.headers:
        request = decode_request(exchange.body(), most)
    else:
        request = binary.decode_binary(exchange, most)
    if request.model_name is not None and request.model_name == exchange.public_name():
        request.model_name = None
    if request.parameters or request.output_parameters:
        return request, binary.asks_for_binary(request)
    return request, False
