"""What is going on now: requests/s, errors, latencies, replicas and weights per Deployment and revision; requests/s,
errors, refusals and weights per Route; how much of each quota is used."""

import datetime
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar

from fastapi import APIRouter, Depends, Query

from podium.api.access import Reader, ReaderHere, WorkspaceName
from podium.api.openapi import answer
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.wire import JSON
from podium.planning.quotas import quota_load
from podium.planning.route_load import route_traffic
from podium.planning.traffic import deployment_traffic
from podium.resources.kinds import AnyResource
from podium.resources.load import Traffic
from podium.resources.model import Quota
from podium.resources.quantities import parse_duration
from podium.resources.shape import DEFAULT_WORKSPACE
from podium.store import LoadRow, Read

App = Annotated[Services, Depends(services_of)]
Window = Annotated[
    str,
    Query(
        pattern=r"^(([5-9]|[1-9][0-9]|[1-8][0-9]{2}|900)s?|([1-9]|1[0-5])m)$",
        description="Over how long, from 5s to 15m; a plain number is seconds.",
        examples=["30s"],
    ),
]
_LATELY = 30.0
"""Seconds: what a gateway that was silent for longer counted is not in the sums."""
_BEFORE = 15.0
"""Seconds before the window: a difference of counters needs the ones from before."""
_PARTS = ("items", "routes", "quotas")
_Key = tuple[str, str]


def router() -> APIRouter:
    """GET /traffic, GET /workspaces/{workspace}/traffic."""
    routes = APIRouter(tags=["Traffic"])
    refusals = described(401, 403)

    @routes.get(
        "/traffic",
        operation_id="getAllTraffic",
        summary="Traffic of the Deployments of all workspaces that the token covers",
        response_class=JSON,
        responses={200: answer("Traffic"), **refusals},
    )
    def everywhere(caller: Reader, services: App, window: Window = "30s") -> JSON:
        found = _traffic(services, None, _seconds(window))
        return _answer(found, caller.may_enter)

    @routes.get(
        "/workspaces/{workspace}/traffic",
        operation_id="getTraffic",
        summary="Traffic of a workspace's Deployments",
        response_class=JSON,
        responses={200: answer("Traffic"), **refusals},
    )
    def here(caller: ReaderHere, services: App, workspace: WorkspaceName, window: Window = "30s") -> JSON:
        return _answer(_traffic(services, workspace, _seconds(window)), lambda _: True)

    return routes


def _seconds(window: str) -> float:
    return parse_duration(float(window) if window.isdigit() else window)


def _answer(found: Traffic, may_enter: Callable[[str], bool]) -> JSON:
    """What is of workspaces that the caller may see."""
    parts = {name: [one for one in getattr(found, name) if may_enter(one.workspace)] for name in _PARTS}
    return JSON(found.model_copy(update=parts).model_dump(mode="json", by_alias=True))


def _traffic(services: Services, workspace: str | None, seconds: float) -> Traffic:
    now = datetime.datetime.now(datetime.UTC)
    since = now.timestamp() - seconds - _BEFORE
    rows, reports = services.store.load(since=since, workspace=workspace)
    told = _Told(
        {gateway: at for gateway, at in reports.items() if at >= now.timestamp() - _LATELY},
        max(0.0, now.timestamp() - max(reports.values())) if reports else None,
    )
    times = _grouped(services.store.processor_times(since=since, workspace=workspace))
    readings = _grouped(rows)
    with services.store.read() as tx:
        deployments = tx.list("Deployment", workspace=workspace).items
        revisions = _revisions(tx, workspace, deployments, rows)
        rollouts = {key: _rollout(tx, key[0], one) for key, one in _by_key(deployments).items()}
        routes = tx.list("Route", workspace=workspace).items
        tenants = _tenants(tx, workspace)
    items = [
        deployment_traffic(
            deployment, (revisions[key], rollouts[key]), readings[key], told.lately, times[key],
            seconds=seconds, age=told.age,
        )
        for key, deployment in sorted(_by_key(deployments).items())
    ]  # fmt: skip
    counted = defaultdict(list)
    for row in services.store.route_load(since=since, workspace=workspace) if routes else ():
        counted[row.workspace, row.route].append(row)
    ways = [
        route_traffic(route, counted[key], told.lately, seconds=seconds, age=told.age)
        for key, route in sorted(_by_key(routes).items())
    ]
    theirs, public = _by_workspace(deployments), _by_workspace(routes)
    quotas = [
        quota_load(one, theirs[one.metadata.name], public[one.metadata.name])
        for one in tenants
        if one.spec.quota != Quota()
    ]
    return Traffic(window=seconds, at=now, items=items, routes=ways, quotas=quotas)


@dataclass(frozen=True)
class _Told:
    """`lately`: gateway -> when it last told its counters; `age`: seconds since the newest report of any."""

    lately: Mapping[str, float]
    age: float | None


class _Placed(Protocol):
    @property
    def workspace(self) -> str: ...
    @property
    def deployment(self) -> str: ...


_Row = TypeVar("_Row", bound=_Placed)


def _grouped(rows: Iterable[_Row]) -> dict[_Key, list[_Row]]:
    """By workspace and Deployment."""
    found: dict[_Key, list[_Row]] = defaultdict(list)
    for row in rows:
        found[row.workspace, row.deployment].append(row)
    return found


def _by_workspace(objects: Iterable[AnyResource]) -> dict[str, list[AnyResource]]:
    found: dict[str, list[AnyResource]] = defaultdict(list)
    for one in objects:
        found[one.metadata.workspace].append(one)
    return found


def _tenants(tx: Read, workspace: str | None) -> Sequence[AnyResource]:
    if workspace is None:
        return tx.list("Workspace").items
    found = tx.find("Workspace", DEFAULT_WORKSPACE, workspace)
    return [] if found is None else [found]


def _by_key(objects: Sequence[AnyResource]) -> dict[_Key, AnyResource]:
    return {(one.metadata.workspace, one.metadata.name): one for one in objects}


def _rollout(tx: Read, workspace: str, deployment: AnyResource) -> AnyResource | None:
    name = deployment.status.rollout
    return tx.find("Rollout", workspace, name) if name else None


def _revisions(
    tx: Read, workspace: str | None, deployments: Sequence[AnyResource], rows: Sequence[LoadRow]
) -> dict[_Key, dict[str, AnyResource]]:
    """Those that run, serve or had requests, by Deployment and name. A Deployment keeps many more than these."""
    found: dict[_Key, dict[str, AnyResource]] = defaultdict(dict)
    for one in tx.list("Revision", workspace=workspace, fields="status.phase!=Idle").items:
        found[one.metadata.workspace, one.spec.deployment][one.metadata.name] = one
    others = {(row.workspace, row.deployment, row.revision) for row in rows}
    others |= {
        (*key, one.status.stable_revision)
        for key, one in _by_key(deployments).items()
        if one.status.stable_revision
    }
    for place, deployment, name in others:
        known = found[place, deployment]
        revision = None if name in known else tx.find("Revision", place, name)
        if revision is not None:
            known[name] = revision
    return found
