"""What is sent to a model server by the fuzz, the model that it is sent to, and a valid request to begin with.

Called by `hostile` and its siblings, which make cases of it, and by `fuzz`, which sends and judges them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PATH = "/v2/models/churn/infer"
MAX_BODY = 256 * 1024
INPUTS: list[dict[str, Any]] = [
    {"name": "x", "datatype": "FP64", "shape": [-1, 3], "optional": True},
    {"name": "n", "datatype": "INT32", "shape": [-1]},
    {"name": "flag", "datatype": "BOOL", "shape": [-1], "optional": True},
    {"name": "text", "datatype": "BYTES", "shape": [-1], "optional": True},
    {"name": "half", "datatype": "FP16", "shape": [-1, 2], "optional": True},
    {"name": "big", "datatype": "UINT64", "shape": [-1], "optional": True},
]
SIGNATURE = {"inputs": INPUTS, "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}]}
# Answers every input that fits the signature with numbers: whatever fails here is the server's failure.
MODEL = """
import numpy as np

class Model:
    def predict(self, inputs):
        with np.errstate(all="ignore"):
            y = inputs["n"].astype(np.float64)
            for name in ("x", "flag", "half", "big"):
                if inputs.get(name) is not None:
                    y = y + np.nansum(inputs[name].reshape(len(y), -1).astype(np.float64), axis=1)
            if inputs.get("text") is not None:
                y = y + np.array([len(str(value)) for value in inputs["text"]])
        return {"y": y}
"""
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 2**31, 2**63, 2**64, 2**200, "", "x", "1", "\0", "é" * 50,
    "a" * 5000, [], [[]], {}, {"a": 1}, [None], [1, "x"], [[1, 2], [3]], ["NaN"], "FP64", "INT128", "inf",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What is sent on one connection."""

    kind: str
    sent: bytes
    body: bytes | None = None
    """Where the whole is one well-formed POST to the infer path: its body; the runner judges it by the schema."""
    refused: bool = False
    """Known to be refused: a 2xx would be an error."""
    accepted: bool = False
    """Known to be right in all: anything but 200 would be an error."""
    ends: bool = False
    """The sender hangs up its side afterwards: nothing more will come."""


def valid(chance: random.Random) -> dict[str, Any]:
    """A request that fits the signature."""
    rows = chance.choice([1, 1, 1, 2, 5])
    made: dict[str, Callable[[], Any]] = {
        "x": lambda: [chance.choice([chance.uniform(-9, 9), None, 0.0]) for _ in range(3 * rows)],
        "n": lambda: [chance.randint(-(2**31), 2**31 - 1) for _ in range(rows)],
        "flag": lambda: [chance.random() < 0.5 for _ in range(rows)],
        "text": lambda: [chance.choice(["", "a", "é\n", None, "x" * 40]) for _ in range(rows)],
        "half": lambda: [chance.uniform(-1, 1) for _ in range(2 * rows)],
        "big": lambda: [chance.randint(0, 2**64 - 1) for _ in range(rows)],
    }
    tensors = []
    for spec in INPUTS:
        if spec.get("optional") and chance.random() < 0.5:
            continue
        shape = [rows, *spec["shape"][1:]]
        tensors.append(
            {**{k: spec[k] for k in ("name", "datatype")}, "shape": shape, "data": made[spec["name"]]()}
        )
    document: dict[str, Any] = {"inputs": tensors}
    if chance.random() < 0.3:
        document["id"] = str(chance.random())
    if chance.random() < 0.3:
        document["outputs"] = [{"name": "y"}]
    if chance.random() < 0.2:
        document["parameters"] = {"a": chance.choice([1, "b", True])}
    return document


def post(body: bytes, path: str = PATH, **headers: str) -> bytes:
    """A whole request; headers replace the usual ones (underscores become dashes)."""
    told = {"host": "replica", "content-type": "application/json", "content-length": str(len(body))}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def empty_shape(chance: random.Random) -> list[int]:
    """At least one zero, beside sizes of which no product must be taken carelessly."""
    # 2**31 - 1 is what servers take for the longest: two of them times eight bytes are more than 64 bits hold.
    sizes = chance.choice([[2**31 - 1], [2**31 - 1], [1, 3], [1, 2**31 - 1, 2**31, 2**62]])
    shape = [chance.choice(sizes) for _ in range(chance.randint(0, 4))]
    shape.insert(chance.randint(0, len(shape)), 0)
    return shape
