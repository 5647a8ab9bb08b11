"""A Deployment's traffic of the last seconds, as the API shows it: rates, latencies, replicas and weights. Pure.

Called by `api.routes.traffic`. Calls `load` for the sums and `routing` for the weights.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from podium.planning.autoscaling import wanted_replicas
from podium.planning.load import ProcessorReading, Reading, WindowLoad, busy_shares, window_load
from podium.planning.routing import WHOLE, plan_route
from podium.resources.kinds import Deployment, Revision, Rollout
from podium.resources.load import DeploymentLoad, RevisionLoad, ScalingSummary
from podium.resources.rollout import FINAL_PHASES

_SHADOW = "shadow"
"""Copies of requests that were answered elsewhere: work for a replica, but nobody's request."""


def deployment_traffic(
    deployment: Deployment,
    owned: tuple[Mapping[str, Revision], Rollout | None],
    readings: Sequence[Reading],
    reports: Mapping[str, float],
    times: Sequence[ProcessorReading],
    *,
    seconds: float,
    age: float | None,
) -> DeploymentLoad:
    """owned: its revisions by name, and the rollout that its status names. readings: all rows of the Deployment from
    before the window on. reports: gateway -> when it last told its counters (seconds since 1970), of those that did
    lately. times: processor times of its replicas, if its scaling follows them. age: seconds since the newest report of
    any."""
    revisions, rollout = owned
    loads = {
        name: window_load(
            (row for row in readings if row.revision == name and row.role != _SHADOW), seconds, reports
        )
        for name in revisions
    }
    weights: Counter[str] = Counter()
    for arm in plan_route(deployment, revisions, rollout).live:
        weights[arm.revision] += arm.weight
    shown = [
        _revision(revision, _role(deployment, rollout, name), loads[name], (weights[name] / WHOLE * 100, age))
        for name, revision in revisions.items()
        if _matters(deployment, revision, rollout, loads[name])
    ]
    order = {"stable": 0, "candidate": 1, "retiring": 2}
    shown.sort(key=lambda part: (order[part.role], part.revision))
    total = sum(loads.values(), WindowLoad(seconds))
    status = deployment.status
    return DeploymentLoad(
        workspace=deployment.metadata.workspace,
        deployment=deployment.metadata.name,
        phase=status.phase,
        requests_per_second=total.requests_per_second,
        error_share=total.error_share,
        refused_share=total.refused_share,
        p50=total.quantile(0.5),
        p95=total.quantile(0.95),
        p99=total.quantile(0.99),
        concurrency=total.concurrency,
        copies_per_second=window_load(
            (row for row in readings if row.role == _SHADOW), seconds, reports
        ).requests_per_second,
        cpu=_processors(deployment, times, seconds),
        ready_replicas=sum(part.ready_replicas for part in shown),
        wanted_replicas=sum(part.wanted_replicas for part in shown),
        report_age=age,
        gateways=sorted(reports),
        scaling=_scaling(deployment),
        revisions=shown,
    )


def _processors(deployment: Deployment, times: Sequence[ProcessorReading], seconds: float) -> float | None:
    """Percent per replica that was ready at the last look."""
    scaling = deployment.spec.scaling
    if scaling is None or scaling.target.cpu is None or not times:
        return None
    end = max(one.at for one in times)
    ready = len({(one.revision, one.replica) for one in times if one.at == end})
    return 100 * busy_shares(times, seconds, end) / ready


def _revision(
    revision: Revision, role: str, load: WindowLoad, route: tuple[float, float | None]
) -> RevisionLoad:
    weight, age = route
    return RevisionLoad.model_validate(
        {
            "revision": revision.metadata.name,
            "version": revision.spec.version,
            "role": role,
            "requests_per_second": load.requests_per_second,
            "error_share": load.error_share,
            "refused_share": load.refused_share,
            "p50": load.quantile(0.5),
            "p95": load.quantile(0.95),
            "p99": load.quantile(0.99),
            "concurrency": load.concurrency,
            "ready_replicas": revision.status.ready_replicas,
            "wanted_replicas": revision.status.wanted_replicas,
            "sleeping": revision.status.sleeping,
            "weight": weight,
            "report_age": age,
        }
    )


def _role(deployment: Deployment, rollout: Rollout | None, name: str) -> str:
    under_way = rollout is not None and rollout.status.phase not in FINAL_PHASES
    if rollout is not None and under_way and rollout.spec.candidate_revision == name:
        return "candidate"
    return "stable" if name == deployment.status.stable_revision else "retiring"


def _matters(deployment: Deployment, revision: Revision, rollout: Rollout | None, load: WindowLoad) -> bool:
    """Whoever had requests, has replicas or is the one that serves."""
    role = _role(deployment, rollout, revision.metadata.name)
    busy = load.requests > 0 or load.concurrency > 0
    return role != "retiring" or busy or bool(revision.status.wanted_replicas or revision.status.replicas)


def _scaling(deployment: Deployment) -> ScalingSummary | None:
    scaling, known = deployment.spec.scaling, deployment.status.scaling
    if scaling is None:
        return None
    return ScalingSummary(
        min=scaling.min,
        max=scaling.max,
        desired=wanted_replicas(deployment),
        reason="" if known is None else known.limited or known.reason,
        panicking=known is not None and known.panic_since is not None,
    )
