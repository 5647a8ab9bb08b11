"""A small model in front of a larger one: is an answer sure enough, or should the larger one be asked?

The gateway asks with the header `x-podium-cascade`, and takes the header `x-podium-escalate` in an answer as a yes.
`http.asking` and `http.grpc_bridge` read the one and write the other; `core` sees to it that the output that holds the
confidence is computed. Streamed answers never escalate: their first event is out before the last is known.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from podium_runtime.tensors import Array

HEADER = b"x-podium-cascade"
ESCALATE = b"x-podium-escalate"
_ASKED = re.compile(rb"by=([a-z0-9,-]+);threshold=([0-9.e-]{1,24});output=([!-~]{1,128})")


@dataclass(frozen=True)
class Asked:
    """What the gateway wants to know of an answer."""

    threshold: float
    """A confidence below this is not sure enough."""
    output: str
    """The model's output that holds the confidence, or probabilities of classes."""


def read(headers: Mapping[bytes, bytes], name: str) -> Asked | None:
    """What the gateway asks the model called `name`; None where it asks nothing, or asks another one."""
    value = headers.get(HEADER)
    if value is None:
        return None
    found = _ASKED.fullmatch(value)
    if found is None or name.encode() not in found[1].split(b","):
        return None
    try:
        return Asked(float(found[2]), found[3].decode("ascii"))
    except ValueError:
        return None


def confidence(array: Array) -> float | None:
    """How sure the least sure row is: the largest number along the last axis, or the number itself where a row is one.

    A number that is none counts as 0. None: there is no row, or there are no numbers.
    """
    if array.size == 0 or array.dtype.kind not in "fiub":
        return None
    numbers = np.nan_to_num(array.astype(np.float64, copy=False), nan=0.0)
    return float((numbers.max(axis=-1) if numbers.ndim > 1 else numbers).min())


def line(asked: Asked, outputs: Mapping[str, Array]) -> tuple[bytes, str]:
    """The header line for an answer, empty where it is sure enough, and what to count: `sure`, `unsure`, or `unknown`
    where the model has no such output."""
    array = outputs.get(asked.output)
    found = None if array is None else confidence(np.asarray(array))
    if found is None:
        return b"", "unknown"
    if found >= asked.threshold:
        return b"", "sure"
    return b"%b: %.6g\r\n" % (ESCALATE, found), "unsure"
