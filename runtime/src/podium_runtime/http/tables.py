"""Rows and named columns of JSON or CSV as tensors of the model, and outputs as predictions.

Shared by the skins `mlflow` and `kserve_v1`, whose requests name no datatypes: the signature says them, and without
one the values do. A model with one tensor of features takes rows as they stand; one that knows the names of its
inputs or columns takes columns by name.
"""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from podium_runtime.core import Dataplane
from podium_runtime.errors import InvalidInput
from podium_runtime.jobs import Outputs
from podium_runtime.messages import MAX_TENSORS, InferRequest
from podium_runtime.signature import TensorSpec
from podium_runtime.tensors import DATATYPES, MAX_DIMENSIONS, Array, as_text, decode_tensor, json_type

PREDICT = "predict"
# Cells that are numbers, in the notation that every language shares. Python's own would read 1_000, digits of all
# scripts and infinity, too.
_INTEGER = re.compile(r" *[+-]?[0-9]{1,25} *", re.ASCII)
_NUMBER = re.compile(r" *[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)? *|nan|NaN|", re.ASCII)
_MISSING = frozenset({"", "nan", "NaN"})
_INTEGERS = frozenset(name for name, datatype in DATATYPES.items() if datatype.limits[1])


def request_of(core: Dataplane, inputs: dict[str, Array]) -> InferRequest:
    """Return the request for the one output that these protocols mean by a prediction, all of them otherwise."""
    outputs = core.signature.outputs if core.signature else ()
    named = any(spec.name == PREDICT for spec in outputs)
    return InferRequest(inputs, outputs=(PREDICT,) if named else None)


def from_rows(core: Dataplane, rows: object, field: str) -> dict[str, Array]:
    """Return the model's one input from a list of rows (or of values). Raises InvalidInput."""
    specs = _specs(core)
    if len(specs) > 1:
        raise InvalidInput(field, f"values by name: {_listed(list(specs))}", "rows without names")
    spec = next(iter(specs.values()), None)
    return {spec.name if spec else "input": _tensor(rows, spec, field)}


def from_columns(core: Dataplane, columns: Mapping[str, object], field: str) -> dict[str, Array]:
    """Return the model's inputs from lists of values by name. Raises InvalidInput."""
    if not columns:
        raise InvalidInput(field, "at least one column", "none")
    if len(columns) > MAX_TENSORS:
        raise InvalidInput(field, f"at most {MAX_TENSORS} columns", str(len(columns)))
    specs = _specs(core)
    if not specs.keys().isdisjoint(columns):
        if unknown := [name for name in columns if name not in specs]:
            raise InvalidInput(field, f"only {_listed(list(specs))}", f"{len(unknown)} other names")
        return {name: _tensor(values, specs[name], f"{field}.{name}") for name, values in columns.items()}
    known = core.model.columns
    spec = next(iter(specs.values())) if len(specs) == 1 else None
    if specs and known is None:
        if spec is None or len(spec.shape) != 2:
            raise InvalidInput(field, f"values by name: {_listed(list(specs))}", "other names")
        # The model was trained on a bare matrix: columns mean their places, as they do to the framework itself.
        return {spec.name: _matrix(columns, spec, field)}
    if known is not None and (missing := [name for name in known if name not in columns]):
        raise InvalidInput(field, f"the columns {_listed(missing)} too", "a table without")
    # Columns beyond those that the model was trained with are passed over where a table is asked for, as MLflow does.
    names = list(columns) if known is None else list(known)
    return {name: _tensor(columns[name], None, f"{field}[{at}]") for at, name in enumerate(names)}


def from_split(core: Dataplane, document: object, field: str) -> dict[str, Array]:
    """Return the inputs of pandas' form `split`: {"columns", "data", "index"}. Raises InvalidInput."""
    if type(document) is not dict:
        raise InvalidInput(field, "an object with columns and data", json_type(document))
    if "data" not in document or not {"columns", "data", "index"}.issuperset(document):
        raise InvalidInput(field, "data, and beside it columns and index only", "other fields")
    rows = _rows(document["data"], f"{field}.data")
    names = document.get("columns")
    if names is None:
        return from_rows(core, rows, f"{field}.data")
    if type(names) is not list or not all(isinstance(name, str | int) for name in names):
        raise InvalidInput(f"{field}.columns", "a list of names", json_type(names))
    texts = [str(name) for name in names]
    if len(set(texts)) != len(texts):
        raise InvalidInput(f"{field}.columns", "names that are all different", "one that comes twice")
    for index, row in enumerate(rows):
        if type(row) is not list or len(row) != len(texts):
            got = f"{len(row)}" if type(row) is list else json_type(row)
            raise InvalidInput(f"{field}.data[{index}]", f"a list of {len(texts)} values", got)
    return from_columns(core, dict(zip(texts, map(list, zip(*rows, strict=True)), strict=False)), field)


def from_records(core: Dataplane, records: object, field: str) -> dict[str, Array]:
    """Return the inputs of a list of objects with the same names in each. Raises InvalidInput."""
    rows = _rows(records, field)
    first = rows[0]
    if type(first) is not dict:
        raise InvalidInput(f"{field}[0]", "an object", json_type(first))
    for index, row in enumerate(rows):
        if type(row) is not dict:
            raise InvalidInput(f"{field}[{index}]", "an object", json_type(row))
        if row.keys() != first.keys():
            raise InvalidInput(f"{field}[{index}]", "the same names as in the first row", "others")
    return from_columns(core, {name: [row[name] for row in rows] for name in first}, field)


