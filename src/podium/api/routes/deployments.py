"""What people do to a Deployment beside changing its spec: steer its rollout, roll back, read its logs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from podium.api.access import ViewerHere, WorkspaceName, WriterHere
from podium.api.openapi import answer, body
from podium.api.parameters import ObjectName
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.steering import act, roll_back
from podium.api.wire import JSON, read_model
from podium.resources.requests import RollbackRequest, RolloutActionRequest

App = Annotated[Services, Depends(services_of)]
Replica = Annotated[
    str | None, Query(pattern="^[a-z0-9][-a-z0-9.]{0,199}$", description="Only this replica's.")
]
Lines = Annotated[int, Query(ge=1, le=10_000, description="The last lines of each replica.")]
_PATH = "/workspaces/{workspace}/deployments/{name}"


def router() -> APIRouter:
    """POST .../rollout, POST .../rollback, GET .../logs."""
    routes = APIRouter(tags=["Deployment"])
    _add_steering(routes)
    _add_rollback(routes)
    _add_logs(routes)
    return routes


def _add_steering(routes: APIRouter) -> None:
    async def wanted_action(request: Request, caller: WriterHere, services: App) -> RolloutActionRequest:
        return await read_model(request, RolloutActionRequest, services.settings.limits.document)

    @routes.post(
        f"{_PATH}/rollout",
        operation_id="steerRollout",
        summary="pause, resume, promote or abort the rollout under way; retry a revision that was taken back",
        response_class=JSON,
        openapi_extra=body("RolloutActionRequest"),
        responses={200: answer("ActionResult"), **described(401, 403, 404, 409, 413)},
    )
    def steer_rollout(
        caller: WriterHere,
        wanted: Annotated[RolloutActionRequest, Depends(wanted_action)],
        services: App,
        workspace: WorkspaceName,
        name: ObjectName,
    ) -> JSON:
        with services.store.write(caller.actor) as tx:
            result = act(tx, tx.get("Deployment", workspace, name), wanted.action)
        return JSON(result.model_dump(mode="json", by_alias=True))


def _add_rollback(routes: APIRouter) -> None:
    async def wanted_rollback(request: Request, caller: WriterHere, services: App) -> RollbackRequest:
        return await read_model(request, RollbackRequest, services.settings.limits.document)

    @routes.post(
        f"{_PATH}/rollback",
        operation_id="rollBack",
        summary="Give the traffic to an earlier revision; during a rollout to its stable one",
        response_class=JSON,
        openapi_extra=body("RollbackRequest", required=False),
        responses={200: answer("ActionResult"), **described(401, 403, 404, 409, 413)},
    )
    def roll_back_deployment(
        caller: WriterHere,
        wanted: Annotated[RollbackRequest, Depends(wanted_rollback)],
        services: App,
        workspace: WorkspaceName,
        name: ObjectName,
    ) -> JSON:
        with services.store.write(caller.actor) as tx:
            result = roll_back(tx, tx.get("Deployment", workspace, name), wanted.revision)
        return JSON(result.model_dump(mode="json", by_alias=True))


def _add_logs(routes: APIRouter) -> None:
    @routes.get(
        f"{_PATH}/logs",
        operation_id="readLogs",
        summary="The last lines that the replicas of a Deployment wrote",
        response_class=JSON,
        responses={200: answer("ReplicaLogList"), **described(401, 403, 404)},
    )
    def read_logs(
        caller: ViewerHere,
        services: App,
        workspace: WorkspaceName,
        name: ObjectName,
        replica: Replica = None,
        lines: Lines = 100,
    ) -> JSON:
        with services.store.read() as tx:
            tx.get("Deployment", workspace, name)
        found = services.logs.logs(workspace, name, replica, lines)
        return JSON({"items": [log.model_dump(mode="json", by_alias=True) for log in found]})
