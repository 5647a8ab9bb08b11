"""ONNX models through onnxruntime on the CPU.

Inputs and outputs are the graph's own, by name; symbolic and unknown sizes are -1. Texts go in and out as str. BF16,
which numpy does not have, is float32 on our side: it is rounded to the nearest (ties to even) on the way in.
"""

import ctypes
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium_runtime.errors import InvalidInput, ModelUnusable
from podium_runtime.raw import bfloat16_bits
from podium_runtime.signature import Signature, TensorSpec
from podium_runtime.tensors import Array

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}

_BFLOAT16 = 16
"""TensorProto.BFLOAT16 of onnx.proto."""


def load(folder: Path, entry: str, options: Mapping[str, Any], threads: int) -> "OnnxModel":
    """Return the graph in the file `entry`, with `threads` threads inside one call."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    # The path is handed over, not the bytes: large graphs keep weights in files beside it.
    session = onnxruntime.InferenceSession(str(folder / entry), settings, providers=["CPUExecutionProvider"])
    return OnnxModel(session)


class OnnxModel:
    """One onnxruntime session."""

    columns: Sequence[str] | None = None
    # A free first axis may be anything: rows, the steps of a sequence, the nodes of a graph.
    rows_independent: bool | None = None

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs = tuple(_spec(node, "input") for node in session.get_inputs())
        self._outputs = tuple(_spec(node, "output") for node in session.get_outputs())
        self._texts = frozenset(spec.name for spec in self._inputs if spec.datatype == "BYTES")
        self._has_bfloat16 = any(spec.datatype == "BF16" for spec in (*self._inputs, *self._outputs))
        self.properties: Mapping[str, Any] = {"providers": list(session.get_providers())}

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        names = [spec.name for spec in self._outputs if wanted is None or spec.name in wanted]
        if self._texts:
            inputs = {
                name: _texts(array, index) if name in self._texts else array
                for index, (name, array) in enumerate(inputs.items())
            }
        if self._has_bfloat16:
            return self._predict_values(inputs, names)
        results = self._session.run(names, dict(inputs))
        return {name: np.asarray(result) for name, result in zip(names, results, strict=True)}

    def _predict_values(self, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """As `predict`, with onnxruntime's own values, since no array holds a bfloat16."""
        from onnxruntime import OrtValue

        bfloat16 = {spec.name for spec in self._inputs if spec.datatype == "BF16"}
        values = {
            name: OrtValue.ortvalue_from_numpy_with_onnx_type(
                bfloat16_bits(array).reshape(array.shape), _BFLOAT16
            )
            if name in bfloat16
            else OrtValue.ortvalue_from_numpy(array)
            for name, array in inputs.items()
        }
        results = self._session.run_with_ort_values(list(names), values)
        return {name: _array_of(value) for name, value in zip(names, results, strict=True)}

    def infer_signature(self) -> Signature | None:
        return Signature(self._inputs, self._outputs)

    def framework(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("onnxruntime", "numpy")}


def _spec(node: Any, kind: str) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        known = ", ".join(_DATATYPES)
        hint = (
            "; a scikit-learn classifier must be exported with zipmap off"
            if node.type.startswith("seq(")
            else ""
        )
        raise ModelUnusable(f"onnx: {kind} {node.name} is a {node.type}, the protocol carries {known}{hint}")
    return TensorSpec(
        node.name, datatype, tuple(size if isinstance(size, int) else -1 for size in node.shape or ())
    )


def _texts(array: Array, index: int) -> Array:
    values = [value.decode() if isinstance(value, bytes) else value for value in array.reshape(-1).tolist()]
    for place, value in enumerate(values):
        if not isinstance(value, str):
            raise InvalidInput(f"inputs[{index}].data[{place}]", "a text", "null")
    return np.array(values, dtype=object).reshape(array.shape)


def _array_of(value: Any) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        return np.asarray(value.numpy())
    shape = tuple(value.shape())
    if 0 in shape:
        return np.zeros(shape, dtype=np.float32)
    pointer = ctypes.cast(value.data_ptr(), ctypes.POINTER(ctypes.c_uint16))
    halves = np.ctypeslib.as_array(pointer, shape)
    # `astype` copies: the memory is onnxruntime's, and gone with the value.
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)
