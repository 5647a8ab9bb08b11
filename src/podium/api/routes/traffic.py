"""What is going on now: requests/s, errors, latencies, replicas and weights per Deployment and revision."""

import datetime
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from podium.api.access import Reader, ReaderHere, WorkspaceName
from podium.api.openapi import answer
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.wire import JSON
from podium.planning.traffic import deployment_traffic
from podium.resources.kinds import AnyResource
from podium.resources.load import Traffic
from podium.resources.quantities import parse_duration
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
        return _answer([one for one in found.items if caller.may_enter(one.workspace)], found)

    @routes.get(
        "/workspaces/{workspace}/traffic",
        operation_id="getTraffic",
        summary="Traffic of a workspace's Deployments",
        response_class=JSON,
        responses={200: answer("Traffic"), **refusals},
    )
    def here(caller: ReaderHere, services: App, workspace: WorkspaceName, window: Window = "30s") -> JSON:
        found = _traffic(services, workspace, _seconds(window))
        return _answer(found.items, found)

    return routes


def _seconds(window: str) -> float:
    return parse_duration(float(window) if window.isdigit() else window)


def _answer(items: object, found: Traffic) -> JSON:
    shown = found.model_copy(update={"items": items})
    return JSON(shown.model_dump(mode="json", by_alias=True))


def _traffic(services: Services, workspace: str | None, seconds: float) -> Traffic:
    now = datetime.datetime.now(datetime.UTC)
    at = now.timestamp()
    rows, reports = services.store.load(since=at - seconds - _BEFORE, workspace=workspace)
    lately = {gateway: told for gateway, told in reports.items() if told >= at - _LATELY}
    age = max(0.0, at - max(reports.values())) if reports else None
    readings: dict[_Key, list[LoadRow]] = defaultdict(list)
    for row in rows:
        readings[row.workspace, row.deployment].append(row)
    with services.store.read() as tx:
        deployments = tx.list("Deployment", workspace=workspace).items
        revisions = _revisions(tx, workspace, deployments, rows)
        rollouts = {key: _rollout(tx, key[0], one) for key, one in _by_key(deployments).items()}
    items = []
    for deployment in deployments:
        key = (deployment.metadata.workspace, deployment.metadata.name)
        items.append(
            deployment_traffic(
                deployment, (revisions[key], rollouts[key]), readings[key], lately, seconds=seconds, age=age
            )
        )
    items.sort(key=lambda item: (item.workspace, item.deployment))
    return Traffic(window=seconds, at=now, items=items)


def _by_key(deployments: Sequence[AnyResource]) -> dict[_Key, AnyResource]:
    return {(one.metadata.workspace, one.metadata.name): one for one in deployments}


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
