"""Inputs made up from what a model says that it takes. Called by `podium load` and the profiler."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

SEED = 20
MOST_ELEMENTS = 1_000_000
"""In one made-up tensor of a request."""
_TEXT = "the quick brown fox jumps over the lazy dog"


def made_up_value(datatype: str, chance: random.Random) -> Any:
    """One element of a tensor of the Open Inference Protocol."""
    if datatype == "BOOL":
        return chance.random() < 0.5
    if datatype == "BYTES":
        return _TEXT
    if datatype.startswith("FP") or datatype == "BF16":
        return round(chance.gauss(0, 1), 4)
    return chance.randint(0, 9)


def made_up_bodies(inputs: Sequence[Mapping[str, Any]], count: int) -> list[bytes]:
    """`count` different requests of one row, as JSON. `inputs`: name, datatype and shape of each, as a model's metadata
    has them; a free size (-1) is 1. The same in every run. Raises ValueError for a tensor that is too large."""
    chance = random.Random(SEED)  # noqa: S311 - inputs for a measurement
    bodies = []
    for _ in range(count):
        tensors = []
        for tensor in inputs:
            shape = [1 if size == -1 else int(size) for size in tensor["shape"]]
            length = math.prod(shape)
            if not 0 <= length <= MOST_ELEMENTS:
                raise ValueError(f"an input {tensor['name']} of {length} values is too large to make up")
            data = [made_up_value(str(tensor["datatype"]), chance) for _ in range(length)]
            tensors.append(
                {"name": tensor["name"], "shape": shape, "datatype": tensor["datatype"], "data": data}
            )
        bodies.append(json.dumps({"inputs": tensors}, separators=(",", ":")).encode())
    return bodies
