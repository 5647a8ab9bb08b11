"""Features that come as one tensor or column by column, as one matrix.

Called by the flavors of tree libraries, whose models know their features by name but take numbers only.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from podium_runtime.tensors import Array

INPUT = "input"


def matrix(inputs: Mapping[str, Array], columns: Sequence[str] | None) -> Array:
    """Return the features as an array of shape [rows, features], the columns in the order of the training.

    `inputs` is either the one tensor of all features or one tensor [rows] per column. Raises ValueError where it is
    neither.
    """
    if len(inputs) == 1 and (columns is None or len(columns) != 1 or INPUT in inputs):
        return next(iter(inputs.values()))
    if columns is None:
        raise ValueError(f"a model without column names takes one tensor, got {len(inputs)}")
    return np.column_stack([inputs[name].reshape(-1) for name in columns])
