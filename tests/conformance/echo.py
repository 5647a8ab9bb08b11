"""What is served for the conformance table: a model with an optional input of every datatype, which it answers with.

Called by test_conformance. The client scripts run without Podium and repeat the names.
"""

from typing import Any

NAME, VERSION = "churn", "1"
DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64",
    "BYTES",
)  # fmt: skip
_TENSORS: list[dict[str, Any]] = [
    {"name": datatype.lower(), "datatype": datatype, "shape": [-1]} for datatype in DATATYPES
]
SIGNATURE = {"inputs": [{**tensor, "optional": True} for tensor in _TENSORS], "outputs": _TENSORS}
MODEL = """
class Model:
    def predict(self, inputs):
        return {name: value for name, value in inputs.items() if value is not None}
"""
SETTINGS = {
    "served": {"name": NAME, "version": VERSION, "workspace": "default", "revision": f"{NAME}-00001"},
    "warmup": {"requests": 0},
}
