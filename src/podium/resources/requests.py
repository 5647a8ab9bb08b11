"""Bodies of requests and answers that are not resources. Data and validation only. Requests refuse unknown fields;
answers ignore them, since a newer server may say more than this client knows.

The client builds them, the API parses them, the registry reads them.
"""

import datetime
import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from podium.resources.claims import MOST, check_given
from podium.resources.load import LoadReport
from podium.resources.manifest import (
    DatasetReference,
    FileEntry,
    FlavorName,
    GitReference,
    Signature,
    canonical_json,
)
from podium.resources.quantities import Duration
from podium.resources.shape import DEFAULT_WORKSPACE, Name, Spec, Status, Told

LINEAGE_BYTES = 256 * 1024
"""How long a lineage document may be, as canonical JSON."""
LINEAGE_DEPTH = 20
"""How many objects and lists may stand inside each other in a lineage document."""

Note = Annotated[str, Field(max_length=16_384)]
PythonVersion = Annotated[str, Field(pattern=r"^3\.[0-9]{1,2}$")]
RequirementText = Annotated[str, Field(min_length=1, max_length=1024)]
MetricName = Annotated[str, Field(min_length=1, max_length=256)]
ScopeName = Annotated[
    str, Field(pattern=r"^([a-z]([-a-z0-9]{0,51}[a-z0-9])?/)?[a-z]([-a-z0-9]{0,51}[a-z0-9])?$")
]
SourceUri = Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[\x21-\x7e]+( [\x21-\x7e]+)*$")]


class PushRequest(Spec):
    """POST .../models/{name}/versions. Every file's bytes are in the blob store already."""

    files: list[FileEntry] = Field(min_length=1, max_length=10_000)
    flavor: FlavorName | None = None
    """None: found by looking at the files."""
    requirements: list[RequirementText] | None = Field(default=None, max_length=500)
    """PEP 508, one each. Each replaces what the model's own files say about the same package, or is added."""
    python: PythonVersion | None = None
    """None: what the model's own files say, else the server's own version."""
    signature: Signature | None = None
    """None: what the model's own files say, else what the loaded model tells."""
    metrics: dict[MetricName, float] = Field(default_factory=dict, max_length=1000)
    datasets: list[DatasetReference] = Field(default_factory=list, max_length=1000)
    git: GitReference | None = None
    lineage: dict[str, Any] = Field(default_factory=dict)
    note: Note = ""
    alias: Name | None = None
    """Set to the new version in the same transaction."""

    @field_validator("metrics")
    @classmethod
    def _finite(cls, metrics: dict[str, float]) -> dict[str, float]:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"{name[:80]}: expected a finite number, got {value}")
        return metrics

    @field_validator("lineage")
    @classmethod
    def _check_lineage(cls, lineage: dict[str, Any]) -> dict[str, Any]:
        if _depth(lineage) > LINEAGE_DEPTH:
            raise ValueError(f"expected at most {LINEAGE_DEPTH} objects and lists inside each other")
        try:
            size = len(canonical_json(lineage))
        except (ValueError, TypeError) as error:
            raise ValueError("expected JSON: no NaN, no infinity, no unpaired surrogates") from error
        if size > LINEAGE_BYTES:
            raise ValueError(f"expected at most {LINEAGE_BYTES} bytes as JSON, got {size}")
        return lineage


class ImportRequest(Spec):
    """POST .../models/{name}/import: a version of an MLflow registry, or the model of a run."""

    uri: SourceUri
    """`models:/NAME/3`, `models:/NAME@ALIAS` or `runs:/RUN_ID/PATH`."""
    tracking_uri: SourceUri | None = None
    """None: the first one that the server's operator configured."""
    registry_uri: SourceUri | None = None
    """None: the same as `tracking_uri`."""
    requirements: list[RequirementText] | None = Field(default=None, max_length=500)
    """As in a push."""
    python: PythonVersion | None = None
    note: Note = ""
    alias: Name | None = None


