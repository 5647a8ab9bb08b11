"""The port behind which every framework stands: what a loaded model can do.

One file per flavor implements it; `flavors.load_model` finds the file by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from podium_runtime.signature import Signature
from podium_runtime.tensors import Array


class Model(Protocol):
    """A loaded model. Every method is called from one thread, the one that loaded it."""

    columns: Sequence[str] | None
    """Feature names by which the model may be asked column by column, or None."""

    properties: Mapping[str, Any]
    """What else a client may want to know (`classes`, `columns`), JSON values only; shown in the model's metadata."""

    rows_independent: bool
    """Whether rows never influence each other, so that requests may share a call when the signature is by row too."""

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        """Return the outputs for checked inputs. `wanted` names outputs worth computing; None means all."""
        ...

    def infer_signature(self) -> Signature | None:
        """Return the signature that the model's own files tell, or None when they tell none."""
        ...

    def framework(self) -> dict[str, str]:
        """Return versions of the libraries that matter for this model, by distribution name."""
        ...
