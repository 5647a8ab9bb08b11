"""Deployment: the wish to serve a version or an alias of a model, and how traffic passes to a new one."""

import datetime
import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from podium.resources.command import Command, extra_ports, placeholders
from podium.resources.quantities import Duration, Size
from podium.resources.scaling import Scaling, ScalingStatus
from podium.resources.shape import Name, Spec, Status
from podium.resources.strategies import CanaryStrategy, Strategy
from podium.resources.traffic import DeploymentTraffic
from podium.resources.warmup import Warmup

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OWN_SETTINGS = (
    "max_batch",
    "max_delay",
    "queue_length",
    "warmup",
    "watchdog",
    "max_streams",
    "max_tensor_elements",
)
"""Of `RuntimeSettings`: those that mean nothing to another server."""
_READY_PATHS = {"oip": "/v2/health/ready", "openai": "/health"}
"""Where servers of a protocol say that they are ready; plain HTTP has no custom for it."""


class ModelReference(Spec):
    """Which version: exactly one of `version` (a number as text) and `alias`."""

    name: Name
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")] | None = None
    alias: Name | None = None

    @field_validator("version", mode="before")
    @classmethod
    def _number_is_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> "ModelReference":
        if (self.version is None) == (self.alias is None):
            raise ValueError("expected exactly one of version and alias")
        return self


class ResourceLimits(Spec):
    """What one replica may use."""

    memory: Annotated[Size, Field(ge=64 * 2**20)] = 2 * 2**30
    """Address space beyond the code's own is not counted; resident data over this ends the replica."""
    cpus: Annotated[int, Field(ge=1, le=1024)] = 1
    """Threads of native pools; with `pin_cpus` also the number of processors that it is bound to."""
    pin_cpus: bool = False
    niceness: Annotated[int, Field(ge=0, le=19)] = 5
    """Models yield to the control plane and the gateway by default."""
    open_files: Annotated[int, Field(ge=64, le=1_048_576)] = 4096


