"""POST /workspaces/{ws}/routes/{name}/test: which Deployment would answer a request, and why. Nothing is sent."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from podium.api.access import ViewerHere, WorkspaceName
from podium.api.openapi import answer, body
from podium.api.parameters import ObjectName
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.wire import JSON, read_model
from podium.planning.cascades import find_troubles
from podium.planning.route_test import tell
from podium.planning.routes import plan_published
from podium.planning.world import read_entry
from podium.resources.errors import NotFound
from podium.resources.kinds import Route
from podium.resources.route import RouteSpec, RouteStatus, Rule, Variant
from podium.resources.route_test import RouteTestRequest
from podium.resources.shape import Metadata, Resource
from podium.store import Read

App = Annotated[Services, Depends(services_of)]


def router() -> APIRouter:
    """POST .../test."""
    routes = APIRouter(tags=["Route"])

    async def wanted_test(request: Request, caller: ViewerHere, services: App) -> RouteTestRequest:
        return await read_model(request, RouteTestRequest, services.settings.limits.document)

    @routes.post(
        "/workspaces/{workspace}/routes/{name}/test",
        operation_id="testRoute",
        summary="Which Deployment would answer a request by this Route (or by a Deployment's own path), and why",
        response_class=JSON,
        openapi_extra=body("RouteTestRequest", required=False),
        responses={200: answer("RouteTestResult"), **described(401, 403, 404, 413)},
    )
    def test_route(
        caller: ViewerHere,
        wanted: Annotated[RouteTestRequest, Depends(wanted_test)],
        services: App,
        workspace: WorkspaceName,
        name: ObjectName,
    ) -> JSON:
        with services.store.read() as tx:
            route = tx.find("Route", workspace, name) or _own_path(tx, workspace, name)
            named = {given: read_entry(tx, workspace, given) for given in route.spec.deployments}
            troubles = find_troubles(tx, route)
        plan = plan_published(route, {given: entry for given, entry in named.items() if entry is not None})
        told = tell(plan, wanted)
        told = told.model_copy(update={"warnings": troubles.get(told.rule or "", [])})
        return JSON(told.model_dump(mode="json", by_alias=True))

    return routes


def _own_path(tx: Read, workspace: str, name: str) -> Route:
    """What a Deployment without a Route of its name does, as a Route. Raises NotFound that speaks of the Route, or says
    that the path is closed."""
    deployment = tx.find("Deployment", workspace, name)
    if deployment is None:
        tx.get("Route", workspace, name)
    elif not deployment.spec.has_own_path:
        raise NotFound(
            f"deployment {workspace}/{name} is asked through Routes only (its spec.traffic.ownPath is false)",
            next_step="test the Route that leads to it: `podium get routes`",
        )
    rule = Rule(name="own-path", to=[Variant(deployment=name)])
    metadata = Metadata(name=name, workspace=workspace)
    return Resource(kind="Route", metadata=metadata, spec=RouteSpec(rules=[rule]), status=RouteStatus())
