"""The signature of a model and the check of requests against it.

A signature lists named inputs and outputs with a datatype and a shape, -1 standing for any size. Requests may share
a call of the model only with a leading -1 on every input and output. In a signature that somebody wrote it is the
promise that rows are independent; in one that was read from a graph it may be anything, and `probing` asks the model.
`loading` parses it, `core` checks every request with it before anything is queued.

A model trained on named columns may also be asked by columns: one tensor per column, shape [n] or [n, 1], instead
of the one tensor of all features. The flavor says so with `columns`; see `check_inputs`.

What differs without loss is put right: the order of the inputs, [n] against [n, 1], a wider datatype, and whole
numbers against fractions where every value survives (3 for FP32, 3.0 for INT64). Everything else is refused.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from podium_runtime.errors import InvalidInput
from podium_runtime.tensors import DATATYPES, Array, datatype_of

Category = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named input or output. `shape` has -1 where any size goes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False
    categories: tuple[Category, ...] | None = None
    """The values that an input may have, None among them where one may be missing. None: any value."""

    def as_document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}
        if self.optional:
            document["optional"] = True
        if self.categories is not None:
            document["categories"] = list(self.categories)
        return document


# Kinds of numpy between which a conversion depends on the values: integers against floating-point numbers, and
# integers against narrower ones.
_WHOLE_AND_FRACTION = frozenset({(a, b) for a in "iu" for b in "iuf"} | {("f", "i"), ("f", "u")})


@dataclass(frozen=True, slots=True)
class Signature:
    """Named inputs and outputs of a model. `outputs` may be empty when nothing is known about them."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def works_by_row(self) -> bool:
        """Whether the leading axis of everything is a free number of rows."""
        return all(spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs))

    def as_document(self) -> dict[str, Any]:
        return {
            "inputs": [spec.as_document() for spec in self.inputs],
            "outputs": [spec.as_document() for spec in self.outputs],
        }


def parse_signature(document: object) -> Signature:
    """Return the signature in a manifest's JSON object. Raises ValueError naming the field."""
    if not isinstance(document, Mapping):
        raise ValueError(f"signature: expected an object, got {type(document).__name__}")
    inputs = _specs(document.get("inputs"), "signature.inputs")
    if not inputs:
        raise ValueError("signature.inputs: expected at least one tensor")
    return Signature(inputs, _specs(document.get("outputs") or [], "signature.outputs"))


def _specs(entries: object, field: str) -> tuple[TensorSpec, ...]:
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise ValueError(f"{field}: expected a list")
    specs = tuple(_spec(entry, f"{field}[{index}]") for index, entry in enumerate(entries))
    if len({spec.name for spec in specs}) != len(specs):
        raise ValueError(f"{field}: a name stands there twice")
    return specs


def _spec(entry: object, field: str) -> TensorSpec:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{field}: expected an object")
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{field}.name: expected a text that is not empty")
    if datatype not in DATATYPES:
        raise ValueError(f"{field}.datatype: {datatype!r} is unknown; known are {', '.join(DATATYPES)}")
    if not isinstance(shape, list | tuple) or not all(type(size) is int and size >= -1 for size in shape):
        raise ValueError(f"{field}.shape: expected whole numbers, -1 for any size")
    categories = _categories(entry.get("categories"), f"{field}.categories")
    return TensorSpec(name, datatype, tuple(shape), bool(entry.get("optional", False)), categories)


def _categories(values: object, field: str) -> tuple[Category, ...] | None:
    if values is None:
        return None
    known = isinstance(values, list | tuple) and all(
        value is None or isinstance(value, str | int | float) for value in values
    )
    if not known or not values:
        raise ValueError(f"{field}: expected a list of texts, numbers or null that is not empty")
    return tuple(values)  # type: ignore[arg-type]  # just checked


