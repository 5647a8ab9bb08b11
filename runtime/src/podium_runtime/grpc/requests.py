"""ModelInfer's messages to what `core` works with, and back. Called by `skin`; calls `wire`, `contents` and `raw`."""

from collections.abc import Mapping
from typing import Any

from podium_runtime.errors import InvalidInput
from podium_runtime.grpc import schema, wire
from podium_runtime.grpc.contents import TYPED, decode_contents, encode_contents
from podium_runtime.messages import MAX_NAME, REFUSED_PARAMETERS, InferRequest, InferResponse
from podium_runtime.raw import Buffer, decode_raw, encode_raw
from podium_runtime.tensors import Array, Datatype, datatype_of, known_datatype, known_shape


def infer_request(fields: Mapping[str, Any], most: int) -> InferRequest:
    """Return the request in the decoded fields of a ModelInferRequest, whose tensors may have `most` elements each.

    Raises InvalidInput naming the field.
    """
    tensors = fields.get("inputs", [])
    if not tensors:
        raise InvalidInput("inputs", "at least one tensor", "none")
    raw: list[Buffer] | None = fields.get("raw_input_contents")
    if raw is not None and len(raw) != len(tensors):
        raise InvalidInput("raw_input_contents", f"one for each of the {len(tensors)} inputs", str(len(raw)))
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(tensors):
        field = f"inputs[{index}]"
        name = _name(tensor, field)
        if name in inputs:
            raise InvalidInput(f"{field}.name", "a name of its own", "the name of an earlier input")
        datatype, shape = _described(tensor, field, most)
        if raw is None:
            inputs[name] = decode_contents(tensor.get("contents", {}), datatype, shape, field)
        elif tensor.get("contents"):
            raise InvalidInput(f"{field}.contents", "nothing beside raw_input_contents", "both")
        else:
            inputs[name] = decode_raw(raw[index], datatype, shape, f"raw_input_contents[{index}]")
        _parameters(tensor, f"{field}.parameters")
    names, output_parameters = _wanted(fields.get("outputs", []))
    return InferRequest(
        inputs, fields.get("id") or None, names, _parameters(fields, "parameters"), output_parameters
    )


def sent_raw(fields: Mapping[str, Any]) -> bool:
    """Whether the tensors came raw: then they go back raw, too."""
    return "raw_input_contents" in fields


def _described(tensor: Mapping[str, Any], field: str, most: int) -> tuple[Datatype, tuple[int, ...]]:
    datatype = known_datatype(tensor.get("datatype", ""), f"{field}.datatype")
    sizes = wire.few_integers(wire.packed(tensor.get("shape", [])), f"{field}.shape")
    return datatype, known_shape(sizes, f"{field}.shape", most)


def _wanted(
    outputs: list[Mapping[str, Any]],
) -> tuple[tuple[str, ...] | None, Mapping[str, Mapping[str, Any]] | None]:
    if not outputs:
        return None, None
    parameters: dict[str, Mapping[str, Any]] = {}
    names = []
    for index, output in enumerate(outputs):
        field = f"outputs[{index}]"
        name = _name(output, field)
        names.append(name)
        if given := _parameters(output, f"{field}.parameters"):
            parameters[name] = given
    return tuple(dict.fromkeys(names)), parameters


def _name(part: Mapping[str, Any], field: str) -> str:
    name: str = part.get("name", "")
    if not name:
        raise InvalidInput(f"{field}.name", "a name", "none")
    if len(name) > MAX_NAME:
        raise InvalidInput(f"{field}.name", f"at most {MAX_NAME} characters", str(len(name)))
    return name


def _parameters(part: Mapping[str, Any], field: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for name, choice in part.get("parameters", {}).items():
        if name in REFUSED_PARAMETERS:
            raise InvalidInput(f"{field}.{name}", "no such parameter: this server does not do it", "one")
        # One of five fields; where a caller set several, the last in the table counts.
        parameters[name] = next(reversed(choice.values()), None)
    return parameters


def encode_response(response: InferResponse, raw: bool) -> bytes:
    """Return the ModelInferResponse. `raw`: with raw_output_contents; else typed, if all outputs have a typed form.

    Raises TypeError for an output dtype that the protocol cannot carry.
    """
    declared = response.declared or {}
    arrays = response.outputs
    raw = raw or any(
        declared.get(name) == "BF16" or datatype_of(array.dtype) not in TYPED
        for name, array in arrays.items()
    )
    outputs: list[dict[str, Any]] = []
    contents: list[Buffer] = []
    for name, array in arrays.items():
        tensor: dict[str, Any] = {"name": name, "shape": array.shape}
        if raw:
            tensor["datatype"], data = encode_raw(array, declared.get(name))
            contents.append(data)
        else:
            tensor["datatype"], tensor["contents"] = encode_contents(array)
        outputs.append(tensor)
    values = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "id": response.id,
        "outputs": outputs,
        "raw_output_contents": contents,
    }
    return wire.encode(schema.INFER_RESPONSE, values)
