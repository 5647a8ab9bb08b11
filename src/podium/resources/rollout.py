"""Rollout: one passage of traffic from the stable revision to a candidate, with every step and decision."""

import datetime
from typing import Any, Literal

from pydantic import Field

from podium.resources.deployment import RolloutSettings
from podium.resources.shape import Spec, Status
from podium.resources.strategies import CanaryStrategy

COPIES = "/copies"
"""After the epoch of a sample: what it has of the candidate are copies, counted in their own cluster."""
RolloutAction = Literal["pause", "resume", "promote", "abort"]
RolloutPhase = Literal[
    "Pending",  # the candidate is being prepared
    "Progressing",  # traffic moves by steps
    "Paused",  # a person said so
    "Held",  # inconclusive, or nothing to judge by: waits for a person or for traffic
    "Promoting",  # all traffic is on its way to the candidate
    "Observing",  # blue-green, after the flip
    "RollingBack",  # all traffic is on its way to the stable revision
    "Promoted",
    "RolledBack",
    "Superseded",
]
FINAL_PHASES: frozenset[str] = frozenset({"Promoted", "RolledBack", "Superseded"})


class RolloutSpec(Spec):
    """Who takes over from whom. `paused` and `requested` are a person's wishes, the rest never changes."""

    deployment: str
    deployment_uid: str
    generation: int
    """The Deployment's generation that asked for it."""
    stable_revision: str | None
    candidate_revision: str
    settings: RolloutSettings
    cause: Literal["apply", "alias", "rollback", "first"] = "apply"
    paused: bool = False
    requested: Literal["promote", "abort"] | None = None
    requested_by: str | None = None


def has_baseline(spec: RolloutSpec) -> bool:
    """The candidate is compared with fresh replicas of the stable revision. A rollback by hand asks nothing."""
    strategy = spec.settings.strategy
    compared = spec.stable_revision is not None and spec.cause != "rollback"
    return compared and isinstance(strategy, CanaryStrategy) and strategy.baseline


class Decision(Status):
    """One look at the evidence, or one act; the newest is last. Looks that change nothing are folded into one."""

    at: datetime.datetime
    step: int
    weight: int
    """Percent on the candidate when it was taken."""
    decision: str
    """`advance`, `continue`, `hold`, `rollback`, `promote`, `start`, `pause`, `resume`, `supersede`."""
    reason: str
    evidence: dict[str, Any] | None = None
    """What `podium.analysis.replay` needs to give the same verdict again."""
    repeated: int = 1
    """How many looks in a row that were written said the same; those in between are in the samples."""
    actor: str | None = None


class RolloutStatus(Status):
    """Where it stands. `weight` is what the gateways are told, in percent on the candidate."""

    phase: RolloutPhase = "Pending"
    message: str = ""
    step: int = -1
    weight: int = 0
    weight_version: int = 0
    """resourceVersion at which `weight` was last written; loaded once every live gateway reports at least this."""
    loaded: bool = False
    step_started_at: datetime.datetime | None = None
    """When the step's weight was seen loaded on every live gateway."""
    started_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None
    verdict_at: datetime.datetime | None = None
    decisions: list[Decision] = Field(default_factory=list)
    candidate_requests: int = 0
    candidate_bad: int = 0
    stable_requests: int = 0
    """With a baseline: its requests."""
    stable_bad: int = 0
    preview: bool = False
    shadow: bool = False
    """The candidate gets copies of requests; nobody gets its answers to them."""
    copies: int = 0
    """Copies that the candidate was asked to answer so far, and how many of them failed."""
    copies_bad: int = 0
    silent_gateways: list[str] = Field(default_factory=list)
    """Gateways that stopped reporting before they had loaded `weight`: the rollout waits for them, for a while."""
