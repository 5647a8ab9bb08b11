"""What `podium model profile` asks for, and what is kept of it with the version. Data and validation only."""

import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from podium.resources.quantities import Duration, Size
from podium.resources.shape import Spec, Status

MAX_ROWS = 10_000


class ProfileRequest(Spec):
    """POST .../models/{name}/versions/{version}/profile. At most one of `rows` and `inputs`; neither: an example in
    the model's own files, else values made up from the signature."""

    rows: list[Any] | None = Field(default=None, min_length=1, max_length=MAX_ROWS)
    """Each a list of values, or an object by column name; taken in turn."""
    inputs: dict[str, Any] | None = Field(default=None, min_length=1, max_length=4096)
    """Nested lists by tensor name; the first axis is the rows."""
    budget: Annotated[Duration, Field(ge=2, le=3600)] = 60.0
    """How long to measure. The environment, and loading the model, come on top."""
    rate: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """Requests of one row per second that the Deployment is to carry. None: what one replica carries is told."""
    p99: Annotated[Duration, Field(gt=0, le=600)] | None = None
    """The latency that 99 of 100 requests must keep. None: no limit."""
    cpus: Annotated[int, Field(ge=1, le=1024)] = 1
    """As `resources.cpus` of a Deployment."""
    memory: Annotated[Size, Field(ge=64 * 2**20)] = 8 * 2**30
    """What the measured replica may use at most."""

    @model_validator(mode="after")
    def _one_source(self) -> "ProfileRequest":
        if self.rows is not None and self.inputs is not None:
            raise ValueError("expected at most one of rows and inputs")
        return self


class ProfilePoint(Status):
    """One measurement: so many rows in each request, so many connections (or so many requests a second)."""

    rows: int
    connections: int
    """At `rate`: how many were open at most."""
    rate: float | None = None
    """Requests per second at random moments (Poisson), whether the last ones were answered or not. None: each
    connection asks again as soon as it has its answer."""
    requests: int
    """Answered within `seconds`."""
    failed: int
    seconds: float
    per_second: float
    """Good answers per second."""
    p50_ms: float
    p99_ms: float
    max_ms: float
    memory: int
    """Most bytes that the replica held meanwhile, counted as its limit counts them."""


class ProfileProposal(Status):
    """What follows from the measurements."""

    replicas: int | None = None
    """None: no number of replicas keeps the wished latency."""
    cpus: int
    memory: int
    max_batch: int
    sustained: float | None = None
    """Requests per second that one replica carried at random moments, the latency kept."""
    p99_ms: float | None = None
    """What was measured at that rate."""
    reasons: list[str] = Field(default_factory=list)
    deployment: dict[str, Any] = Field(default_factory=dict)
    """A Deployment to apply; empty where `replicas` is None."""


class Profile(Status):
    """The newest profile of a version."""

    measured_at: datetime.datetime
    seconds: float
    start_seconds: float
    """From the start of the replica's process to ready."""
    inputs: Literal["given", "example", "made up"]
    rate: float | None = None
    """As asked for."""
    p99_ms: float | None = None
    """As asked for."""
    batches: list[ProfilePoint]
    """One connection, more and more rows in each request."""
    load: list[ProfilePoint]
    """Requests of one row over more and more connections, with the proposed batch size."""
    checks: list[ProfilePoint]
    """Requests of one row at random moments, at the rate that is proposed for one replica."""
    memory_idle: int
    """Bytes before the first request."""
    memory_peak: int
    proposal: ProfileProposal
    notes: list[str] = Field(default_factory=list)
    """What to know about the figures."""
    podium: str
    runtime_wheel: str
    """sha256 of the model server's wheel."""
    python: str
    packages: list[str] = Field(default_factory=list)
    """What the model itself requires, as it was installed."""
    cores: int
    """Processors of the machine that a replica may use."""
    cpus: int
    """Those that were given to this one."""
    machine: str
    sandbox: str
