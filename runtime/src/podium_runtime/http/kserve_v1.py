"""KServe's protocol version 1 (TensorFlow Serving's REST form): /v1/models/NAME:predict and its siblings.

One of the skins that `listener` asks for routes. {"instances": [...]} has one entry per row, {"inputs": ...} the
model's inputs by column; the answer to both is {"predictions": ...}. Several outputs are one object per row.
Source: KServe's data plane description, version 1.
"""

import functools
from collections.abc import Iterable

import orjson

from podium_runtime import errors
from podium_runtime.core import ANY_NAME, Dataplane
from podium_runtime.http import asking, tables
from podium_runtime.http.exchange import Exchange
from podium_runtime.http.routes import Route
from podium_runtime.jobs import Outputs
from podium_runtime.messages import parse_json
from podium_runtime.tensors import Array, json_type

_FORMS = frozenset({"instances", "inputs"})


class Predicting:
    """Answers /v1/models."""

    def __init__(self, core: Dataplane) -> None:
        self._core = core

    def exact(self) -> Iterable[tuple[str, Route]]:
        for name in (self._core.served.name, ANY_NAME):
            yield f"/v1/models/{name}:predict", ("POST", self._predict)

    def find(self, parts: list[str]) -> Route | None:
        match parts:
            case ["v1", "models"]:
                return "GET", self._models
            case ["v1", "models", target]:
                name, _, verb = target.partition(":")
                self._core.require(name, None)
                if not verb:
                    return "GET", self._model
                if verb == "predict":
                    return "POST", self._predict
        return None

    def _models(self, exchange: Exchange) -> None:
        exchange.reply(200, orjson.dumps({"models": [self._core.served.name]}))

    def _model(self, exchange: Exchange) -> None:
        ready = self._core.is_ready()
        document = {"name": self._core.served.name, "ready": ready}
        exchange.reply(200 if ready else 503, orjson.dumps(document))

    def _predict(self, exchange: Exchange) -> None:
        exchange.inference = True
        exchange.require_plain_body()
        request = tables.request_of(self._core, self._inputs(exchange))
        asking.ask(self._core, exchange, request, functools.partial(_answer, exchange))

    def _inputs(self, exchange: Exchange) -> dict[str, Array]:
        document = parse_json(exchange.body())
        if type(document) is not dict:
            raise errors.InvalidInput("", "an object with instances or inputs", json_type(document))
        if len(document) != 1 or not document.keys() <= _FORMS:
            raise errors.InvalidInput("", "exactly one of instances and inputs", "other fields")
        ((form, data),) = document.items()
        if type(data) is list and data and type(data[0]) is dict:
            return tables.from_records(self._core, data, form)
        if type(data) is dict:
            if form == "instances":
                raise errors.InvalidInput(form, "a list with one entry per row", "an object")
            return tables.from_columns(self._core, data, form)
        return tables.from_rows(self._core, data, form)


def _answer(exchange: Exchange, outputs: Outputs) -> None:
    found = {"predictions": tables.predictions(outputs, by_row=True)}
    exchange.reply(200, orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY))
