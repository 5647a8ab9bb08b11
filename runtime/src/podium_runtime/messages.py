"""Requests and responses of the protocol, and their JSON form.

`InferRequest` and `InferResponse` are what `core` works with, whatever carried them. `decode_request` and
`encode_response` are the JSON bodies of the REST transport; the warm-up example and the tests use them too. Tensors
that follow the JSON in raw form (the binary tensor data extension) are taken from `RawTensors`; `http.binary` makes
it and writes such answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from podium_runtime.errors import InvalidInput
from podium_runtime.raw import decode_raw
from podium_runtime.tensors import (
    MAX_ELEMENTS,
    Array,
    Datatype,
    decode_tensor,
    encode_tensor,
    json_type,
    known_datatype,
    known_shape,
)

# The last two are no part of the REST form, but of the gRPC one; KServe's client sends them over REST, too.
_REQUEST_KEYS = frozenset({"id", "inputs", "outputs", "parameters", "model_name", "model_version"})
_INPUT_KEYS = frozenset({"name", "shape", "datatype", "data", "parameters"})
_OUTPUT_KEYS = frozenset({"name", "parameters"})
_SCALARS = frozenset({str, int, float, bool, type(None)})
REFUSED_PARAMETERS = frozenset({"classification", "shared_memory_region"})
"""Parameters that would change what the answer means, and are not done here: passing them over would be a lie."""
MAX_TENSORS = 4096
MAX_NAME = 512
MAX_DEPTH = 32
MAX_CONTAINERS = 1_000_000
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else 0 for byte in range(256))

_NONE: Mapping[str, Any] = {}


@dataclass(slots=True)
class InferRequest:
    """Tensors by name in the order they came. `outputs` are the wanted ones; None means all."""

    inputs: dict[str, Array]
    id: str | None = None
    outputs: tuple[str, ...] | None = None
    parameters: Mapping[str, Any] | None = None
    """The request's own parameters, names to scalars. The model does not see them."""
    output_parameters: Mapping[str, Mapping[str, Any]] | None = None
    """Parameters of wanted outputs by name, where they have some."""
    model_name: str | None = None
    """The model that the body names; `core` refuses any other than it serves."""
    model_version: str | None = None


@dataclass(slots=True)
class InferResponse:
    """What the model answered, with who answered. `declared` names outputs whose datatype no dtype tells (BF16)."""

    model_name: str
    model_version: str
    outputs: Mapping[str, Array]
    id: str | None = None
    declared: Mapping[str, str] | None = None


