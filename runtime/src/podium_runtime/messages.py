"""Requests and responses of the protocol, and their JSON form.

`InferRequest` and `InferResponse` are what `core` works with, whatever carried them. `decode_request` and
`encode_response` are the JSON bodies of the REST transport; the warm-up example and the tests use them too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from podium_runtime.errors import InvalidInput
from podium_runtime.tensors import Array, decode_tensor, encode_tensor, json_type, known_datatype, known_shape

_REQUEST_KEYS = frozenset({"id", "inputs", "outputs", "parameters"})
_INPUT_KEYS = frozenset({"name", "shape", "datatype", "data", "parameters"})
_OUTPUT_KEYS = frozenset({"name", "parameters"})
MAX_TENSORS = 4096
MAX_NAME = 512


@dataclass(frozen=True, slots=True)
class InferRequest:
    """Tensors by name in the order they came. `outputs` are the wanted ones; None means all."""

    inputs: dict[str, Array]
    id: str | None = None
    outputs: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class InferResponse:
    """What the model answered, with who answered."""

    model_name: str
    model_version: str
    outputs: Mapping[str, Array]
    id: str | None = None


def decode_request(body: bytes) -> InferRequest:
    """Return the request in a JSON body. Raises InvalidInput naming the field."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidInput("", "a JSON body", f"something else at {where}") from None
    return request_from_document(document)


def request_from_document(document: object) -> InferRequest:
    """Return the request in a parsed JSON value. Raises InvalidInput naming the field."""
    if type(document) is not dict:
        raise InvalidInput("", "an object with inputs", json_type(document))
    _only(document, _REQUEST_KEYS, "")
    request_id = document.get("id")
    if request_id is not None and type(request_id) is not str:
        raise InvalidInput("id", "a string", json_type(request_id))
    _parameters(document, "parameters")
    tensors = document.get("inputs")
    if type(tensors) is not list or not tensors:
        got = (
            "an empty list"
            if tensors == []
            else "nothing"
            if "inputs" not in document
            else json_type(tensors)
        )
        raise InvalidInput("inputs", "a list of tensors", got)
    if len(tensors) > MAX_TENSORS:
        raise InvalidInput("inputs", f"at most {MAX_TENSORS} tensors", str(len(tensors)))
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(tensors):
        field = f"inputs[{index}]"
        name, array = _tensor(tensor, field)
        if name in inputs:
            raise InvalidInput(f"{field}.name", "a name of its own", "the name of an earlier input")
        inputs[name] = array
    outputs = document.get("outputs")
    return InferRequest(inputs, request_id, None if outputs is None else _outputs(outputs))


def _tensor(tensor: object, field: str) -> tuple[str, Array]:
    if type(tensor) is not dict:
        raise InvalidInput(field, "a tensor object", json_type(tensor))
    _only(tensor, _INPUT_KEYS, field)
    name = _name(tensor, field)
    for key in ("shape", "datatype", "data"):
        if key not in tensor:
            raise InvalidInput(f"{field}.{key}", _WORDS[key], "nothing")
    shape = known_shape(tensor["shape"], f"{field}.shape")
    datatype = known_datatype(tensor["datatype"], f"{field}.datatype")
    if "parameters" in tensor:
        _parameters(tensor, f"{field}.parameters")
    return name, decode_tensor(tensor["data"], datatype, shape, field)


_WORDS = {"shape": "a list of whole numbers", "datatype": "a datatype", "data": "a list of elements"}


def _outputs(outputs: object) -> tuple[str, ...]:
    if type(outputs) is not list:
        raise InvalidInput("outputs", "a list of objects with a name", json_type(outputs))
    if len(outputs) > MAX_TENSORS:
        raise InvalidInput("outputs", f"at most {MAX_TENSORS} outputs", str(len(outputs)))
    names = []
    for index, output in enumerate(outputs):
        field = f"outputs[{index}]"
        if type(output) is not dict:
            raise InvalidInput(field, "an object with a name", json_type(output))
        _only(output, _OUTPUT_KEYS, field)
        _parameters(output, f"{field}.parameters")
        names.append(_name(output, field))
    return tuple(dict.fromkeys(names))


def _name(document: dict[str, Any], field: str) -> str:
    name = document.get("name")
    if type(name) is not str or not name:
        got = "an empty one" if name == "" else "nothing" if "name" not in document else json_type(name)
        raise InvalidInput(f"{field}.name", "a name", got)
    if len(name) > MAX_NAME:
        raise InvalidInput(f"{field}.name", f"at most {MAX_NAME} characters", str(len(name)))
    return name


def _only(document: dict[str, Any], known: frozenset[str], field: str) -> None:
    if not known.issuperset(document):
        at = field or "the body"
        raise InvalidInput(field, f"only {', '.join(sorted(known))} in {at}", "another key")


def _parameters(document: dict[str, Any], field: str) -> None:
    parameters = document.get("parameters")
    if parameters is not None and type(parameters) is not dict:
        raise InvalidInput(field, "an object", json_type(parameters))


def encode_response(response: InferResponse) -> bytes:
    """Return the JSON body of a response. Raises TypeError for an output dtype that the protocol cannot carry."""
    outputs = []
    for name, array in response.outputs.items():
        datatype, data = encode_tensor(array)
        outputs.append({"name": name, "shape": array.shape, "datatype": datatype, "data": data})
    document: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id is not None:
        document["id"] = response.id
    document["outputs"] = outputs
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
