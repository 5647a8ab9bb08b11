"""What has happened: events, the audit trail, and the samples of a rollout."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from podium.api.access import Caller, Viewer, ViewerHere, WorkspaceName
from podium.api.openapi import answer
from podium.api.parameters import (
    MAX_VERSION,
    Before,
    KindFilter,
    NameFilter,
    ObjectName,
    RecordedKind,
    WorkspaceFilter,
)
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.wire import JSON
from podium.planning.looks import replay
from podium.resources.kinds import Rollout
from podium.resources.rollout import Decision
from podium.store import AuditRow, EventRow

App = Annotated[Services, Depends(services_of)]
Count = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
AfterSample = Annotated[
    int, Query(ge=0, le=MAX_VERSION, description="Only newer ones: `next` of the page before.")
]


def router() -> APIRouter:
    """GET /events, GET /audit, GET .../rollouts/{name}/samples and /replay."""
    routes = APIRouter(tags=["Records"])
    _add_events(routes)
    _add_audit(routes)
    _add_samples(routes)
    _add_replay(routes)
    return routes


def _add_events(routes: APIRouter) -> None:
    @routes.get(
        "/events",
        operation_id="listEvents",
        summary="What happened to objects, newest first",
        response_class=JSON,
        responses={200: answer("EventList"), **described(401, 403)},
    )
    def list_events(
        caller: Viewer,
        services: App,
        workspace: WorkspaceFilter = None,
        kind: KindFilter = None,
        name: NameFilter = None,
        limit: Count = 100,
        before: Before = None,
    ) -> JSON:
        def read(place: str | None) -> Sequence[EventRow]:
            with services.store.read() as tx:
                return tx.events(workspace=place, kind=kind, name=name, limit=limit, before=before)

        rows = _of_caller(caller, workspace, read, lambda row: row.id)[:limit]
        return _records(rows, limit, lambda row: row.id)


def _add_audit(routes: APIRouter) -> None:
    @routes.get(
        "/audit",
        operation_id="listAudit",
        summary="Who changed what, newest first; rows about tokens are an admin's to see",
        response_class=JSON,
        responses={200: answer("AuditList"), **described(401, 403)},
    )
    def list_audit(
        caller: Viewer,
        services: App,
        workspace: WorkspaceFilter = None,
        kind: RecordedKind = None,
        name: NameFilter = None,
        limit: Count = 100,
        before: Before = None,
    ) -> JSON:
        def read(place: str | None) -> Sequence[AuditRow]:
            with services.store.read() as tx:
                return tx.audit(workspace=place, kind=kind, name=name, limit=limit, before=before)

        rows = _of_caller(caller, workspace, read, lambda row: row.seq)[:limit]
        return _records(rows, limit, lambda row: row.seq, lambda row: _may_see(caller, row))


def _add_samples(routes: APIRouter) -> None:
    @routes.get(
        "/workspaces/{workspace}/rollouts/{name}/samples",
        operation_id="listSamples",
        summary="What the gateways counted during a rollout, in the order of its arrival",
        response_class=JSON,
        responses={200: answer("SampleList"), **described(401, 403, 404)},
    )
    def list_samples(
        caller: ViewerHere,
        services: App,
        workspace: WorkspaceName,
        name: ObjectName,
        after: AfterSample = 0,
        limit: Count = 500,
    ) -> JSON:
        with services.store.read() as tx:
            rollout = tx.get("Rollout", workspace, name)
        rows = services.store.samples(rollout.uid, after, limit)
        return _records(rows, limit, lambda row: row.id)


def _add_replay(routes: APIRouter) -> None:
    @routes.get(
        "/workspaces/{workspace}/rollouts/{name}/replay",
        operation_id="replayRollout",
        summary="Judge the stored evidence of each decision again: the same evidence gives the same verdict",
        response_class=JSON,
        responses={200: answer("ReplayList"), **described(401, 403, 404)},
    )
    def replay_rollout(caller: ViewerHere, services: App, workspace: WorkspaceName, name: ObjectName) -> JSON:
        with services.store.read() as tx:
            rollout = tx.get("Rollout", workspace, name)
        return JSON({"items": [_replayed(index, item) for index, item in _judged(rollout)]})


def _judged(rollout: Rollout) -> list[tuple[int, Decision]]:
    """The decisions that rest on statistics; a person's act and a dead candidate need none."""
    return [
        (index, item)
        for index, item in enumerate(rollout.status.decisions)
        if item.evidence is not None and "analysis" in item.evidence
    ]


def _replayed(index: int, decision: Decision) -> dict[str, Any]:
    kept = (decision.evidence or {}).get("verdict", {})
    try:
        look = replay(decision.evidence or {})
    except ValueError as error:
        return {"decision": index, "same": False, "verdict": None, "reason": str(error)}
    again = (look.evidence or {}).get("verdict", {})
    return {"decision": index, "same": again == kept, "verdict": again.get("decision"), "reason": look.reason}


def _of_caller(
    caller: Caller,
    workspace: str | None,
    read: Callable[[str | None], Sequence[Any]],
    order: Callable[[Any], int],
) -> list[Any]:
    """Newest first, out of the workspaces that the caller may enter."""
    if workspace is not None:
        caller.enter(workspace)
        return list(read(workspace))
    if caller.workspaces is None:
        return list(read(None))
    rows = [row for place in caller.workspaces for row in read(place)]
    return sorted(rows, key=order, reverse=True)


def _may_see(caller: Caller, row: AuditRow) -> bool:
    """Tokens are in no workspace; a Workspace object's row stands in `default`, but is that tenant's business."""
    if row.workspace is None:
        return caller.role == "admin"
    return row.kind != "Workspace" or caller.may_enter(row.name or "")


def _records(
    rows: Sequence[Any],
    limit: int,
    order: Callable[[Any], int],
    may_see: Callable[[Any], bool] = lambda row: True,
) -> JSON:
    items = [
        {_camel(field): value for field, value in dataclasses.asdict(row).items()}
        for row in rows
        if may_see(row)
    ]
    return JSON({"items": items, "next": order(rows[-1]) if len(rows) >= limit else None})


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
