"""Between numpy and PyTorch, and how PyTorch is set up in a replica.

Called by the flavors that stand on PyTorch: `pytorch`, `transformers`, `sentence_transformers`.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from podium_runtime.signature import TensorSpec
from podium_runtime.tensors import Array

# BF16 has no dtype in numpy: on our side it is float32, which holds each of its values.
_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}


def prepare(threads: int) -> Any:
    """Import PyTorch with `threads` threads inside one call; return the module.

    Nothing may be looked up in a model hub, and the tokenizers' own threads would come on top of PyTorch's.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    torch.set_num_threads(threads)
    return torch


def datatype_name(dtype: Any) -> str | None:
    """Return the protocol's datatype for a torch.dtype, or None where it has none."""
    return _DATATYPES.get(str(dtype).removeprefix("torch."))


def to_torch(array: Array, spec: TensorSpec | None) -> Any:
    """Return a tensor of its own memory: a model may write into it.

    `spec` names the datatype; only BF16 cannot be seen from the array.
    """
    import torch

    if array.dtype.kind == "O":
        raise ValueError("PyTorch takes numbers, not texts")
    tensor = torch.from_numpy(np.array(array))
    return tensor.to(torch.bfloat16) if spec is not None and spec.datatype == "BF16" else tensor


def to_numpy(value: Any) -> Array:
    """Return the array of a tensor, or of a plain Python number or list."""
    import torch

    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    tensor = value.detach().cpu()
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def named_outputs(answer: Any, names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return a model's answer by name.

    A mapping keeps its own names. Otherwise the names are `names` where there are as many of them, `output` for one
    tensor, and `output_0`, `output_1` for several.
    """
    if isinstance(answer, Mapping):
        return {str(name): value for name, value in answer.items()}
    parts = list(answer) if isinstance(answer, tuple | list) else [answer]
    if len(names) != len(parts):
        names = ("output",) if len(parts) == 1 else tuple(f"output_{index}" for index in range(len(parts)))
    return dict(zip(names, parts, strict=True))
