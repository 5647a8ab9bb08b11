"""Model, ModelVersion and Workspace."""

import datetime
from typing import Annotated, Literal

from pydantic import Field

from podium.resources.manifest import Manifest
from podium.resources.profile import Profile
from podium.resources.quantities import Size
from podium.resources.shape import Name, Spec, Status


class Quota(Spec):
    """What the Deployments of a workspace may ask for together. None: as much as there is."""

    replicas: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """The sum of `replicas` of all Deployments."""
    memory: Size | None = None
    """The sum of `replicas` x `resources.memory`, in bytes."""


class WorkspaceSpec(Spec):
    """A tenant."""

    description: Annotated[str, Field(max_length=4096)] = ""
    quota: Quota = Field(default_factory=Quota)
    """Looked at when a Deployment is applied; what is there when it is lowered stays as it is."""


class WorkspaceStatus(Status):
    """Nothing is observed of a workspace yet."""


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
