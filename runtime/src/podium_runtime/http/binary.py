"""The binary tensor data extension of the Open Inference Protocol over HTTP.

Used by `v2`. The header Inference-Header-Content-Length says where the JSON of a request ends; the tensors whose
parameters have a `binary_data_size` follow in their order, in the raw form that `raw` reads. An answer is built the
same way where the request asks for it: `binary_data` of an output, or `binary_data_output` of the request.
Source: the extension's description in Triton's documentation (protocol/extension_binary_data).
"""

from typing import Any

import orjson

from podium_runtime.errors import InvalidInput
from podium_runtime.http.exchange import Exchange
from podium_runtime.messages import (
    InferRequest,
    InferResponse,
    RawTensors,
    document_of,
    parse_json,
    request_from_document,
)
from podium_runtime.raw import Buffer, encode_raw
from podium_runtime.tensors import encode_tensor, json_type

HEADER = b"inference-header-content-length"
OCTETS = b"application/octet-stream"


def decode_binary(exchange: Exchange, most: int) -> InferRequest:
    """Return the request in a body of JSON and raw tensors, of `most` elements each. Raises InvalidInput."""
    announced = exchange.headers[HEADER].strip()
    if not announced.isdigit() or len(announced) > 12:
        raise InvalidInput(HEADER.decode(), "the number of bytes of the JSON part", "something else")
    length = int(announced)
    if length > exchange.size:
        raise InvalidInput(HEADER.decode(), f"at most the {exchange.size} bytes of the body", f"{length}")
    body = exchange.body_aligned(length)
    # orjson copies what it reads; the tensors behind it are not copied.
    return request_from_document(parse_json(bytes(body[:length])), RawTensors(body[length:]), most)


def asks_for_binary(request: InferRequest) -> bool:
    """Return whether any output of the answer is wanted in raw form. Raises InvalidInput for flags that are none."""
    found = _flag(request.parameters, "binary_data_output", "parameters")
    own = request.output_parameters
    for index, name in enumerate((request.outputs or ()) if own else ()):
        found = _flag((own or {}).get(name), "binary_data", f"outputs[{index}].parameters") or found
    return found


def _flag(parameters: Any, name: str, field: str) -> bool:
    value = parameters.get(name, False) if parameters else False
    if type(value) is not bool:
        raise InvalidInput(f"{field}.{name}", "true or false", json_type(value))
    return value


def encode_binary(request: InferRequest, response: InferResponse) -> tuple[list[Buffer], bytes]:
    """Return the pieces of the body and the header line that says where its JSON ends.

    The pieces share memory with the outputs. Raises TypeError for an output dtype that the protocol cannot carry.
    """
    every = bool((request.parameters or {}).get("binary_data_output", False))
    own = request.output_parameters or {}
    declared = response.declared or {}
    described: list[dict[str, Any]] = []
    pieces: list[Buffer] = []
    for name, array in response.outputs.items():
        output: dict[str, Any] = {"name": name, "shape": array.shape}
        if own.get(name, {}).get("binary_data", every):
            output["datatype"], piece = encode_raw(array, declared.get(name))
            output["parameters"] = {"binary_data_size": len(piece)}
            pieces.append(piece)
        else:
            output["datatype"], output["data"] = encode_tensor(array, declared.get(name))
        described.append(output)
    head = orjson.dumps(document_of(response, described), option=orjson.OPT_SERIALIZE_NUMPY)
    return [head, *pieces], b"%b: %d\r\n" % (HEADER, len(head))