class InputCheck:
    """Checks requests against one signature; made once per model, called per request."""

    def __init__(self, signature: Signature | None, columns: Sequence[str] | None = None) -> None:
        self._specs = {spec.name: spec for spec in signature.inputs} if signature else None
        self._outputs = tuple(spec.name for spec in signature.outputs) if signature else ()
        self._columns = frozenset(columns) if columns else None
        self._by_row = signature is not None and signature.works_by_row
        self._categories = {
            spec.name: frozenset(spec.categories)
            for spec in (signature.inputs if signature else ())
            if spec.categories is not None
        }

    def check_inputs(self, inputs: dict[str, Array]) -> tuple[dict[str, Array], int]:
        """Return the inputs as the model wants them, and their number of rows (0 where rows mean nothing).

        Differences without loss are put right, see the module. Raises InvalidInput for a missing or unknown name,
        another datatype, another shape, a value outside the categories, or unequal rows.
        """
        if self._specs is None:
            return inputs, 0
        if self._columns is not None and self._specs.keys().isdisjoint(inputs):
            fitted = self._by_columns(inputs, self._columns)
        else:
            fitted = self._by_signature(inputs, self._specs)
        return fitted, _rows(fitted, inputs) if self._by_row else 0

    def check_outputs(self, wanted: tuple[str, ...] | None) -> frozenset[str] | None:
        """Return the wanted outputs; None means all. Raises InvalidInput for one that the signature does not have."""
        if not wanted:
            return None
        if self._outputs:
            for index, name in enumerate(wanted):
                if name not in self._outputs:
                    raise InvalidInput(
                        f"outputs[{index}].name", f"one of {listed(self._outputs)}", "another name"
                    )
        return frozenset(wanted)

    def has_output(self, name: str) -> bool:
        """Whether the signature names this output."""
        return name in self._outputs

    def _by_signature(self, inputs: dict[str, Array], specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
        fitted = {}
        for index, (name, array) in enumerate(inputs.items()):
            spec = specs.get(name)
            if spec is None:
                raise InvalidInput(f"inputs[{index}].name", _one_of(self._columns, specs), "another name")
            fitted[name] = _fit(array, spec, index)
            if self._categories and name in self._categories:
                _check_categories(fitted[name], self._categories[name], spec, index)
        if len(fitted) != len(specs):
            missing = [spec.name for spec in specs.values() if spec.name not in fitted and not spec.optional]
            if missing:
                raise InvalidInput("inputs", f"also {listed(missing)}", "none of that name")
        # A model that walks over its inputs meets them in the order it was made with, whatever order they came in.
        return {name: fitted[name] for name in specs if name in fitted} if len(fitted) > 1 else fitted

    def _by_columns(self, inputs: dict[str, Array], columns: frozenset[str]) -> dict[str, Array]:
        fitted = {}
        for index, (name, array) in enumerate(inputs.items()):
            if name not in columns:
                raise InvalidInput(
                    f"inputs[{index}].name", _one_of(columns, self._specs or {}), "another name"
                )
            column = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
            if column.ndim != 1:
                raise InvalidInput(
                    f"inputs[{index}].shape", "[n] or [n, 1] for a column", str(list(array.shape))
                )
            fitted[name] = column
        if missing := sorted(columns - fitted.keys()):
            raise InvalidInput("inputs", f"also {listed(missing)}", "none of that name")
        return fitted


def _fit(array: Array, spec: TensorSpec, index: int) -> Array:
    dtype = DATATYPES[spec.datatype].dtype
    if array.dtype != dtype:
        array = _cast(array, dtype, spec, index)
    shape = spec.shape
    if array.ndim != len(shape):
        array = _column(array, spec, index)
    for size, wanted in zip(array.shape, shape, strict=True):
        if size != wanted and wanted != -1:
            raise InvalidInput(
                f"inputs[{index}].shape", f"{list(shape)} for {spec.name}", str(list(array.shape))
            )
    return array


def _cast(array: Array, dtype: np.dtype[Any], spec: TensorSpec, index: int) -> Array:
    """Return the array in the declared dtype if no value changes by that."""
    between = (array.dtype.kind, dtype.kind)
    # numpy calls 64 bits of whole number to float64 safe, which it is up to 2**53 only.
    rounds = dtype.kind == "f" and array.dtype.kind in "iu" and array.dtype.itemsize == 8
    if "O" not in between and not rounds and np.can_cast(array.dtype, dtype, "safe"):
        return array.astype(dtype)
    if between not in _WHOLE_AND_FRACTION:
        expected = f"{spec.datatype} for {spec.name}"
        raise InvalidInput(f"inputs[{index}].datatype", expected, str(datatype_of(array.dtype)))
    if dtype.kind == "f":
        # Every whole number up to 2**(bits of the fraction + 1) has its own floating-point number (IEEE 754).
        most = 2 ** (7 if spec.datatype == "BF16" else int(np.finfo(dtype).nmant)) * 2
        fits = (array >= -most) & (array <= most)
        words = f"a whole number from {-most} to {most}"
    else:
        lowest, highest = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        # Compared as float64 a bound of 64 bits is rounded up to 2**63 or 2**64: hence "less than the next one".
        wide = array.astype(np.float64) if array.dtype.kind == "f" else array
        above = wide < float(highest) + 1.0 if array.dtype.kind == "f" else wide <= highest
        fits = (wide >= lowest) & above
        if array.dtype.kind == "f":
            fits &= wide == np.trunc(wide)
        words = f"a whole number from {lowest} to {highest}"
    if not fits.all():
        place = int(np.argmin(fits.reshape(-1)))
        raise InvalidInput(
            f"inputs[{index}].data[{place}]", f"{words} for {spec.name} ({spec.datatype})", "another number"
        )
    return array.astype(dtype)


def _check_categories(array: Array, known: frozenset[Category], spec: TensorSpec, index: int) -> None:
    values = [
        value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for value in array.reshape(-1).tolist()
    ]
    if known.issuperset(values):
        return
    place = next(place for place, value in enumerate(values) if value not in known)
    shown = listed(["null" if value is None else str(value)[:40] for value in spec.categories or ()])
    value = values[place]
    got = "a missing value" if value is None or value != value else "another value"
    raise InvalidInput(f"inputs[{index}].data[{place}]", f"one of {shown} for {spec.name}", got)


def _column(array: Array, spec: TensorSpec, index: int) -> Array:
    if len(spec.shape) == 1 and array.ndim == 2 and array.shape[1] == 1:
        return array.reshape(-1)
    if len(spec.shape) == 2 and spec.shape[1] == 1 and array.ndim == 1:
        return array.reshape(-1, 1)
    raise InvalidInput(
        f"inputs[{index}].shape", f"{list(spec.shape)} for {spec.name}", str(list(array.shape))
    )


def _rows(fitted: Mapping[str, Array], inputs: Mapping[str, Array]) -> int:
    rows = -1
    for index, name in enumerate(inputs):
        size = int(fitted[name].shape[0])
        if size == 0:
            raise InvalidInput(f"inputs[{index}].shape", "at least one row", "no row")
        if rows not in (-1, size):
            raise InvalidInput(f"inputs[{index}].shape", f"{rows} rows like the inputs before it", str(size))
        rows = size
    return rows


def _one_of(columns: frozenset[str] | None, specs: Mapping[str, TensorSpec]) -> str:
    names = f"one of {listed(list(specs))}"
    return f"{names}, or the columns {listed(sorted(columns))}" if columns else names


def listed(names: Sequence[str]) -> str:
    """Return at most twenty names as a text, and how many more there are."""
    shown = ", ".join(names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


def example_inputs(signature: Signature) -> dict[str, Array]:
    """Return one made-up row for a signature: zeros, false, empty texts or the first
    category, every free size being 1."""
    inputs = {}
    for spec in signature.inputs:
        if spec.optional:
            continue
        shape = tuple(1 if size == -1 else size for size in spec.shape)
        if math.prod(shape) > 100_000_000:
            raise ValueError(f"an example of {spec.name} would be too large to make up")
        dtype = DATATYPES[spec.datatype].dtype
        if spec.categories is not None:
            inputs[spec.name] = np.full(shape, spec.categories[0], dtype=dtype)
        elif dtype.kind == "O":
            inputs[spec.name] = np.full(shape, "", dtype=object)
        else:
            inputs[spec.name] = np.zeros(shape, dtype=dtype)
    return inputs
