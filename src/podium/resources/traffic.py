"""What the gateway does for requests beyond choosing who answers: repeats, limits, a second opinion, a way out.

Called by `route` (all but `DeploymentTraffic`) and `deployment` (`DeploymentTraffic`: what belongs to the replicas
themselves, whichever way a request comes). `gateway/render` makes Envoy's configuration of it. Everything here is off
until it is written down, and everything counts per gateway: two gateways let twice as much through.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, field_validator, model_validator

from podium.resources.quantities import Duration
from podium.resources.shape import Name, Spec

ANSWER_BYTES = 16 * 2**10
"""The body of a declared answer lies in every gateway's route table."""

RetryReason = Literal["connectFailure", "reset", "unavailable", "serverError"]
"""`connectFailure`: no connection, so nothing was sent. `reset`: the connection broke before an answer, or an attempt
took longer than `perTryTimeout`. `unavailable`: 502, 503 or 504. `serverError`: any 5xx, and all of the above."""


class Retries(Spec):
    """Attempts after the first one. Without it: two, at once, on `connectFailure` and `reset`.

    Another replica is drawn each time. 429 is an answer, not a failure: repeating it would add to the load. A
    Deployment that is not `idempotent` is asked again only where it has not read the request.
    """

    attempts: Annotated[int, Field(ge=0, le=5)] = 2
    """After the first; 0 repeats nothing."""
    on: list[RetryReason] = Field(default=["connectFailure", "reset"], min_length=1, max_length=4)
    per_try_timeout: Annotated[Duration, Field(ge=0.01, le=3600)] | None = None
    """Seconds for one attempt. None: as long as the request has."""
    backoff_base: Annotated[Duration, Field(ge=0.001, le=60)] = 0.005
    """Before attempt n a random time below base * 2^n, at most `backoffMax`."""
    backoff_max: Annotated[Duration, Field(ge=0.001, le=300)] = 0.05

    @field_validator("on")
    @classmethod
    def _each_once(cls, on: list[RetryReason]) -> list[RetryReason]:
        if len(set(on)) != len(on):
            raise ValueError("expected each reason once")
        return on

    @model_validator(mode="after")
    def _agrees(self) -> "Retries":
        if self.backoff_max < self.backoff_base:
            raise ValueError("backoffMax: expected at least backoffBase")
        if self.per_try_timeout is not None and not {"reset", "unavailable", "serverError"} & set(self.on):
            raise ValueError("perTryTimeout: an attempt that it ends counts as reset; add reset to on")
        return self


class Hedge(Spec):
    """A second replica is asked when the first has not answered `after` this time; the first answer wins and the other
    attempt is given up. For Deployments that are `idempotent` only: both replicas may do the work.

    `after` near the 95th percentile of the latency repeats one request in twenty. Not together with
    `retries.perTryTimeout`: there the slow attempt is given up, here it goes on.

    In a rollout a request whose second attempt won counts as saved by a repeat, so as failed: Envoy does not tell the
    two apart. Stable and candidate are hedged alike, but limits on the error rate alone have to leave room for it.
    """

    after: Annotated[Duration, Field(ge=0.001, le=600)]
    attempts: Annotated[int, Field(ge=1, le=3)] = 1
    """More than one: every `after` another one."""


class RateLimit(Spec):
    """A bucket of `burst` requests that fills evenly with `requests` in `per`. One more is answered 429."""

    requests: Annotated[int, Field(ge=1, le=1_000_000)]
    per: Annotated[Duration, Field(ge=0.05, le=3600)] = 1.0
    """At most an hour: a gateway that starts has a full bucket, so it limits rates and is no account of days."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many may come at once after a pause. None: `requests`."""

    @property
    def bucket(self) -> int:
        """How many requests the full bucket holds."""
        return self.requests if self.burst is None else self.burst


_LEAST = 25
"""Requests under way while latency with little load is measured: fewer turned callers away who had done no harm."""


class AdaptiveConcurrency(Spec):
    """A limit on requests under way that finds its own height: it falls as soon as latency rises above what it is with
    little load, and beyond it 503 is answered instead of letting a queue grow. It is `minConcurrency` while latency
    with little load is measured: at first, now and then, and whenever any Route at the gateway gets other `adaptive`
    settings."""

    percentile: Annotated[float, Field(ge=1, le=99.9)] = 90.0
    """Of the latency, that is compared."""
    update_interval: Annotated[Duration, Field(ge=0.05, le=60)] = 0.1
    """How often the limit is computed anew."""
    idle_latency_interval: Annotated[Duration, Field(ge=1, le=3600)] = 60.0
    """How often latency with little load is measured (up to 15 % later, at random): for `idleLatencyRequests` requests
    the limit is then `minConcurrency`."""
    idle_latency_requests: Annotated[int, Field(ge=1, le=10_000)] = 50
    min_concurrency: Annotated[int | None, Field(ge=1, le=1000)] = None
    """25 unless said, or `maxConcurrency` where that is less. What is beyond it while latency is measured is answered
    503, so best what the replicas can do at once without a queue; what is more is measured as latency."""
    max_concurrency: Annotated[int, Field(ge=1, le=100_000)] = 1000

    @model_validator(mode="after")
    def _in_order(self) -> "AdaptiveConcurrency":
        if self.least > self.max_concurrency:
            raise ValueError("minConcurrency: expected at most maxConcurrency")
        return self

    @property
    def least(self) -> int:
        """`min_concurrency` as it holds."""
        return min(_LEAST, self.max_concurrency) if self.min_concurrency is None else self.min_concurrency