def from_csv(core: Dataplane, content: bytes | bytearray) -> dict[str, Array]:
    """Return the inputs of a CSV table with a header line, as pandas writes it. Raises InvalidInput."""
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError:
        raise InvalidInput("", "text in UTF-8", "other bytes") from None
    except csv.Error:
        raise InvalidInput("", "a CSV table", "something else") from None
    lines = [line for line in lines if line]
    if len(lines) < 2:
        raise InvalidInput("", "a header line and at least one row", f"{len(lines)} lines")
    names, *rows = lines
    if len(set(names)) != len(names):
        raise InvalidInput("", "column names that are all different", "one that comes twice")
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise InvalidInput(f"row {number}", f"{len(names)} values", str(len(row)))
    specs = _specs(core)
    columns: dict[str, object] = {}
    for at, (name, cells) in enumerate(zip(names, zip(*rows, strict=True), strict=True)):
        columns[name] = _cells(cells, specs.get(name), f"the table[{at}]")
    return from_columns(core, columns, "the table")


def predictions(outputs: Outputs, by_row: bool) -> Any:
    """Return outputs in a form that orjson writes (with its option for numpy).

    One output is a list; several become one object per row where `by_row` and all have the same number of rows, and
    one list per name otherwise. Raises TypeError for a dtype that JSON cannot carry.
    """
    if len(outputs) == 1:
        return _plain(next(iter(outputs.values())))
    lengths = {array.shape[:1] for array in outputs.values()}
    if not by_row or len(lengths) != 1 or lengths == {()}:
        return {name: _plain(array) for name, array in outputs.items()}
    lists = {name: list(_plain(array)) for name, array in outputs.items()}
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _plain(array: Array) -> Any:
    kind = array.dtype.kind
    if kind in "biu" or (array.dtype.itemsize in (4, 8) and kind == "f"):
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    if kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32 if array.dtype.itemsize == 2 else np.float64)
    if kind == "M":
        array = np.datetime_as_string(array)
    elif kind not in "OSUT":
        raise TypeError(f"the model returned dtype {array.dtype}, which JSON does not carry")
    texts = np.empty(array.size, dtype=object)
    texts[:] = [
        value if isinstance(value, bool | int | float) else as_text(value) for value in array.ravel().tolist()
    ]
    return texts.reshape(array.shape).tolist()


def _specs(core: Dataplane) -> dict[str, TensorSpec]:
    core.model  # noqa: B018 - raises NotReady while there is none
    return {spec.name: spec for spec in core.signature.inputs} if core.signature else {}


def _rows(value: object, field: str) -> list[Any]:
    if type(value) is not list or not value:
        raise InvalidInput(field, "a list of rows", "an empty list" if value == [] else json_type(value))
    return value


def _matrix(columns: Mapping[str, object], spec: TensorSpec, field: str) -> Array:
    arrays = [
        _tensor(values, spec, f"{field}[{at}]").reshape(-1) for at, values in enumerate(columns.values())
    ]
    if len({len(array) for array in arrays}) != 1:
        raise InvalidInput(field, "columns of the same length", "different ones")
    return np.column_stack(arrays)


def _tensor(values: object, spec: TensorSpec | None, field: str) -> Array:
    """Return a tensor of nested lists: in the spec's datatype, else in the one that the values show."""
    if type(values) is not list:
        values = [values]
    shape: list[int] = []
    level: Any = values
    while type(level) is list:
        if len(shape) == MAX_DIMENSIONS:
            raise InvalidInput(field, f"at most {MAX_DIMENSIONS} dimensions", "more")
        shape.append(len(level))
        level = level[0] if level else None
    datatype = _shown(values, len(shape)) if spec is None or spec.datatype in _INTEGERS else spec.datatype
    # Whole numbers may be written as 3.0; what has a fraction is refused by the check against the signature.
    if spec is not None and spec.datatype in _INTEGERS and datatype != "FP64":
        datatype = spec.datatype
    return decode_tensor(values, DATATYPES[datatype], tuple(shape), field)


def _shown(values: Any, depth: int) -> str:
    """Return the datatype that fits the values; decoding refuses what does not fit into it."""
    for _ in range(depth - 1):
        values = chain.from_iterable(row for row in values if type(row) is list)
    types = set(map(type, values))
    if types == {bool}:
        return "BOOL"
    if types == {int}:
        return "INT64"
    return "FP64" if types <= {int, float, type(None)} else "BYTES"


def _cells(cells: Sequence[str], spec: TensorSpec | None, field: str) -> list[Any]:
    """Return a column of CSV as values: in the spec's type, else as numbers where all are numbers.

    Raises InvalidInput for a number that no float holds.
    """
    datatype = spec.datatype if spec else None
    if datatype == "BYTES":
        return [cell or None for cell in cells]
    if datatype == "BOOL" or (datatype is None and set(cells) <= {"True", "False"}):
        return [{"true": True, "false": False}.get(cell.lower(), cell) for cell in cells]
    if all(map(_INTEGER.fullmatch, cells)):
        return [int(cell) for cell in cells]
    if not all(map(_NUMBER.fullmatch, cells)):
        return [cell or None for cell in cells]
    numbers = [None if cell in _MISSING else float(cell) for cell in cells]
    for row, value in enumerate(numbers):
        if value is not None and math.isinf(value):
            raise InvalidInput(f"{field}[{row}]", "a number that a double can hold", "a larger one")
    return numbers


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:20])} and {len(names) - 20} more" if len(names) > 20 else ", ".join(names)