class RawTensors:
    """The bytes after the JSON part of a request, handed out to its inputs in their order."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int, field: str) -> memoryview:
        """Return the next `size` bytes. Raises InvalidInput when there are fewer."""
        left = len(self._data) - self._at
        if size > left:
            raise InvalidInput(field, f"at most the {left} bytes that are left after the JSON", f"{size}")
        self._at += size
        return self._data[self._at - size : self._at]

    def all_taken(self) -> None:
        """Raise InvalidInput when bytes are left over."""
        if left := len(self._data) - self._at:
            raise InvalidInput("", "no more bytes than the inputs' binary_data_size say", f"{left} more")


def parse_json(body: bytes | bytearray | memoryview) -> Any:
    """Return the JSON value in a body.

    Raises InvalidInput for what is not JSON, is nested deeper than MAX_DEPTH or has more than MAX_CONTAINERS lists
    and objects, each of which takes twenty times its bytes in memory.
    """
    if not isinstance(body, memoryview):
        opening = body.count(b"[") + body.count(b"{")
        # Most requests have a handful of brackets and cannot be deep: only the others are looked at.
        if opening > MAX_DEPTH:
            _check_nesting(body, opening)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidInput("", "a JSON body", f"something else at {where}") from None


def _check_nesting(body: bytes | bytearray, opening: int) -> None:
    if opening > MAX_CONTAINERS:
        raise InvalidInput("", f"at most {MAX_CONTAINERS} opening brackets", f"{opening}")
    # Without escapes every second piece between quotes is outside texts, where brackets are brackets.
    outside = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    steps = np.frombuffer(outside.translate(_STEPS, _NOT_BRACKETS), dtype=np.int8)
    if steps.size and int(np.cumsum(steps, dtype=np.int32).max()) > MAX_DEPTH:
        raise InvalidInput("", f"JSON nested at most {MAX_DEPTH} deep", "deeper nesting")


def decode_request(body: bytes | bytearray, most: int = MAX_ELEMENTS) -> InferRequest:
    """Return the request in a JSON body, tensors having `most` elements each. Raises InvalidInput naming the field."""
    return request_from_document(parse_json(body), None, most)


def request_from_document(
    document: object, raw: RawTensors | None = None, most: int = MAX_ELEMENTS
) -> InferRequest:
    """Return the request in a parsed JSON value. Raises InvalidInput naming the field.

    `raw` has the tensors that are not in the JSON; None where the transport carried none. `most` is the number of
    elements that a tensor may have; what its shape says is looked at before the tensor is.
    """
    if type(document) is not dict:
        raise InvalidInput("", "an object with inputs", json_type(document))
    _only(document, _REQUEST_KEYS, "")
    request_id = _text(document, "id")
    tensors = document.get("inputs")
    if type(tensors) is not list or not tensors:
        missing = "inputs" not in document
        got = "an empty list" if tensors == [] else "nothing" if missing else json_type(tensors)
        raise InvalidInput("inputs", "a list of tensors", got)
    if len(tensors) > MAX_TENSORS:
        raise InvalidInput("inputs", f"at most {MAX_TENSORS} tensors", str(len(tensors)))
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(tensors):
        field = f"inputs[{index}]"
        name, array = _tensor(tensor, field, raw, most)
        if name in inputs:
            raise InvalidInput(f"{field}.name", "a name of its own", "the name of an earlier input")
        inputs[name] = array
    if raw is not None:
        raw.all_taken()
    parameters = _parameters(document, "parameters") if "parameters" in document else _NONE
    request = InferRequest(inputs, request_id, None, parameters)
    if (outputs := document.get("outputs")) is not None:
        request.outputs, request.output_parameters = _outputs(outputs)
    if "model_name" in document or "model_version" in document:
        request.model_name = _text(document, "model_name")
        request.model_version = _text(document, "model_version")
    return request


def _text(document: dict[str, Any], field: str) -> str | None:
    value = document.get(field)
    if value is not None and type(value) is not str:
        raise InvalidInput(field, "a string", json_type(value))
    return value


def _tensor(tensor: object, field: str, raw: RawTensors | None, most: int) -> tuple[str, Array]:
    if type(tensor) is not dict:
        raise InvalidInput(field, "a tensor object", json_type(tensor))
    _only(tensor, _INPUT_KEYS, field)
    name = _name(tensor, field)
    parameters = _parameters(tensor, f"{field}.parameters") if "parameters" in tensor else _NONE
    binary = "binary_data_size" in parameters
    for key in ("shape", "datatype") if binary else ("shape", "datatype", "data"):
        if key not in tensor:
            raise InvalidInput(f"{field}.{key}", _WORDS[key], "nothing")
    shape = known_shape(tensor["shape"], f"{field}.shape", most)
    datatype = known_datatype(tensor["datatype"], f"{field}.datatype")
    if not binary:
        return name, decode_tensor(tensor["data"], datatype, shape, field)
    if "data" in tensor:
        raise InvalidInput(f"{field}.data", "no data beside binary_data_size", "both")
    return name, _raw_tensor(parameters, datatype, shape, field, raw)


def _raw_tensor(
    parameters: Mapping[str, Any],
    datatype: Datatype,
    shape: tuple[int, ...],
    field: str,
    raw: RawTensors | None,
) -> Array:
    place = f"{field}.parameters.binary_data_size"
    size = parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        raise InvalidInput(place, "a number of bytes", json_type(size))
    if raw is None:
        expected = "the header inference-header-content-length, which says where the JSON ends"
        raise InvalidInput(place, expected, "none")
    return decode_raw(raw.take(size, place), datatype, shape, place)


_WORDS = {"shape": "a list of whole numbers", "datatype": "a datatype", "data": "a list of elements"}


def _outputs(outputs: object) -> tuple[tuple[str, ...], Mapping[str, Mapping[str, Any]]]:
    if type(outputs) is not list:
        raise InvalidInput("outputs", "a list of objects with a name", json_type(outputs))
    if len(outputs) > MAX_TENSORS:
        raise InvalidInput("outputs", f"at most {MAX_TENSORS} outputs", str(len(outputs)))
    names = []
    parameters = {}
    for index, output in enumerate(outputs):
        field = f"outputs[{index}]"
        if type(output) is not dict:
            raise InvalidInput(field, "an object with a name", json_type(output))
        _only(output, _OUTPUT_KEYS, field)
        name = _name(output, field)
        names.append(name)
        if given := _parameters(output, f"{field}.parameters"):
            parameters[name] = given
    return tuple(dict.fromkeys(names)), parameters


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


def _parameters(document: dict[str, Any], field: str) -> Mapping[str, Any]:
    parameters = document.get("parameters")
    if parameters is None:
        return _NONE
    if type(parameters) is not dict:
        raise InvalidInput(field, "an object", json_type(parameters))
    for name, value in parameters.items():
        # Names are the caller's own words and may be anything: an unfit value is found without quoting one.
        if type(value) not in _SCALARS:
            raise InvalidInput(field, "strings, numbers and booleans only", json_type(value))
        if name in REFUSED_PARAMETERS:
            raise InvalidInput(f"{field}.{name}", "no such parameter: this server does not do it", "one")
    return parameters


def encode_response(response: InferResponse) -> bytes:
    """Return the JSON body of a response. Raises TypeError for an output dtype that the protocol cannot carry."""
    outputs = []
    declared = response.declared or _NONE
    for name, array in response.outputs.items():
        datatype, data = encode_tensor(array, declared.get(name))
        outputs.append({"name": name, "shape": array.shape, "datatype": datatype, "data": data})
    return orjson.dumps(document_of(response, outputs), option=orjson.OPT_SERIALIZE_NUMPY)


def document_of(response: InferResponse, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a response's JSON object around its described outputs."""
    document: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id is not None:
        document["id"] = response.id
    document["outputs"] = outputs
    return document
