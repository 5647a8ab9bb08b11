"""How far a shadow's answers lie from the champion's on the same requests, and how far they may. Data and validation
only.

`control.comparisons` writes a `Comparison` from what the replicas recorded; the API, the CLI and a rollout's gate read
it. `analysis.divergence` says what the figures mean.
"""

import datetime
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from podium.resources.shape import Spec, Status

OutputKind = Literal["class", "number"]
"""Texts, booleans and whole numbers are classes: they agree or they do not. Other numbers have a distance."""


class DivergenceLimits(Spec):
    """How far a shadow may lie from the champion. Each bound is to be proven, not only met by the figures seen."""

    agreement: Annotated[float, Field(gt=0, lt=1)] | None = 0.95
    """Outputs that are classes: the least share of answers that agree. None: classes are not judged."""
    distance: Annotated[float, Field(gt=0, lt=1)] | None = 0.05
    """Outputs that are numbers: the largest mean distance, 0 (equal) to 1. None: numbers are not judged."""
    failures: Annotated[float, Field(gt=0, lt=1)] | None = 0.02
    """The largest share of requests that the champion answered and the shadow refused or failed. None: not judged."""
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Chance that a shadow beyond a limit ever passes, and that one within all of them ever fails, however often one
    looks."""
    min_pairs: Annotated[int, Field(ge=1, le=10**9)] = 100
    """Requests that both have answered, before anything is said."""
    outputs: list[Annotated[str, Field(min_length=1, max_length=256)]] | None = Field(
        default=None, min_length=1, max_length=64
    )
    """The outputs that count. None: all that either of them gives."""

    @field_validator("outputs")
    @classmethod
    def _each_once(cls, outputs: list[str] | None) -> list[str] | None:
        if outputs is not None and len(set(outputs)) != len(outputs):
            raise ValueError("expected each output once")
        return outputs

    @model_validator(mode="after")
    def _judges_something(self) -> "DivergenceLimits":
        if self.agreement is None and self.distance is None:
            raise ValueError("expected agreement, distance or both")
        return self


class OutputComparison(Status):
    """One output of all compared requests."""

    name: str
    kind: OutputKind
    pairs: int
    """Requests where the champion, the shadow or both gave this output."""
    mismatched: int = 0
    """Of those, where one gave no such output, another shape or another kind of values: nothing agrees there."""
    agreement: float | None = None
    """Of a class: mean share of the values of an answer that are the same."""
    mean_distance: float | None = None
    """Of numbers, 0 to 1: `analysis.divergence` has the formula."""
    interval: tuple[float, float]
    """Holds the true agreement or mean distance with confidence 1 - alpha, at every look."""
    alpha: float

    @property
    def mean(self) -> float:
        """Whichever of the two it has."""
        return float((self.agreement if self.kind == "class" else self.mean_distance) or 0.0)


class DivergentExample(Status):
    """One answer that was not the same, for a person to look at."""

    request_id: str
    """As in `x-request-id` and in the logs."""
    at: datetime.datetime
    output: str
    difference: float
    """1 - agreement, or the distance."""
    champion: str
    """The values as JSON, shortened."""
    shadow: str


class Comparison(Status):
    """A shadow beside one champion, since the first request that both answered."""

    workspace: str
    champion: str
    """Revision."""
    shadow: str
    """Revision."""
    sources: list[str] = Field(default_factory=list)
    """Why copies are made: `Route NAME rule RULE`, `Rollout NAME`. Empty: none are made any more."""
    pairs: int = 0
    """Requests that both answered."""
    shadow_failed: int = 0
    """Requests that the champion answered, and the shadow refused or failed."""
    champion_failed: int = 0
    """The other way round, or neither answered."""
    unmatched_shadow: int = 0
    """Copies without the champion's record of them."""
    unmatched_champion: int = 0
    """The champion's records without a copy: most of them, where only a share of the requests is copied."""
    ambiguous: int = 0
    """The champion's records whose id came more than once at a time: clients may send their own `x-request-id`."""
    lost: int = 0
    """Records that replicas could not keep, and lines that cannot be read. Not counted above."""
    per_output: list[OutputComparison] = Field(default_factory=list)
    examples: list[DivergentExample] = Field(default_factory=list)
    champion_seconds: float | None = None
    """Mean time that the champion's replica took for a compared request."""
    shadow_seconds: float | None = None
    since: datetime.datetime | None = None
    newest: datetime.datetime | None = None
    """Time of the newest compared request."""
    message: str = ""
    """Why nothing, or not everything, can be compared."""


class Comparisons(Status):
    """Answer of GET .../comparisons."""

    items: list[Comparison]
