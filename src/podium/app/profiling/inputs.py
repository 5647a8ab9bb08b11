"""Bodies of requests for a version: from given rows, from the model's own example, or made up from its signature.

Called by `profiler`, and by `serving` for the request that it shows. Raises InvalidInput naming the row or tensor.
"""

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from podium.load.bodies import SEED, made_up_value
from podium.resources.errors import InvalidInput, Issue
from podium.resources.manifest import Manifest, Signature, TensorSpec

Source = Literal["given", "example", "made up"]
_MADE_UP_ROWS = 64
_MOST_ELEMENTS = 50_000_000
_MAX_EXAMPLE = 16 * 2**20
_MLFLOW_EXAMPLE = "serving_input_example.json"


@dataclass(frozen=True)
class Tensor:
    """One input. `rows` has one item per row, each the flat elements of that row; `shape` is of one row."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Inputs:
    """Rows to ask with. `by_row`: several may go into one request."""

    tensors: Sequence[Tensor]
    source: Source
    by_row: bool

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.tensors[0].rows)

    def document(self, rows: int = 1, start: int = 0) -> dict[str, Any]:
        """A request of the Open Inference Protocol with that many rows, in turn from row `start` on."""
        return {"inputs": [self._tensor(tensor, rows, start) for tensor in self.tensors]}

    def body(self, rows: int = 1, start: int = 0) -> str:
        """The same as JSON."""
        return json.dumps(self.document(rows, start), separators=(",", ":"), allow_nan=False)

    def _tensor(self, tensor: Tensor, rows: int, start: int) -> dict[str, Any]:
        chosen = [tensor.rows[(start + index) % len(tensor.rows)] for index in range(rows)]
        shape = [rows, *tensor.shape] if self.by_row else list(tensor.shape)
        data = [value for row in chosen for value in row]
        return {"name": tensor.name, "shape": shape, "datatype": tensor.datatype, "data": data}


def works_by_row(signature: Signature | None) -> bool:
    """Whether the first axis of everything is a free number of rows, as the model server sees it."""
    return signature is None or all(
        spec.shape[:1] == [-1] for spec in (*signature.inputs, *signature.outputs)
    )


def given(signature: Signature | None, rows: Sequence[Any] | None, inputs: Mapping[str, Any]) -> Inputs:
    """What the caller gave: `rows` (lists, or objects by column), else `inputs` (nested lists by tensor)."""
    found = inputs if rows is None else _columns(signature, rows)
    known = {spec.name: spec for spec in signature.inputs} if signature else {}
    # A model of one matrix may also be asked column by column: then none of the names is the matrix's.
    by_column = len(known) == 1 and known.keys().isdisjoint(found)
    if known and not by_column:
        for name in found:
            if name not in known:
                raise InvalidInput(
                    Issue(f"inputs.{name[:60]}", f"no such input; known: {', '.join(list(known)[:20])}")
                )
    tensors = [_tensor(name, value, known.get(name)) for name, value in found.items()]
    counts = {len(tensor.rows) for tensor in tensors}
    if len(counts) > 1:
        raise InvalidInput(Issue("inputs", "expected the same number of rows in each tensor"))
    by_row = works_by_row(signature)
    if not by_row:
        return Inputs([_whole(tensor) for tensor in tensors], "given", by_row=False)
    return Inputs(tensors, "given", by_row=True)


def found_or_made_up(manifest: Manifest, signature: Signature | None, folder: Path) -> Inputs:
    """The example in the model's own files, else values made up from the signature.

    Raises InvalidInput without both.
    """
    example = _example(manifest, folder)
    if example is not None:
        try:
            made = given(signature, example.get("rows"), example.get("inputs") or {})
            return Inputs(made.tensors, "example", made.by_row)
        except InvalidInput:
            # Written by the model's author for another protocol: what it says need not fit the signature.
            pass
    if signature is None:
        raise InvalidInput(
            Issue("rows", "the version has no signature to make up inputs from"),
            next_step='give real ones: --rows FILE with {"TENSOR": [[...]]}',
        )
    return made_up(signature)


def made_up(signature: Signature) -> Inputs:
    """Random values of the right types and shapes, the same in every run; every free size is 1."""
    chance = random.Random(SEED)  # noqa: S311 - inputs for a measurement
    by_row = works_by_row(signature)
    tensors = []
    for spec in signature.inputs:
        if spec.optional:
            continue
        shape = tuple(1 if size == -1 else size for size in (spec.shape[1:] if by_row else spec.shape))
        length = math.prod(shape)
        rows = _MADE_UP_ROWS if by_row and length * _MADE_UP_ROWS <= _MOST_ELEMENTS / 50 else 1
        if length > _MOST_ELEMENTS:
            raise InvalidInput(
                Issue("rows", f"an input {spec.name} of {length} values is too large to make up")
            )
        values = [[made_up_value(spec.datatype, chance) for _ in range(length)] for _ in range(rows)]
        tensors.append(Tensor(spec.name, spec.datatype, shape, values))
    if not tensors:
        raise InvalidInput(Issue("rows", "the signature names no input that is needed; give real ones"))
    return Inputs(tensors, "made up", by_row)


def _columns(signature: Signature | None, rows: Sequence[Any]) -> dict[str, Any]:
    """Rows as nested lists by tensor: one matrix, or a column for each input, or for each name of the objects."""
    if isinstance(rows[0], Mapping):
        names = list(rows[0])
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping) or set(row) != set(names):
                raise InvalidInput(Issue(f"rows[{index}]", "expected an object with the first one's names"))
        return {str(name): [row[name] for row in rows] for name in names}
    lists = [row if isinstance(row, list) else [row] for row in rows]
    if signature is None:
        raise InvalidInput(
            Issue("rows", "the version has no signature: name the tensors"),
            next_step='a file such as {"x": [[1, 2], [3, 4]]}',
        )
    needed = [spec for spec in signature.inputs if not spec.optional] or list(signature.inputs)
    if len(needed) == 1 and len(needed[0].shape) != 1:
        return {needed[0].name: lists}
    for index, row in enumerate(lists):
        if len(row) != len(needed):
            raise InvalidInput(Issue(f"rows[{index}]", f"expected {len(needed)} values, got {len(row)}"))
    return {spec.name: [row[index] for row in lists] for index, spec in enumerate(needed)}


def _tensor(name: str, value: Any, spec: TensorSpec | None) -> Tensor:
    """Nested lists, first axis the rows. `spec` None: the datatype is what the values are."""
    field = f"inputs.{name[:60]}"
    if not isinstance(value, list) or not value:
        raise InvalidInput(Issue(field, "expected a list of rows"))
    shape = _shape(value[0])
    if spec is not None and len(spec.shape) == len(shape) + 2 and spec.shape[-1] in (1, -1):
        shape = (*shape, 1)  # a column that the signature has as [-1, 1]
    length = math.prod(shape)
    rows = []
    for index, row in enumerate(value):
        flat = list(_flat(row))
        if len(flat) != length or (_shape(row) != shape and _shape(row) != shape[:-1]):
            raise InvalidInput(Issue(f"{field}[{index}]", f"expected {length} values as in the first row"))
        rows.append(flat)
    datatype = spec.datatype if spec is not None else _datatype(field, rows)
    return Tensor(name, datatype, shape, rows)


def _whole(tensor: Tensor) -> Tensor:
    """For a model that does not work by row: all that was given is one request."""
    flat = [value for row in tensor.rows for value in row]
    return Tensor(tensor.name, tensor.datatype, (len(tensor.rows), *tensor.shape), [flat])


def _shape(value: Any) -> tuple[int, ...]:
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    return [item for inner in value for item in _flat(inner)]


def _datatype(field: str, rows: Sequence[Sequence[Any]]) -> str:
    kinds = {type(value) for row in rows for value in row if value is not None}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {str}:
        return "BYTES"
    if kinds == {int} and all(value is not None for row in rows for value in row):
        return "INT64"
    if kinds <= {int, float}:
        return "FP64"
    raise InvalidInput(Issue(field, "expected numbers, or texts, or true and false, not a mix of them"))


def _example(manifest: Manifest, folder: Path) -> dict[str, Any] | None:
    """`rows` or `inputs` of the example that MLflow keeps beside a model; None where there is none that we can read."""
    file = folder / _MLFLOW_EXAMPLE
    listed = {entry.path: entry.size for entry in manifest.files}
    if manifest.flavor.name != "mlflow" or not 0 < listed.get(_MLFLOW_EXAMPLE, 0) <= _MAX_EXAMPLE:
        return None
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict):
        return None
    split = document.get("dataframe_split")
    if isinstance(split, dict) and split.get("columns") and isinstance(split.get("data"), list):
        columns = [str(name) for name in split["columns"]]
        return {"rows": [dict(zip(columns, row, strict=False)) for row in split["data"]] or None}
    if isinstance(document.get("inputs"), dict):
        return {"inputs": document["inputs"]}
    rows = document.get("inputs") or document.get("instances") or document.get("dataframe_records")
    return {"rows": rows} if isinstance(rows, list) and rows else None
