"""Which arms a Deployment's requests go to: a pure function of the Deployment, its Revisions and its Rollout.

Called by the gateway agent, which renders the outcome as Envoy configuration. Nothing here knows Envoy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from podium.resources.deployment import RuntimeSettings
from podium.resources.kinds import Deployment, Revision, Rollout
from podium.resources.rollout import has_baseline
from podium.resources.route import StickyKey, basis_points
from podium.resources.strategies import AbTestStrategy, BlueGreenStrategy, ShadowStrategy
from podium.resources.traffic import DeploymentTraffic

WHOLE = 10_000
"""Basis points of all live traffic."""


Role = Literal["live", "baseline", "preview", "direct", "shadow", "next"]
"""`shadow`: copies of requests, whose answers nobody gets. `next`: requests that another Deployment was asked first, in
a cascade or a fallback; its time is in theirs."""


@dataclass(frozen=True)
class Arm:
    """One revision in one role. Only randomised requests are in `live`; those that came to it in any other way are
    counted apart."""

    workspace: str
    revision: str
    version: str
    role: Role
    weight: int
    """Basis points of live traffic; 0 in the other roles."""
    endpoints: tuple[str, ...]
    """`unix:/path` or `http://host:port` of each ready replica."""
    deployment: str = ""
    protection: DeploymentTraffic | None = None
    paths: "ServerPaths | None" = None
    """How requests name things in another server; None: as they came, for Podium's own."""

    @property
    def cluster(self) -> str:
        """Envoy's name for it; '_' cannot occur in the parts."""
        return f"{self.workspace}_{self.revision}_{self.role}"


@dataclass(frozen=True)
class ServerPaths:
    """`public`, with `/versions/<version>` after it or not, becomes `inside` in the path of a request."""

    public: str
    version: str
    inside: str
    """Without a '/' at its end: empty for the server's root."""


