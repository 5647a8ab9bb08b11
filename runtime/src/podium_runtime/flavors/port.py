"""The port behind which every framework stands: what a loaded model can do.

One file per flavor implements it; `flavors.load_model` finds the file by name. `Streaming` and `Stoppable` are
abilities that only some have.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from podium_runtime.signature import Signature
from podium_runtime.tensors import Array


class Model(Protocol):
    """A loaded model. No two calls ever overlap.

    Most come from the one thread that loaded it. `predict` of the flavors in `core.ANY_THREAD` may come from the event
    loop's thread as well.
    """

    columns: Sequence[str] | None
    """Feature names by which the model may be asked column by column, or None."""

    properties: Mapping[str, Any]
    """What else a client may want to know (`classes`, `columns`), JSON values only; shown in the model's metadata."""

    @property
    def rows_independent(self) -> bool | None:
        """Whether rows never influence each other, so that requests may share a call if the signature is by row too.

        None where neither the framework nor the model's author says so: then a free first axis may as well be a
        sequence or the nodes of a graph, and it takes a trial with rows together and alone to share calls.
        """
        ...

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        """Return the outputs for checked inputs. `wanted` names outputs worth computing; None means all."""
        ...

    def infer_signature(self) -> Signature | None:
        """Return the signature that the model's own files tell, or None when they tell none."""
        ...

    def framework(self) -> dict[str, str]:
        """Return versions of the libraries that matter for this model, by distribution name."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """What a model has besides `Model` when it can answer piece by piece."""

    def predict_stream(self, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """Yield the outputs of checked inputs as they come.

        Called from the model's thread, and so is every step of the iteration. Closing the iterator ends the work.
        """
        ...


@runtime_checkable
class Stoppable(Protocol):
    """What a model has besides `Model` when one call can take much longer than anybody waits for it."""

    def predict_until(
        self, inputs: Mapping[str, Array], wanted: frozenset[str] | None, stopped: Callable[[], bool]
    ) -> dict[str, Array]:
        """As `predict`, but raise DeadlineExceeded soon after `stopped` says that nobody waits any more."""
        ...
