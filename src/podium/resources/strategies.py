"""How traffic passes from the stable revision to a candidate: the strategies that a Deployment may name.

Called by `deployment`; `planning` carries them out.
"""

import itertools
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from podium.resources.comparison import DivergenceLimits
from podium.resources.quantities import Duration, format_duration
from podium.resources.route import StickyKey, check_header
from podium.resources.shape import Spec

PREVIEW_HEADER = "x-podium-preview"
_NEVER_TRUE = frozenset({"content-type", "accept", "cookie", "te", "trailer", "upgrade", "x-forwarded-proto"})


class CanaryStep(Spec):
    """One share of traffic for the candidate, kept until `duration` has passed or `requests` were seen by it."""

    weight: Annotated[int, Field(ge=1, le=100)]
    """Percent of requests that go to the candidate."""
    duration: Duration | None = None
    requests: Annotated[int, Field(ge=1, le=10**9)] | None = None
    max_duration: Duration | None = None
    """Cap: past it without enough evidence the verdict is inconclusive. None: ten times `duration` but at least a
    minute, or 1h with `requests`."""

    @model_validator(mode="after")
    def _has_an_end(self) -> "CanaryStep":
        if (self.duration is None) == (self.requests is None):
            raise ValueError("expected exactly one of duration and requests")
        return self


def _default_steps() -> list[CanaryStep]:
    return [CanaryStep(weight=10, duration=60), CanaryStep(weight=50, duration=60)]


class SteppedStrategy(Spec):
    """What every strategy has that moves traffic in steps."""

    steps: list[CanaryStep] = Field(default_factory=_default_steps, min_length=1, max_length=50)
    warmup: Annotated[Duration, Field(le=3600)] = 0.0
    """Requests in this time after a step's shift are not counted (cold caches)."""
    keep_old: Annotated[Duration, Field(le=30 * 86400)] = 30.0
    """How long the old revision stays warm after promotion."""

    @model_validator(mode="after")
    def _ascending(self) -> "SteppedStrategy":
        weights = [step.weight for step in self.steps]
        if any(later <= earlier for earlier, later in itertools.pairwise(weights)):
            raise ValueError("steps: expected weights that rise from step to step")
        return self


class CanaryStrategy(SteppedStrategy):
    """Traffic moves in steps, each one judged."""

    type: Literal["canary"] = "canary"
    baseline: bool = False
    """The candidate is compared with fresh replicas of the stable revision instead of those that have served for long:
    as many as the candidate has, started when it is, with the same share of requests (above 50 % with what is left).
    Warm caches and grown memory are then no difference between the two."""


class ShadowStrategy(SteppedStrategy):
    """First the candidate gets copies of requests and nobody gets its answers; then traffic moves in steps, or waits
    for a person.

    A copy bears the same `x-request-id` and the header `x-podium-shadow: true`. The candidate's errors, refusals and
    latency on the copies are compared with the stable revision's on the requests themselves, as in a canary's step.
    """

    type: Literal["shadow"] = "shadow"
    percent: Annotated[float, Field(ge=1, le=100)] = 100.0
    """Of the requests, chosen at random, in hundredths, that are copied."""
    requests: Annotated[int, Field(ge=1, le=10**9)] = 500
    """Copies that must have been answered before the steps begin."""
    compare: DivergenceLimits | None = None
    """How far the candidate's answers may lie from the stable revision's on the same requests: proven to be within, it
    goes on; proven to be beyond, it is taken back. None: the answers are not judged."""
    max_duration: Annotated[Duration, Field(ge=1, le=30 * 86400)] = 3600.0
    """Cap: past it without so many, or without an answer, the copies are inconclusive (`analysis.onInconclusive`)."""
    then: Literal["steps", "hold"] = "steps"
    """When nothing speaks against it: begin with the steps, or wait for `podium rollout promote` or `abort`."""


class AbTestStrategy(Spec):
    """A split is held until a stated sample is there, a time has passed or a person decides.

    Nothing is promoted before its end, however good the candidate looks; one that is worse is still taken back at once.
    """

    type: Literal["abTest"] = "abTest"
    weight: Annotated[int, Field(ge=1, le=99)] = 50
    """Percent of requests (with `sticky`: of users) that meet the candidate."""
    sticky: StickyKey | None = None
    """The same user meets the same revision, at every gateway and in every test of this candidate. Then requests are no
    independent draws: only thresholds and liveness judge. None: each request is drawn by itself."""
    requests: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """The test ends when each arm has had so many."""
    duration: Duration | None = None
    """The test ends after this time, whatever came first. Neither of the two: a person ends it."""
    on_end: Literal["hold", "promote", "rollback"] = "hold"
    """Wait for `podium rollout promote` or `abort`; promote if the analysis finds the candidate good enough (else as
    `analysis.onInconclusive` says); take the candidate back, whatever was found."""
    warmup: Annotated[Duration, Field(le=3600)] = 0.0
    """Requests in this time after the split began are not counted (cold caches)."""
    keep_old: Annotated[Duration, Field(le=30 * 86400)] = 30.0
    """How long the old revision stays warm after promotion."""

    @property
    def end(self) -> str:
        """When it is over, in words; empty where a person says so."""
        ends = [f"each arm has had {self.requests:,} requests"] if self.requests is not None else []
        ends += [f"{format_duration(self.duration)} have passed"] if self.duration is not None else []
        return " or ".join(ends)

    @model_validator(mode="after")
    def _ends_somehow(self) -> "AbTestStrategy":
        if self.on_end != "hold" and self.requests is None and self.duration is None:
            raise ValueError(f"onEnd: {self.on_end} needs requests or duration: nothing else ends the test")
        return self


class BlueGreenStrategy(Spec):
    """The candidate can be previewed by header, then all traffic flips at once."""

    type: Literal["blueGreen"] = "blueGreen"
    preview_header: str = PREVIEW_HEADER
    """Requests with this header set to `true` go to the candidate before the flip; they are never counted."""
    auto_promote: bool = True
    preview_for: Annotated[Duration, Field(le=30 * 86400)] = 0.0
    """How long the preview lasts before an automatic flip."""
    observe: Annotated[Duration, Field(le=86400)] = 30.0
    """How long thresholds and liveness are watched after the flip before the rollout counts as promoted."""
    keep_old: Annotated[Duration, Field(le=30 * 86400)] = 300.0

    @field_validator("preview_header")
    @classmethod
    def _check_header(cls, value: str) -> str:
        check_header(value)
        if value in _NEVER_TRUE:
            raise ValueError(
                f"{value}: no request has it set to 'true'; take a name of your own, such as x-preview"
            )
        return value


class RecreateStrategy(Spec):
    """The old revision is replaced as soon as the new one is ready; nothing is judged but liveness."""

    type: Literal["recreate"] = "recreate"


Strategy = Annotated[
    CanaryStrategy | BlueGreenStrategy | RecreateStrategy | ShadowStrategy | AbTestStrategy,
    Field(discriminator="type"),
]