def _depth(value: object) -> int:
    """How many containers stand inside each other, found without recursion; stops one past the limit."""
    depth, level = 0, [value]
    while level and depth <= LINEAGE_DEPTH:
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list | tuple):
                inner.extend(item)
        if not any(isinstance(item, dict | list | tuple) for item in level):
            break
        depth += 1
        level = inner
    return depth


# --- the API's answers and the rest of what it is sent ------------------------------------------------------------


class ProblemIssue(Status):
    """One thing that is wrong: `field` is a path into the body, or the name of a parameter."""

    field: str
    message: str


class Problem(Status):
    """An RFC 9457 problem document, media type application/problem+json. `code` is stable, for programs."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str
    next_step: str | None = None
    issues: list[ProblemIssue] | None = None
    resource_version: int | None = None
    """With `conflict`: the object's present version."""


class FieldChange(Status):
    """One field that an apply changes; None is `absent`."""

    path: str
    before: Any = Field(default=None, alias="from")
    after: Any = Field(default=None, alias="to")


class ApplyResult(Status):
    """What an apply did, or with `dryRun` would do. `object` is the whole object as it is (would be) afterwards."""

    object: dict[str, Any]
    action: Literal["created", "updated", "unchanged"]
    changes: list[FieldChange] = Field(default_factory=list)
    plan: list[str] = Field(default_factory=list)
    dry_run: bool = False


class DeleteResult(Status):
    """`removed` is False while finalizers hold the object: a Deployment drains first."""

    object: dict[str, Any]
    removed: bool


class RolloutActionRequest(Spec):
    """What a person wants of the rollout that is under way; `retry` is about a revision that was taken back."""

    action: Literal["pause", "resume", "promote", "abort", "retry"]


class RollbackRequest(Spec):
    """Which revision takes the traffic again; None: the one before the present stable one."""

    revision: Annotated[str, Field(min_length=1, max_length=120)] | None = None


class ActionResult(Status):
    """What an action on a Deployment's rollout came to, in words, and the object that it wrote."""

    message: str
    object: dict[str, Any]


class TokenRequest(Spec):
    """A new token. `workspaces` are names, or `*` alone for all; an admin's is always for all."""

    subject: Annotated[str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.@]{0,127}$")]
    """Who will use it: the name that the audit shows."""
    role: Literal["admin", "edit", "view", "predict", "gateway"]
    workspaces: list[Name | Literal["*"]] = Field(
        default_factory=lambda: [DEFAULT_WORKSPACE], min_length=1, max_length=100
    )
    lifetime: Annotated[Duration, Field(ge=60, le=365 * 86400)] = 30 * 86400.0
    deployments: list[ScopeName] | None = Field(default=None, min_length=1, max_length=100)
    """Good for these deployments and routes only: NAME, in each of the token's workspaces that has it, or
    WORKSPACE/NAME. For the role `predict`. None: for all of its workspaces."""
    verbs: list[Literal["predict", "metadata"]] | None = Field(default=None, min_length=1, max_length=2)
    """What it may do at a gateway: ask a model, or only about it. For the role `predict`. None: both."""
    claims: dict[str, str] = Field(default_factory=dict, max_length=MOST)
    """What the token says beside its subject, such as `tier: gold`, for Routes to choose by. At most 16; names of 1 to
    32 lower-case letters, digits, '-' and '_' that Podium does not use itself; values of 1 to 128 visible ASCII
    characters but ';'. Whoever holds the token, and the replicas, can read them."""

    @field_validator("claims")
    @classmethod
    def _check_claims(cls, claims: dict[str, str]) -> dict[str, str]:
        check_given(claims)
        return claims


class RotateRequest(Spec):
    """How long the old token is good beside the new one."""

    overlap: Annotated[Duration, Field(ge=0, le=30 * 86400)] = 3600.0