@dataclass(frozen=True)
class RouteEntry:
    """All that the gateway does for one Deployment. `live` weights sum to 10,000, or `live` is empty: then requests
    are answered 503 with `unavailable` as the reason."""

    workspace: str
    deployment: str
    uid: str
    live: tuple[Arm, ...]
    preview: Arm | None
    preview_header: str | None
    direct: Arm | None
    """Answers `/versions/V` for its own version only."""
    timeout: float
    """Seconds."""
    idempotent: bool
    max_body: int
    """Bytes."""
    unavailable: str
    waking: float = 0.0
    """Seconds of `timeout` that are for the start of a replica which a request wakes; 0 where none sleeps."""
    shadow: tuple[Arm, int] | None = None
    """The candidate of a rollout that gets copies now, and the share of requests in basis points."""
    sticky: StickyKey | None = None
    """What users are told apart by among the arms of a rollout."""
    salt: str = ""
    """Of the sticky key. The same in all tests of one candidate, so that whoever met it meets it again; another one
    for the next candidate, so that it is not the same users who try everything first."""
    own_path: bool = True
    """False: nobody is answered by the Deployment's name. Its arms are there for Routes."""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every arm that needs a cluster."""
        copied = self.shadow[0] if self.shadow is not None else None
        return tuple(arm for arm in (*self.live, self.preview, self.direct, copied) if arm is not None)


def arm_of(revision: Revision, role: Role, weight: int, protection: DeploymentTraffic | None = None) -> Arm:
    """A revision in a role, with the replicas that answer now."""
    spec = revision.spec
    return Arm(
        workspace=revision.metadata.workspace,
        revision=revision.metadata.name,
        version=spec.version,
        role=role,
        weight=weight,
        endpoints=baseline_of(revision) if role == "baseline" else endpoints_of(revision),
        deployment=spec.deployment,
        protection=protection,
        paths=_paths(spec.deployment, spec.version, spec.runtime),
    )


def _paths(deployment: str, version: str, runtime: RuntimeSettings) -> ServerPaths | None:
    if runtime.command is None:
        return None
    models = "/v2/models/"
    inside = f"{models}{runtime.model_name or deployment}" if runtime.protocol == "oip" else ""
    return ServerPaths(f"{models}{deployment}", version, inside)


def compared_share(copied: int) -> int:
    """Of requests and their copies together, the share that are copies; both in basis points.

    An error of a candidate that is no worse is one of its copies with at most this probability: it is what the
    analysis takes for its share. That holds although both answer the same requests (one that fails on both sides
    counts once for and once against it), and where fewer requests are copied than planned.
    """
    return round(WHOLE * copied / (WHOLE + copied))


def baseline_share(weight: int) -> int:
    """What the baseline gets beside a candidate with this weight, both in basis points: as much, or what is left."""
    return min(weight, WHOLE - weight)


def beside_baseline(weight: int) -> int:
    """The candidate's share of its own requests and the baseline's together; both in basis points."""
    together = weight + baseline_share(weight)
    return round(WHOLE * weight / together) if together else 0


def baseline_of(revision: Revision) -> tuple[str, ...]:
    """Addresses of the fresh replicas that a candidate is compared with, of those that answer now."""
    states = revision.status.replicas
    return tuple(
        sorted(state.address for state in states if state.phase == "Ready" and state.group == "baseline")
    )


def endpoints_of(revision: Revision | None) -> tuple[str, ...]:
    """Addresses of the replicas that answer now. Where none does: of those that a request has woken and that will, or
    else of the one that sleeps, which a request wakes. Each of them holds its requests until it answers."""
    if revision is None:
        return ()
    replicas = revision.status.replicas
    answering = [state for state in replicas if state.phase == "Ready"]
    # Those of a baseline have a share of their own, unless nobody else is left.
    ready = [state.address for state in answering if not state.group] or [
        state.address for state in answering
    ]
    woken = [state.address for state in replicas if state.phase == "Starting" and state.woken]
    dormant = [state.address for state in replicas if state.phase == "Dormant"]
    return tuple(sorted(ready or woken or dormant))


def waking_seconds(revision: Revision | None) -> float:
    """How much longer a request to it may take, because it starts a replica. Given before the first request can meet a
    replica that sleeps, and until none can any more."""
    if revision is None:
        return 0.0
    status = revision.status
    waits = status.sleeping and not status.wanted_replicas
    waits |= any(
        state.phase == "Dormant" or (state.woken and state.phase == "Starting") for state in status.replicas
    )
    return revision.spec.runtime.startup_timeout if waits else 0.0


def plan_route(
    deployment: Deployment, revisions: Mapping[str, Revision], rollout: Rollout | None
) -> RouteEntry:
    """`revisions` by name; `rollout` is the one that the Deployment's status names, or None.

    A rollout that has ended but is still named keeps its last weight (0 or 100): a reader that sees the end of the
    rollout before the Deployment's new status, or after it, plans the same route.

    Traffic never points at a revision without a ready replica while another that may serve has one: a dead candidate's
    share falls to the stable revision at once, and the other way round only where the candidate has taken traffic
    already (it has passed its gates for that).
    """
    status, spec = deployment.status, deployment.spec
    stable_name, candidate_name, weight = status.stable_revision, None, 0
    if rollout is not None:
        stable_name = rollout.spec.stable_revision
        candidate_name, weight = rollout.spec.candidate_revision, rollout.status.weight * 100

    def arm(name: str | None, role: Role, share: int) -> Arm | None:
        revision = revisions.get(name) if name else None
        made = arm_of(revision, role, share, spec.traffic) if revision is not None else None
        return made if made is not None and made.endpoints else None

    stable, candidate = arm(stable_name, "live", WHOLE - weight), arm(candidate_name, "live", weight)
    if candidate is None or weight == 0:
        live = _whole(stable)
    elif stable is None or weight == WHOLE:
        live = _whole(candidate)
    elif rollout is not None and has_baseline(rollout.spec):
        live = _beside(stable, arm(stable_name, "baseline", baseline_share(weight)), candidate)
    else:
        live = (stable, candidate)
    if deployment.metadata.deletion_requested_at is not None:
        live = ()
    served = candidate_name if weight == WHOLE else stable_name
    waking = max(waking_seconds(revisions.get(name or "")) for name in (stable_name, candidate_name))
    entry = RouteEntry(
        workspace=deployment.metadata.workspace,
        deployment=deployment.metadata.name,
        uid=deployment.uid,
        live=live,
        preview=None,
        preview_header=None,
        direct=arm(served, "direct", 0),
        timeout=spec.runtime.request_timeout + waking,
        idempotent=spec.idempotent,
        max_body=spec.runtime.max_body,
        unavailable="" if live else _why_unavailable(deployment, revisions.get(served or "")),
        waking=waking,
        own_path=spec.has_own_path,
    )
    return (
        entry
        if rollout is None
        else _with_strategy(entry, rollout, lambda role: arm(candidate_name, role, 0))
    )


def _with_strategy(
    entry: RouteEntry, rollout: Rollout, candidate: Callable[[Role], Arm | None]
) -> RouteEntry:
    """The entry with what the rollout's strategy adds beside weights; `candidate` gives its arm in a role."""
    strategy, shown = rollout.spec.settings.strategy, rollout.status
    if isinstance(strategy, BlueGreenStrategy) and shown.preview:
        preview = candidate("preview")
        return replace(entry, preview=preview, preview_header=strategy.preview_header if preview else None)
    if isinstance(strategy, ShadowStrategy) and shown.shadow and entry.live:
        shadow = candidate("shadow")
        return (
            replace(entry, shadow=(shadow, basis_points(strategy.percent))) if shadow is not None else entry
        )
    if isinstance(strategy, AbTestStrategy) and strategy.sticky is not None:
        salt = f"{strategy.sticky.salt or entry.uid}/{rollout.spec.candidate_revision}"
        return replace(entry, sticky=strategy.sticky, salt=salt)
    return entry


def _beside(stable: Arm, baseline: Arm | None, candidate: Arm) -> tuple[Arm, ...]:
    """Of the stable revision's share its fresh replicas take theirs."""
    if baseline is None:
        return (stable, candidate)
    rest = replace(stable, weight=stable.weight - baseline.weight)
    return (*((rest,) if rest.weight else ()), baseline, candidate)


def _whole(arm: Arm | None) -> tuple[Arm, ...]:
    return () if arm is None else (replace(arm, weight=WHOLE),)


def _why_unavailable(deployment: Deployment, revision: Revision | None) -> str:
    if deployment.metadata.deletion_requested_at is not None:
        return "the deployment is being deleted"
    if deployment.spec.replicas == 0 and deployment.spec.scaling is None:
        return "the deployment has no replicas (spec.replicas is 0)"
    if revision is not None and revision.status.failures:
        # Its first words only: what follows are lines of the model's log, which are not for every caller.
        how = revision.status.last_exit.partition("; last lines:")[0]
        return f"no replica of the deployment is ready; the last one: {how}"
    return "no replica of the deployment is ready yet"