class RuntimeSettings(Spec):
    """The model server's settings. With `command` it is a server of the user's choice, else Podium's own."""

    command: Command | None = None
    """What to run instead of Podium's own model server: a list of arguments, or a text that is split like one. No
    shell; placeholders such as {port} and {model} are filled in (`resources.command`), in `env` too."""
    port: Annotated[int, Field(ge=1024, le=65535)] | None = None
    """For a server that cannot be told its port: then one replica per machine. None: a free one for each replica."""
    ready_path: Annotated[str, Field(pattern=r"^/[!-~]{0,1023}$")] | None = None
    """200 to a GET means ready. None: /v2/health/ready with `oip`, /health with `openai`."""
    protocol: Literal["oip", "openai", "http"] = "oip"
    """`oip`: /v2/models/NAME of the gateway is that of the server. `openai`, `http`: what follows /v2/models/NAME is
    the path in the server."""
    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")] | None = None
    """What an `oip` server calls the model. None: the Deployment's name."""

    max_batch: Annotated[int, Field(ge=1, le=4096)] = 64
    """Rows that go to the model in one call."""
    max_delay: Duration = 0.0
    """How long a batch may wait for company; 0s adds no delay."""
    queue_length: Annotated[int, Field(ge=1, le=100_000)] = 1024
    """Requests that may wait; one more is answered 429."""
    warmup: Warmup | None = None
    """None: one call with an input made up from the signature."""
    watchdog: Annotated[Duration, Field(le=86400)] | None = None
    """One call of the model that takes longer has hung, and its replica ends. 0s: never. None: twice `request_timeout`,
    at least 30 s."""
    max_streams: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Streamed answers under way at once in a replica; one more is answered 429. None: 16."""
    max_tensor_elements: Annotated[int, Field(ge=1, le=2**30)] | None = None
    """Elements that one input tensor may have; 400 beyond. None: 16777216."""
    request_timeout: Annotated[Duration, Field(ge=0.05, le=3600)] = 30.0
    max_body: Annotated[Size, Field(ge=1024, le=2**30)] = 16 * 2**20
    drain: Annotated[Duration, Field(ge=0, le=3600)] | None = None
    """How long requests under way get when a replica is stopped. None: as long as a request may take."""
    startup_timeout: Annotated[Duration, Field(ge=1, le=3600)] = 120.0
    """From the start of a replica's process to ready; past it the replica counts as failed."""
    env: dict[str, str] = Field(default_factory=dict, max_length=64)
    """Extra environment variables of the model's process. Not for secrets: many may read a spec."""

    @property
    def drain_seconds(self) -> float:
        """Seconds."""
        return self.request_timeout if self.drain is None else self.drain

    @property
    def probe_path(self) -> str:
        """Where a replica is asked whether it is ready."""
        return self.ready_path or _READY_PATHS[self.protocol]

    @property
    def takes_descriptor(self) -> bool:
        """A server that listens on the socket that is handed over, as Podium's own does: it needs no port."""
        return self.command is None or "fd" in self._placeholders()

    @property
    def extra_ports(self) -> tuple[str, ...]:
        """Names of ports that the server listens on beside the one that is served, sorted."""
        return extra_ports(self._placeholders())

    def _placeholders(self) -> set[str]:
        return placeholders([*(self.command or ()), *self.env.values()]) if self.command else set()

    @field_validator("env")
    @classmethod
    def _check_env(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if not _ENV_NAME.fullmatch(name) or name.startswith(("PODIUM_", "LD_", "PYTHON")):
                raise ValueError(
                    f"{name[:40]!r}: expected a variable name that does not start with PODIUM_, LD_ or PYTHON"
                )
            if len(value) > 4096 or "\x00" in value:
                raise ValueError(f"{name}: expected at most 4096 characters and no NUL")
        return env

    @model_validator(mode="after")
    def _fits_the_server(self) -> "RuntimeSettings":
        if self.command is None:
            given = {"port": self.port, "readyPath": self.ready_path, "modelName": self.model_name}
            for name, value in given.items():
                if value is not None:
                    raise ValueError(f"{name}: only with command; Podium's own model server needs none")
            if self.protocol != "oip":
                raise ValueError("protocol: only with command; Podium's own model server speaks oip")
            return self
        if not self.command[0]:
            raise ValueError("command: expected a program first")
        if "/" in self.command[0] and not self.command[0].startswith(("/", "{")):
            raise ValueError(
                "command: expected a name, an absolute path or one that begins with a placeholder"
            )
        used = self._placeholders()
        if "fd" in used and (self.port is not None or "port" in used or extra_ports(used)):
            raise ValueError("command: expected either {fd} or a port, not both")
        if self.ready_path is None and self.protocol not in _READY_PATHS:
            raise ValueError(f"readyPath: expected one with protocol {self.protocol}")
        if self.model_name is not None and self.protocol != "oip":
            raise ValueError("modelName: only with protocol oip; elsewhere no path holds it")
        for name in _OWN_SETTINGS:
            if getattr(self, name) != type(self).model_fields[name].default:
                wire = type(self).model_fields[name].alias
                raise ValueError(f"{wire}: a setting of Podium's own model server, which command replaces")
        return self


class SandboxSettings(Spec):
    """How far the model's process is shut in."""

    require: Literal["none", "files", "full"] = "none"
    """The level that must be reached, else the replica is not started: `files` = Landlock file rules,
    `full` = files, TCP and local sockets."""
    connect_ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(default_factory=list, max_length=32)
    """TCP ports that the model may connect to; none by default."""


class MetricMargin(Spec):
    """How much worse the candidate may be. Shares are fractions: 0.01 is one percent of requests."""

    enabled: bool = True
    margin: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Promotion: the upper bound on candidate - stable must lie below this absolute share."""
    relative_margin: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Rollback: the candidate's rate may be (1 + this) times the stable one's."""


class LatencyMargin(MetricMargin):
    """Latency as the share of requests that take longer than `threshold`."""

    threshold: Annotated[Duration, Field(gt=0, le=600)] = 0.25


class QuantileMargin(Spec):
    """A latency quantile of candidate and stable, compared by confidence sequences. Needs about nine times the requests
    that `LatencyMargin` does, and nobody has to say what slow is."""

    enabled: bool = True
    quantile: Annotated[float, Field(ge=0.5, le=0.999)] = 0.99
    relative_margin: Annotated[float, Field(gt=0, le=10)] = 0.2
    """The candidate's may be (1 + this) times the stable one's."""


class Threshold(Spec):
    """A plain limit on the candidate alone, for whoever wants one. It is no test: it can take a good version back."""

    metric: Literal["errorRate", "refusalRate", "slowRate", "p50", "p90", "p95", "p99"]
    max: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of a rate: a share of requests."""
    max_latency: Annotated[Duration, Field(gt=0, le=3600)] | None = None
    """Of a quantile, such as 250ms."""
    min_requests: Annotated[int, Field(ge=1, le=10**9)] = 100

    @model_validator(mode="after")
    def _has_its_limit(self) -> "Threshold":
        wanted, other = ("maxLatency", self.max) if self.is_quantile else ("max", self.max_latency)
        if (self.max_latency if self.is_quantile else self.max) is None or other is not None:
            raise ValueError(f"expected {wanted} with {self.metric}, and no other limit")
        return self

    @property
    def is_quantile(self) -> bool:
        """Latency, not a share of requests."""
        return self.metric.startswith("p")


class Analysis(Spec):
    """What a candidate is judged by."""

    enabled: bool = True
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Chance that a candidate which is no worse is ever taken back, over the whole rollout and all metrics together."""
    error_rate: MetricMargin = Field(default_factory=MetricMargin)
    refusal_rate: MetricMargin = Field(default_factory=MetricMargin)
    latency: LatencyMargin | None = None
    latency_quantile: QuantileMargin | None = None
    thresholds: list[Threshold] = Field(default_factory=list, max_length=16)
    min_requests: Annotated[int, Field(ge=1, le=10**9)] = 100
    """Candidate requests that a step needs before it can be passed (a step that asks for fewer needs those)."""
    on_inconclusive: Literal["hold", "promote", "rollback"] = "hold"
    """At a step's cap: wait for a person or more traffic, pass the step (never without a request), or take it back."""

    @model_validator(mode="after")
    def _slow_is_defined(self) -> "Analysis":
        if self.latency is None and any(limit.metric == "slowRate" for limit in self.thresholds):
            raise ValueError("thresholds: slowRate needs latency.threshold, which says what slow is")
        return self


class RolloutSettings(Spec):
    """How a new revision takes over."""

    strategy: Strategy = Field(default_factory=CanaryStrategy)
    analysis: Analysis = Field(default_factory=Analysis)
    ready_timeout: Annotated[Duration, Field(ge=1, le=86400)] = 900.0
    """From the rollout's start until the candidate is ready (environment, load, warm-up); past it: rolled back."""


class DeploymentSpec(Spec):
    """Serve this model, this way."""

    model: ModelReference
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """With `scaling` the number to start with, brought between its `min` and `max`; after that the load decides."""
    scaling: Scaling | None = None
    """None: always `replicas`."""
    target: Literal["process"] = "process"
    resources: ResourceLimits = Field(default_factory=ResourceLimits)
    runtime: RuntimeSettings = Field(default_factory=RuntimeSettings)
    sandbox: SandboxSettings = Field(default_factory=SandboxSettings)
    idempotent: bool = True
    """A prediction may be repeated when a replica dies under it. False gives up in-flight requests there."""
    rollout: RolloutSettings = Field(default_factory=RolloutSettings)
    traffic: DeploymentTraffic | None = None
    revision_history: Annotated[int, Field(ge=1, le=1000)] = 20

    @property
    def most_replicas(self) -> int:
        """What it may ever ask for, warm replicas included: what a quota counts."""
        return self.replicas if self.scaling is None else self.scaling.max + self.scaling.warm

    @property
    def has_own_path(self) -> bool:
        """Whether the gateway answers at the path with its name."""
        return self.traffic is None or self.traffic.own_path

    @model_validator(mode="after")
    def _a_fixed_port_is_one_replica(self) -> "DeploymentSpec":
        if self.runtime.port is not None and self.most_replicas > 1:
            lower = "replicas to 1" if self.scaling is None else "scaling.max to 1 and scaling.warm to 0"
            raise ValueError(
                "runtime.port: a fixed port serves one replica; leave it out and write {port} in runtime.command, "
                f"or set {lower}"
            )
        return self

    @model_validator(mode="after")
    def _can_scale(self) -> "DeploymentSpec":
        if self.scaling is None:
            return self
        if self.scaling.min == 0 and not self.runtime.takes_descriptor:
            raise ValueError(
                "scaling.min: 0 needs a server that takes its listening socket over ({fd} in runtime.command), so that "
                "requests can wait for it; expected at least 1"
            )
        if self.replicas == 0 and self.scaling.min > 0:
            raise ValueError(
                f"replicas: 0 contradicts scaling.min {self.scaling.min}; leave scaling out to turn a Deployment off"
            )
        return self


DeploymentPhase = Literal["Pending", "Progressing", "Ready", "Degraded", "Failed", "Deleting"]


class RejectedRevision(Status):
    """A revision that a rollout took back; it is not tried again until the spec changes or someone says retry."""

    revision: str
    generation: int
    rollout: str
    reason: str


class DeploymentStatus(Status):
    """What is. `stable` takes the traffic that no rollout gives to a candidate."""

    phase: DeploymentPhase = "Pending"
    message: str = ""
    observed_generation: int = 0
    stable_revision: str | None = None
    latest_revision: str | None = None
    revision_count: int = 0
    rollout_count: int = 0
    rollout: str | None = None
    """The rollout that is under way."""
    served_version: str | None = None
    ready_replicas: int = 0
    scaling: ScalingStatus | None = None
    """What the autoscaler knows; None without `spec.scaling`."""
    rejected: RejectedRevision | None = None
    retiring: dict[str, datetime.datetime] = Field(default_factory=dict)
    """Revisions that are kept warm until that time."""