class TokenInfo(Status):
    """A token on record; the token itself is kept nowhere."""

    id: str
    subject: str
    role: str
    workspaces: list[str]
    issued_at: datetime.datetime
    expires_at: datetime.datetime | None = None
    revoked_at: datetime.datetime | None = None
    deployments: list[str] | None = None
    """Its scope as WORKSPACE/NAME, WORKSPACE/* or `*`; None: it has none."""
    verbs: list[str] | None = None
    claims: dict[str, str] = Field(default_factory=dict)
    """What was put into it for Routes to choose by."""
    retires_at: datetime.datetime | None = None
    """From then on it counts as revoked, because it was rotated."""
    rotated_from: str | None = None
    rotated_to: str | None = None


class IssuedToken(Status):
    """The only time that a token is shown."""

    token: str
    info: TokenInfo


class AliasRequest(Spec):
    """Which version the alias points at."""

    version: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]


class WatchEvent(Status):
    """One event of `watch`; `object` is None in a BOOKMARK, which says that all up to `version` was sent."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: dict[str, Any] | None = None


class ReplicaLog(Status):
    """The last lines that one replica wrote, oldest first."""

    replica: str
    lines: list[str]


class RejectedRoute(Told):
    """A Deployment or a Route that Envoy did not take, with Envoy's own words."""

    workspace: Name
    deployment: Name | None = None
    route: Name | None = None
    error: Annotated[str, Field(max_length=16_384)]
    version: Annotated[int, Field(ge=0, le=2**62)]


class GatewaySample(Told):
    """Cumulative counters of both arms of one rollout, as of one scrape of one start (`epoch`) of Envoy."""

    rollout_uid: Annotated[str, Field(min_length=1, max_length=64)]
    gateway: Annotated[str, Field(max_length=120)] | None = None
    """The reporting gateway's own name, if it is said."""
    latency_edge_ms: Annotated[float, Field(gt=0)] | None = None
    """Where its histogram cuts off what is slow; for people, it is not kept."""
    at: Annotated[float, Field(ge=0)]
    """Seconds since 1970."""
    epoch: Annotated[str, Field(min_length=1, max_length=128)]
    weight_bp: Annotated[int, Field(ge=0, le=10_000)]
    """Basis points of live traffic on the candidate between this sample and the one before."""
    stable: dict[str, Any]
    candidate: dict[str, Any]


class ReportingInstance(Told):
    """Which agent reports under a gateway's name: two of one name would overwrite each other's reports."""

    home: Annotated[str, Field(min_length=1, max_length=64)]
    """An id of its folder: it stays when the agent is started again."""
    start: Annotated[str, Field(min_length=1, max_length=64)]
    """An id of this start of the agent."""
    host: Annotated[str, Field(max_length=255)]
    pid: Annotated[int, Field(ge=0, le=2**31)]


class GatewayReport(Told):
    """What one gateway has loaded, refused and counted."""

    observed_version: Annotated[int, Field(ge=0, le=2**62)]
    """Every commit up to this one is rendered and loaded."""
    rejected: list[RejectedRoute] = Field(default_factory=list, max_length=10_000)
    envoy: dict[str, Any] = Field(default_factory=dict)
    samples: list[GatewaySample] = Field(default_factory=list, max_length=10_000)
    load: LoadReport | None = None
    """None: nothing was counted this time."""
    instance: ReportingInstance | None = None
    """None: of an agent from before they said so; whoever reports last counts."""
    leaving: bool = False
    """Its Envoy was drained and has ended: this is the last report, and nothing waits for this gateway any more."""


class GatewayReceipt(Status):
    """How many samples were kept: those of rollouts that are gone, or that came before, are not."""

    samples: int
    version: int
    """The store's present version."""


class RetiringToken(Status):
    """A token that counts as revoked from a time on."""

    id: str
    at: datetime.datetime


class GatewayConfig(Status):
    """What a gateway needs to check tokens by itself."""

    jwks: dict[str, Any]
    revoked: list[str]
    retiring: list[RetiringToken] = Field(default_factory=list)
    issuer: str
    tokens_required: bool
    version: int
