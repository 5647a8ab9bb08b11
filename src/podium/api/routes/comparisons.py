"""GET /workspaces/{ws}/comparisons: how far shadows lie from their champions on the same requests."""

from typing import Annotated

from fastapi import APIRouter, Depends

from podium.api.access import Viewer, ViewerHere, WorkspaceName
from podium.api.openapi import answer
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.wire import JSON

App = Annotated[Services, Depends(services_of)]


def router() -> APIRouter:
    """GET /comparisons, GET /workspaces/{workspace}/comparisons."""
    routes = APIRouter(tags=["Comparison"])
    refusals = described(401, 403)

    @routes.get(
        "/comparisons",
        operation_id="getAllComparisons",
        summary="Shadows beside their champions, in all workspaces that the token covers",
        response_class=JSON,
        responses={200: answer("Comparisons"), **refusals},
    )
    def everywhere(caller: Viewer, services: App) -> JSON:
        found = services.store.comparisons()
        return JSON({"items": [one for one in found if caller.may_enter(one["workspace"])]})

    @routes.get(
        "/workspaces/{workspace}/comparisons",
        operation_id="getComparisons",
        summary="Shadows beside their champions, in one workspace",
        response_class=JSON,
        responses={200: answer("Comparisons"), **refusals},
    )
    def here(caller: ViewerHere, services: App, workspace: WorkspaceName) -> JSON:
        return JSON({"items": services.store.comparisons(workspace)})

    return routes