class Limits(Spec):
    """How many requests each gateway lets through. What is turned away reaches no replica and is no error of one."""

    route: RateLimit | None = None
    """Of all callers together."""
    per_caller: RateLimit | None = None
    """Of each caller: the name of its token, or the client's address where no token is asked for."""
    callers: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """How many callers are told apart at once, at least; beyond that who was quiet for longest starts afresh."""
    adaptive: AdaptiveConcurrency | None = None
    """On requests under way, of all callers together."""


class Cascade(Spec):
    """The Deployment of the rule answers first; where its confidence lies below `threshold`, `deployment` does, and the
    client sees that answer only. Whole answers only: a streamed one is never asked again.

    While `deployment` has no ready replica nothing is escalated: the first answer counts. An answer of the first that
    is no success (4xx, 5xx, 429) is returned as it is; `fallback` is for those.
    """

    deployment: Name
    """The larger model."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The least sure row of a request decides; a confidence that is no number counts as 0."""
    output: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}$")] = "predict_proba"
    """Of the first Deployment's model. Several numbers per row are class probabilities: the largest is the confidence.
    One number per row is the confidence itself. An answer without this output is never escalated, and counted."""


class Shadow(Spec):
    """A share of requests goes to another Deployment too, whose answers nobody gets. It bears the same `x-request-id`
    and the header `x-podium-shadow: true`. A shadow that is slow or dead changes nothing for the caller."""

    deployment: Name
    percent: Annotated[float, Field(ge=0.01, le=100)] = 100.0
    """Of requests, chosen at random, in hundredths."""


def _check_json(value: Any) -> Any:
    """What JSON can hold: YAML knows more numbers and texts than that."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ValueError("expected finite numbers and texts of Unicode, a few lists deep") from None
    return value


class StaticAnswer(Spec):
    """What is said where no model can be asked."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    body: Annotated[JsonValue, AfterValidator(_check_json)]
    """Sent as JSON (`application/json`)."""

    @model_validator(mode="after")
    def _is_small(self) -> "StaticAnswer":
        if len(json.dumps(self.body, ensure_ascii=False).encode()) > ANSWER_BYTES:
            raise ValueError(f"body: expected at most {ANSWER_BYTES // 2**10}Ki of JSON")
        return self


class Fallback(Spec):
    """Who answers when the rule's own Deployment does not: the next Deployments in turn, then a declared answer.

    An attempt has failed when no replica is ready or reachable, when the connection breaks, with 502, 503 or 504 (with
    `onServerError` any 5xx), with 429 of a full queue (another Deployment's queue is another queue), and after
    `attemptTimeout`. The answer says who it is from: `x-podium-fallback: deployment` or `answer`.
    """

    deployments: list[Name] = Field(default_factory=list, max_length=3)
    answer: StaticAnswer | None = None
    """Instead of every failure that is left. Never instead of another 4xx: what is wrong with a request, a token or a
    caller's rate has to be said. None: the last failure itself."""
    attempt_timeout: Annotated[Duration, Field(ge=0.01, le=3600)] | None = None
    """Seconds for each Deployment. None: the first one may use up the whole time, and then only `answer` is left."""
    on_server_error: bool = True
    """500 too. A model that fails at an input mostly fails at it again; another model need not."""

    @model_validator(mode="after")
    def _has_something(self) -> "Fallback":
        if not self.deployments and self.answer is None:
            raise ValueError("expected deployments, an answer or both")
        if len(set(self.deployments)) != len(self.deployments):
            raise ValueError("deployments: expected each one once")
        if self.attempt_timeout is not None and not self.deployments:
            raise ValueError("attemptTimeout: only with deployments")
        return self


class OutlierEjection(Spec):
    """A replica that fails several times in a row is left out for a while. Failures are lost connections, timeouts and
    502, 503, 504: a 500 is the model's answer to an input, and one bad caller could eject every replica with it."""

    consecutive_errors: Annotated[int, Field(ge=1, le=1000)] = 5
    interval: Annotated[Duration, Field(ge=0.1, le=3600)] = 10.0
    """How often it is looked who may come back."""
    base_ejection: Annotated[Duration, Field(ge=0.1, le=3600)] = 30.0
    """Times how often in a row it was left out."""
    max_ejected_percent: Annotated[int, Field(ge=1, le=100)] = 50
    """Of the replicas; one may always be left out where there are two."""


class CircuitBreaker(Spec):
    """How much each gateway has under way to one revision; a request beyond that is answered 503 at once."""

    max_connections: Annotated[int, Field(ge=1, le=4000)] | None = None
    """None: 4000, just below what a replica takes."""
    max_pending: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Requests that wait for a connection. None: no limit."""
    max_requests: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Under way at once. None: no limit."""
    retry_budget_percent: Annotated[float, Field(gt=0, le=100)] | None = None
    """Repeats under way, of the requests under way. None: up to 1000 repeats."""
    min_retry_concurrency: Annotated[int, Field(ge=1, le=10_000)] = 50
    """So many repeats are always allowed: enough for what a dying replica had. Only with `retryBudgetPercent`."""


class DeploymentTraffic(Spec):
    """How a Deployment is asked, and what holds for its replicas whichever path or Route a request comes by. A change
    of it makes no new revision."""

    own_path: bool = True
    """False: `/v2/models/NAME` of the Deployment, its versions, previews and calls of gRPC included, is answered 404.
    It is asked through Routes only, so nobody gets around what they say. A Route may have its name."""
    outlier_ejection: OutlierEjection | None = None
    """None: a replica is left out only when Podium sees that it is not ready."""
    circuit_breaker: CircuitBreaker | None = None
