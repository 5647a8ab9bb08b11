"""A signature in MLflow's words (the JSON inside MLmodel) as tensors of the Open Inference Protocol.

Called by `formats.mlflow`. The runtime maps a loaded MLflow model in the same way: named columns are inputs of shape
[-1], an unnamed tensor is `input`, unnamed columns of one type are the columns of one tensor `input`, and an answer
without a name is `predict`. Types without a tensor (objects, maps, arrays of arrays) have no signature.
"""

import json
import re
from typing import Any

from pydantic import ValidationError

from podium.resources.manifest import Signature, TensorSpec

INPUT = "input"
OUTPUT = "predict"
# mlflow.types.DataType
_COLUMNS = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
    "datetime": "BYTES",
}
# Names of numpy's dtypes, as TensorSpec writes them.
_DTYPES = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "object": "BYTES",
    "str": "BYTES",
    "bytes": "BYTES",
}


class Unmapped(Exception):
    """The signature cannot be written as tensors; the message says why."""


def read_signature(document: Any) -> Signature | None:
    """The signature of an MLmodel's `signature` entry; None where it has none. Raises Unmapped."""
    if document is None:
        return None
    if not isinstance(document, dict):
        raise Unmapped("it is not an object")
    inputs = _tensors(_schema(document.get("inputs")), INPUT)
    if not inputs:
        return None
    try:
        outputs = _tensors(_schema(document.get("outputs")), OUTPUT)
    except Unmapped:
        outputs = []
    try:
        return Signature.model_validate({"inputs": inputs, "outputs": outputs})
    except ValidationError as error:
        raise Unmapped(f"it is out of bounds ({error.errors()[0]['msg'][:100]})") from None


def _schema(text: Any) -> list[dict[str, Any]]:
    if text is None:
        return []
    try:
        columns = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        raise Unmapped("its columns are not JSON") from None
    if not isinstance(columns, list) or not all(isinstance(column, dict) for column in columns):
        raise Unmapped("its columns are not a list of objects")
    return columns


def _tensors(columns: list[dict[str, Any]], unnamed: str) -> list[TensorSpec]:
    if not columns:
        return []
    try:
        if any(column.get("type") == "tensor" for column in columns):
            return _unique([_tensor(column, unnamed) for column in columns])
        if all(isinstance(column.get("name"), str) for column in columns):
            return _unique([_column(column) for column in columns])
        datatypes = {_datatype(column) for column in columns}
        if len(datatypes) > 1:
            raise Unmapped("its columns have no names and more than one type")
        shape = [-1] if unnamed == OUTPUT and len(columns) == 1 else [-1, len(columns)]
        return [TensorSpec.model_validate({"name": unnamed, "datatype": datatypes.pop(), "shape": shape})]
    except ValidationError as error:
        raise Unmapped(f"a column is out of bounds ({error.errors()[0]['msg'][:100]})") from None


def _column(column: dict[str, Any]) -> TensorSpec:
    required = column.get("required", not column.get("optional", False))
    return TensorSpec.model_validate(
        {"name": column["name"], "datatype": _datatype(column), "shape": [-1], "optional": required is False}
    )


def _datatype(column: dict[str, Any]) -> str:
    kind = column.get("type")
    datatype = _COLUMNS.get(kind) if isinstance(kind, str) else None
    if datatype is None:
        raise Unmapped(
            f"column {str(column.get('name'))[:80]!r} has type {str(kind)[:40]!r}, which no tensor carries"
        )
    return datatype


def _tensor(column: dict[str, Any], unnamed: str) -> TensorSpec:
    spec = column.get("tensor-spec")
    if not isinstance(spec, dict):
        raise Unmapped("some of its columns are tensors and some are not")
    dtype = spec.get("dtype")
    datatype = _DTYPES.get(dtype) if isinstance(dtype, str) else None
    if datatype is None and isinstance(dtype, str) and re.match(r"[<>|=]?[USM]|datetime64", dtype):
        datatype = "BYTES"
    if datatype is None:
        raise Unmapped(f"a tensor has dtype {str(dtype)[:40]!r}, which the protocol does not carry")
    name = column.get("name")
    return TensorSpec.model_validate(
        {"name": unnamed if name is None else name, "datatype": datatype, "shape": spec.get("shape")}
    )


def _unique(tensors: list[TensorSpec]) -> list[TensorSpec]:
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise Unmapped("two of its columns have the same name, or none")
    return tensors
