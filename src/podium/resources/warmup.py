"""The warm-up of a replica: how often its model is called before it is ready, and with what.

Called by `deployment`. Whether an example fits the model's signature only the model server can say; here stands what
holds for every request of the protocol.
"""

import json
import math
from typing import Annotated, Any

from pydantic import AfterValidator, Field, JsonValue, model_validator

from podium.resources.manifest import Datatype
from podium.resources.shape import Spec

EXAMPLE_BYTES = 64 * 2**10
"""An example lies in every revision and every replica's configuration."""


def _check_json(value: Any) -> Any:
    """What JSON can hold: YAML knows more numbers and texts than that."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ValueError("expected finite numbers and texts of Unicode, a few lists deep") from None
    return value


def _elements(data: list[Any]) -> int:
    return sum(_elements(item) if isinstance(item, list) else 1 for item in data)


class ExampleTensor(Spec):
    """One input of the example, as in a request."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    datatype: Datatype
    shape: list[Annotated[int, Field(ge=0, le=2**31 - 1)]] = Field(max_length=16)
    data: Annotated[list[JsonValue], AfterValidator(_check_json)]
    """Flat in row-major order, or lists in lists."""

    @model_validator(mode="after")
    def _as_many_as_it_says(self) -> "ExampleTensor":
        if _elements(self.data) != math.prod(self.shape):
            raise ValueError(
                f"data: expected {math.prod(self.shape)} elements for the shape, got {_elements(self.data)}"
            )
        return self


class WarmupExample(Spec):
    """A request to `infer`: what it says there counts."""

    inputs: list[ExampleTensor] = Field(min_length=1, max_length=1000)
    parameters: Annotated[dict[str, JsonValue], AfterValidator(_check_json)] = Field(
        default_factory=dict, max_length=64
    )

    @model_validator(mode="after")
    def _is_small(self) -> "WarmupExample":
        if len(json.dumps(self.body(), ensure_ascii=False).encode()) > EXAMPLE_BYTES:
            raise ValueError(f"expected at most {EXAMPLE_BYTES // 2**10}Ki of JSON; one row is enough")
        return self

    def body(self) -> dict[str, Any]:
        """The request."""
        inputs = [tensor.model_dump(mode="json", by_alias=True) for tensor in self.inputs]
        return {"inputs": inputs, **({"parameters": self.parameters} if self.parameters else {})}


class Warmup(Spec):
    """What a replica does between loading its model and being ready."""

    requests: Annotated[int, Field(ge=0, le=1000)] = 1
    """Calls of the model; 0: none."""
    example: WarmupExample | None = None
    """What it is called with, and has to answer: a replica that does not never gets ready. None: an input made up from
    the signature, which need not suit the model."""

    @model_validator(mode="after")
    def _an_example_is_tried(self) -> "Warmup":
        if self.example is not None and self.requests == 0:
            raise ValueError("example: nothing is called with it when requests is 0")
        return self
