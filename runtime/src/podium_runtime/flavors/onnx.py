"""ONNX models through onnxruntime on the CPU.

Inputs and outputs are the graph's own, by name; symbolic and unknown sizes are -1.
"""

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium_runtime.errors import ModelUnusable
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
    "tensor(string)": "BYTES",
}


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
    rows_independent = True

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs = tuple(_spec(node, "input") for node in session.get_inputs())
        self._outputs = tuple(_spec(node, "output") for node in session.get_outputs())
        self.properties: Mapping[str, Any] = {"providers": list(session.get_providers())}

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        names = [spec.name for spec in self._outputs if wanted is None or spec.name in wanted]
        results = self._session.run(names, dict(inputs))
        return {name: np.asarray(result) for name, result in zip(names, results, strict=True)}

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
