"""Streamed answers as server-sent events, one infer response per event.

Used by `v2`. The model is asked for the next event once the client has taken most of what was sent, so a slow client
holds back its own stream and nothing else. The status is sent with the first event: what fails before it is answered
like any other request. An error after that is an event of its own, `{"error": ...}`, and the last.
Source of the event form: server-sent events in the HTML standard; one JSON document per event like Triton's
generate extension.
"""

import orjson

from podium_runtime import errors
from podium_runtime.core import Dataplane
from podium_runtime.http import asking
from podium_runtime.http.exchange import INTERNAL, Exchange
from podium_runtime.http.statuses import status_of
from podium_runtime.jobs import Outcome, Outputs
from podium_runtime.messages import InferRequest, encode_response

EVENTS = b"text/event-stream"


def start(core: Dataplane, exchange: Exchange, request: InferRequest) -> None:
    """Answer a request event by event. Raises what `Dataplane.stream` raises."""
    _EventStream(core, exchange, request)


class _EventStream:
    def __init__(self, core: Dataplane, exchange: Exchange, request: InferRequest) -> None:
        self._core = core
        self._exchange = exchange
        self._request = request
        self._stream = core.stream(request, self._emit)
        exchange.on_gone = lambda: core.abandon(self._stream)

    def _emit(self, outcome: Outcome | None) -> None:
        try:
            self._give(outcome)
        except Exception as error:
            # Not even the error could be written. An answer that just ended would look complete.
            self._end_broken(error)

    def _give(self, outcome: Outcome | None) -> None:
        exchange = self._exchange
        if outcome is None:
            if not exchange.streaming:
                exchange.begin(200, EVENTS)
            exchange.end(200)
        elif isinstance(outcome, errors.RequestError):
            self._break_off(outcome)
        else:
            error = asking.written(self._write, outcome)
            if error is not None:
                self._break_off(error)
                self._core.abandon(self._stream)

    def _write(self, outputs: Outputs) -> None:
        exchange = self._exchange
        content = encode_response(self._core.respond(self._request, outputs))
        if not exchange.streaming:
            exchange.begin(200, EVENTS)
        if exchange.write(b"data: %b\n\n" % content):
            self._next()
        else:
            exchange.on_writable = self._next

    def _next(self) -> None:
        self._core.resume(self._stream)

    def _break_off(self, error: errors.RequestError) -> None:
        exchange = self._exchange
        if not exchange.streaming:
            exchange.refuse(error)
            return
        if isinstance(error, errors.ModelFailed):
            exchange.log_failure("the model failed on a streamed answer", error.cause)
        exchange.write(b"data: %b\n\n" % orjson.dumps(error.as_body()))
        exchange.end(status_of(error))

    def _end_broken(self, error: Exception) -> None:
        exchange = self._exchange
        if not exchange.streaming:
            exchange.fail(error)
        else:
            exchange.log_failure("internal error", error)
            exchange.write(b"data: %b\n\n" % INTERNAL)
            exchange.end(500)
        self._core.abandon(self._stream)
