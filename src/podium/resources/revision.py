"""Revision: an immutable serving part of a Deployment together with a manifest digest; and its replicas' state."""

import datetime
from typing import Literal

from pydantic import Field

from podium.resources.deployment import ResourceLimits, RuntimeSettings, SandboxSettings
from podium.resources.shape import Spec, Status


class RevisionSpec(Spec):
    """Everything that decides what a replica is. Never changes once written."""

    deployment: str
    deployment_uid: str
    number: int
    model: str
    version: str
    manifest_digest: str
    runtime_wheel: str
    """sha256 of the runtime's wheel, so that a restart after an upgrade serves the same build."""
    target: str
    resources: ResourceLimits
    runtime: RuntimeSettings
    sandbox: SandboxSettings
    idempotent: bool
    content_hash: str
    """Over all of the above but names and number: the same wish again finds the same revision."""


ReplicaPhase = Literal["Dormant", "Starting", "Warm", "Ready", "Draining", "Exited"]
"""Dormant: listens, and starts the model when the first request comes. Warm: could answer, but is in no route."""


class ReplicaState(Status):
    """One process of a revision, as last observed."""

    name: str
    """`<revision>-<number of the start>`, unique for ever."""
    phase: ReplicaPhase
    address: str
    """`unix:/path` or `http://127.0.0.1:port`, as the gateway reaches it."""
    pid: int | None = None
    started_at: datetime.datetime | None = None
    exit_code: int | None = None
    group: Literal["", "baseline"] = ""
    """`baseline`: the candidate of a rollout is compared with it. It takes a share of requests of its own."""
    woken: bool = False
    """A request started it, and it is not ready yet or all others sleep: requests wait for it."""
    listed_version: int | None = None
    """Of a dormant one: resourceVersion at which it was listed; the others drain when every gateway has loaded that."""
    draining_version: int | None = None
    """resourceVersion at which it was taken out of the routes; it is stopped when every gateway has loaded that."""
    sandbox: str = ""
    """The level reached: `none`, `files` or `full`."""


RevisionPhase = Literal[
    "Pending", "Preparing", "Starting", "Ready", "Degraded", "CrashLoop", "Failed", "Idle"
]


class RevisionStatus(Status):
    """`wanted_replicas`, `sleeping`, `warm_replicas` and `baseline_replicas` are the Deployment reconciler's, all else
    the Revision reconciler's."""

    wanted_replicas: int = 0
    sleeping: bool = False
    """Nothing needs to run, but a request must be held and answered: a dormant replica listens for it. Has a meaning
    only while `wanted_replicas` is 0."""
    warm_replicas: int = 0
    """Replicas beyond `wanted_replicas` that are loaded and ready, but in no route. None while that is 0."""
    baseline_replicas: int = 0
    """Fresh replicas beside all these, which the candidate of a rollout is compared with. None while `wanted_replicas`
    is 0."""
    woken: bool = False
    """A request woke the dormant replica; true until `sleeping` is taken back, also if that replica has ended since."""
    phase: RevisionPhase = "Pending"
    message: str = ""
    environment: str | None = None
    """Digest of the virtual environment."""
    progress: str = ""
    replicas: list[ReplicaState] = Field(default_factory=list)
    ready_replicas: int = 0
    restarts: int = 0
    """Replicas that ended by themselves since the revision was last wanted."""
    failures: int = 0
    """Of those, how many in a row ended before they had been ready for a while."""
    starts: int = 0
    """Replicas ever started: the last part of the next one's name."""
    last_exit: str = ""
    """How the last replica that ended by itself ended, with the last lines of its log."""
    retry_at: datetime.datetime | None = None
