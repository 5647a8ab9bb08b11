"""What gateways count for every cluster, and the traffic that the API shows from it. Data and validation only.

The gateway's agent sends a LoadReport within its report; the server keeps it for a quarter of an hour, the autoscaler
and `GET .../traffic` read it.
"""

import datetime
from typing import Annotated, Literal

from pydantic import Field, field_validator

from podium.resources.quantities import Size
from podium.resources.shape import Name, Status, Told

_COUNT = Field(ge=0, le=2**62)


class ClusterLoad(Told):
    """One revision in one role: cumulative counters since Envoy's start."""

    workspace: Name
    deployment: Name
    revision: Annotated[str, Field(min_length=1, max_length=120)]
    role: Annotated[str, Field(pattern=r"^[a-z]{1,20}$")]
    """`live`, `preview`, `direct` and the like: how its requests came there."""
    age: Annotated[float, Field(ge=0, le=86400)] = 0.0
    """Seconds before the report at which these counters were read. A cluster that was quiet comes with its counters
    from before too, so that nothing is missing between them."""
    requests: Annotated[int, _COUNT]
    """Answered, whatever the answer was."""
    errors: Annotated[int, _COUNT] = 0
    """Of those, 5xx: also what Envoy answered where no replica could, timeouts included."""
    refused: Annotated[int, _COUNT] = 0
    """Of those, 429."""
    active: Annotated[int, _COUNT] = 0
    """Under way or waiting for a connection just then."""
    time_ms: Annotated[float, Field(ge=0, le=1e18)] = 0.0
    """Sum of how long they took."""
    buckets: list[
        Annotated[list[Annotated[float, Field(ge=0, le=1e18)]], Field(min_length=2, max_length=2)]
    ] = Field(default_factory=list, max_length=200)
    """[upper edge in ms, requests that took no longer], cumulative; only edges beside a bucket with requests."""

    @field_validator("buckets")
    @classmethod
    def _ascending(cls, buckets: list[list[float]]) -> list[list[float]]:
        edges, counts = [edge for edge, _ in buckets], [count for _, count in buckets]
        if edges != sorted(set(edges)) or counts != sorted(counts):
            raise ValueError("expected ascending edges with counts that never fall")
        return buckets


class RouteCount(Told):
    """What came to one Route: cumulative counters since Envoy's start."""

    workspace: Name
    route: Name
    age: Annotated[float, Field(ge=0, le=86400)] = 0.0
    """As that of ClusterLoad."""
    requests: Annotated[int, _COUNT]
    """Answered, whatever the answer was and whoever gave it."""
    errors: Annotated[int, _COUNT] = 0
    """Of those, 5xx."""
    refused: Annotated[int, _COUNT] = 0
    """Of those, 429."""
    limited: Annotated[int, _COUNT] = 0
    """Of those, the ones that the Route's own limits turned away."""


class LoadReport(Told):
    """What one Envoy has counted, for the clusters of which it changed since the last report."""

    epoch: Annotated[str, Field(min_length=1, max_length=128)]
    """Names a start of Envoy: counters are cumulative within one."""
    clusters: list[ClusterLoad] = Field(default_factory=list, max_length=50_000)
    routes: list[RouteCount] = Field(default_factory=list, max_length=50_000)


class RevisionLoad(Status):
    """One revision's part of a Deployment's traffic; the fields are those of DeploymentLoad."""

    revision: str
    version: str
    role: Literal["stable", "candidate", "retiring"]
    requests_per_second: float
    error_share: float | None
    refused_share: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    concurrency: float
    ready_replicas: int
    wanted_replicas: int
    sleeping: bool
    weight: float
    """Percent of live traffic by the plan as it is now."""
    report_age: float | None


class ScalingSummary(Status):
    """The autoscaler's last decision."""

    min: int
    max: int
    desired: int
    reason: str
    panicking: bool


class DeploymentLoad(Status):
    """What one Deployment's replicas were asked and answered in the window. Shares are of its requests, latencies in
    seconds; both are null without requests."""

    workspace: str
    deployment: str
    phase: str
    requests_per_second: float
    """Answered ones."""
    error_share: float | None
    """5xx, also for want of a replica or of time."""
    refused_share: float | None
    """429."""
    p50: float | None
    p95: float | None
    p99: float | None
    concurrency: float
    """Requests under way, on average."""
    copies_per_second: float = 0.0
    """Copies of requests that somebody else answers, on top of these: it is a shadow, of a Route or of a rollout."""
    cpu: float | None = None
    """Percent of its share of processors that a ready replica used, on average; null where the number of replicas does
    not follow it: then it is not measured."""
    ready_replicas: int
    wanted_replicas: int
    report_age: float | None
    """Seconds since a gateway last told its counters; null if none did in the window."""
    gateways: list[str]
    """Those whose counters are in here: they reported lately."""
    scaling: ScalingSummary | None
    """null: a fixed number of replicas."""
    revisions: list[RevisionLoad]
    """Those with traffic or replicas, the stable one first."""


class VariantWeight(Status):
    """A Deployment that a rule of a Route leads to."""

    deployment: str
    weight: float
    """Percent of the rule's requests, as it is written; of a shadow, percent of them that are copied."""


class RuleLoad(Status):
    """Where the requests of one rule go."""

    rule: str
    """Its name, or its place from 0 on."""
    variants: list[VariantWeight]
    shadows: list[VariantWeight]


class RouteLoad(Status):
    """What came to one Route in the window, and how it was answered: also by the gateway itself."""

    workspace: str
    route: str
    phase: str
    requests_per_second: float
    error_share: float | None
    """5xx."""
    refused_share: float | None
    """429, of its limits or of a replica with a full queue."""
    limited_per_second: float
    """Requests that the Route's limits turned away; they reach no Deployment, and are not in its figures."""
    rules: list[RuleLoad]
    report_age: float | None


class QuotaLoad(Status):
    """How much of a workspace's quota is used; a limit is null where there is none."""

    workspace: str
    replicas: int
    replica_limit: int | None
    memory: Size
    memory_limit: Size | None
    rules: int = 0
    """Of its Routes."""
    rule_limit: int | None = None


class Traffic(Status):
    """Every Deployment's and every Route's traffic, by workspace and name, and the quotas of their workspaces."""

    window: float
    """Seconds."""
    at: datetime.datetime
    items: list[DeploymentLoad]
    """The Deployments."""
    routes: list[RouteLoad] = Field(default_factory=list)
    quotas: list[QuotaLoad] = Field(default_factory=list)
    """Of the workspaces that have one."""
