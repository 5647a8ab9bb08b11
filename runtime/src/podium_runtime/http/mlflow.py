"""MLflow's scoring protocol, version 2: /invocations, /ping, /health, /version.

One of the skins that `listener` asks for routes. Answers as `mlflow models serve` does: {"predictions": ...}, errors
as {"error_code", "message"}. Different on purpose: a model's own exception is 500 instead of 400, NaN is null, and
parameters for the model are refused, because they are not handed on. Nothing of MLflow is imported.
Source: mlflow/pyfunc/scoring_server of MLflow 3.
"""

import functools
from collections.abc import Iterable

import orjson

from podium_runtime import __version__, errors
from podium_runtime.core import Dataplane
from podium_runtime.http import asking, tables
from podium_runtime.http.exchange import TEXT, Exchange
from podium_runtime.http.routes import Route
from podium_runtime.http.statuses import status_of
from podium_runtime.jobs import Outputs
from podium_runtime.messages import parse_json
from podium_runtime.tensors import Array, json_type

_FORMS = ("dataframe_records", "dataframe_split", "inputs", "instances")
_CODES = {
    400: "BAD_REQUEST",
    404: "RESOURCE_DOES_NOT_EXIST",
    415: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Scoring:
    """Answers MLflow's paths."""

    def __init__(self, core: Dataplane) -> None:
        self._core = core

    def exact(self) -> Iterable[tuple[str, Route]]:
        yield "/invocations", ("POST", self._invocations)

    def find(self, parts: list[str]) -> Route | None:
        match parts:
            case ["invocations"]:
                return "POST", self._invocations
            case ["ping"] | ["health"]:
                return "GET", self._ping
            case ["version"]:
                return "GET", self._version
        return None

    def _ping(self, exchange: Exchange) -> None:
        exchange.reply(200 if self._core.is_ready() else 404, b"\n")

    def _version(self, exchange: Exchange) -> None:
        versions = self._core.model.framework()
        version = versions.get("mlflow") or versions.get("mlflow-skinny") or __version__
        exchange.reply(200, version.encode())

    def _invocations(self, exchange: Exchange) -> None:
        exchange.inference = True
        try:
            exchange.require_plain_body()
            kind = _content_type(exchange)
            if kind is None:
                return
            inputs = self._csv(exchange) if kind == b"text/csv" else self._json(exchange)
            request = tables.request_of(self._core, inputs)
            asking.ask(self._core, exchange, request, functools.partial(self._answer, exchange), _refuse)
        except errors.RequestError as error:
            _refuse(exchange, error)

    def _csv(self, exchange: Exchange) -> dict[str, Array]:
        return tables.from_csv(self._core, exchange.body())

    def _json(self, exchange: Exchange) -> dict[str, Array]:
        document = parse_json(exchange.body())
        if type(document) is not dict:
            raise errors.InvalidInput("", f"an object with one of {', '.join(_FORMS)}", json_type(document))
        if document.pop("params", None):
            raise errors.InvalidInput(
                "params", "no parameters: they are not handed on to models here", "some"
            )
        if len(document) != 1 or not document.keys() <= set(_FORMS):
            raise errors.InvalidInput("", f"exactly one of {', '.join(_FORMS)}", "other fields")
        ((form, data),) = document.items()
        if form == "dataframe_split":
            return tables.from_split(self._core, data, form)
        if form == "dataframe_records" or (form == "instances" and _records(data)):
            return tables.from_records(self._core, data, form)
        if type(data) is dict:
            return tables.from_columns(self._core, data, form)
        return tables.from_rows(self._core, data, form)

    def _answer(self, exchange: Exchange, outputs: Outputs) -> None:
        # Of several outputs an MLflow model makes a table, any other flavor answers list by list.
        found = {"predictions": tables.predictions(outputs, by_row=self._core.flavor == "mlflow")}
        exchange.reply(200, orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY))


def _records(data: object) -> bool:
    return type(data) is list and bool(data) and type(data[0]) is dict


def _content_type(exchange: Exchange) -> bytes | None:
    """Return the type of the body; None when it was refused, in MLflow's words."""
    given = exchange.headers.get(b"content-type", b"")
    kind, *parameters = (part.strip().lower() for part in given.split(b";"))
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name != b"charset":
            exchange.reply(415, b"Unrecognized content type parameters", TEXT)
            return None
        if value.strip(b'"') != b"utf-8":
            exchange.reply(415, b"The scoring server only supports UTF-8", TEXT)
            return None
    if kind not in (b"application/json", b"text/csv"):
        known = b"This predictor only supports the following content types: text/csv, application/json."
        exchange.reply(415, known, TEXT)
        return None
    return kind


def _refuse(exchange: Exchange, error: errors.RequestError) -> None:
    code = _CODES.get(status_of(error), "INTERNAL_ERROR")
    exchange.refuse(error, orjson.dumps({"error_code": code, "message": error.message}))
