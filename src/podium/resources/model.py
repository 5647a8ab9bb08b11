"""Model, ModelVersion and Workspace."""

import datetime
from typing import Annotated, Literal

from pydantic import Field

from podium.resources.manifest import Manifest
from podium.resources.profile import Profile
from podium.resources.quantities import Size
from podium.resources.shape import Name, Spec, Status


class Quota(Spec):
    """What the Deployments and Routes of a workspace may ask for together. None: as much as there is."""

    replicas: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """The sum of `replicas` of all Deployments; of one with scaling, `scaling.max` and what it keeps warm."""
    memory: Size | None = None
    """The sum of the same replicas x `resources.memory`, in bytes."""
    rules: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    """The number of rules of all Routes. Bounded unless said otherwise: every gateway holds the rules of all workspaces
    in one table, and walks it for each request of anybody."""


class WorkspaceSpec(Spec):
    """A tenant."""

    description: Annotated[str, Field(max_length=4096)] = ""
    quota: Quota = Field(default_factory=Quota)
    """Looked at when a Deployment or a Route is applied; what is there when it is lowered stays as it is."""


class QuotaUse(Status):
    """What the Deployments and Routes of a workspace ask for together, as its quota counts it: with scaling `max` and
    `warm`, and none of those that are being deleted."""

    replicas: int = 0
    memory: Size = 0
    """In bytes."""
    rules: int = 0
    """Of its Routes."""
    deployments: int = 0
    """Whose replicas and memory these are."""
    ready_replicas: int = 0
    """That run and answer now; a rollout's second revision is among them, and may bring them over `replicas`."""


class WorkspaceStatus(Status):
    """Nothing of it is kept: the API reckons it at each read."""

    used: QuotaUse | None = None
    """None where the quota is the one that nobody set, and in what a watch tells: other objects than the workspace
    change it."""


class ModelSpec(Spec):
    """A registered model."""

    description: Annotated[str, Field(max_length=16_384)] = ""
    owner: Annotated[str, Field(max_length=256)] = ""
    risk_tier: Literal["unrated", "minimal", "limited", "high"] = "unrated"


class ModelStatus(Status):
    """`aliases` maps an alias to the number of a version; its history is the store's."""

    latest_version: int = 0
    aliases: dict[str, str] = Field(default_factory=dict)


class ModelVersionSpec(Spec):
    """Immutable: which bytes, and where they come from."""

    model: Name
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    push_digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    """Over what was pushed, before requirements were resolved: the same push again is the same version."""
    manifest: Manifest
    note: Annotated[str, Field(max_length=16_384)] = ""
    pushed_by: str = ""


class ModelVersionStatus(Status):
    """What was last found when the stored bytes were checked, and when the version was measured."""

    verified_at: datetime.datetime | None = None
    intact: bool | None = None
    profile: Profile | None = None
