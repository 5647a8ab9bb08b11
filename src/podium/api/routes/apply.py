"""Create or update one object."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from podium.api.access import Writer
from podium.api.applying import apply, authorise, read_applied
from podium.api.openapi import answer, body
from podium.api.parameters import WorkspaceFilter
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.wire import JSON, read_json
from podium.resources.errors import InvalidInput, Issue
from podium.resources.requests import ApplyResult

App = Annotated[Services, Depends(services_of)]
Beside = Annotated[
    str | None,
    Query(
        max_length=4096,
        pattern="^[a-z][-a-z0-9]*(,[a-z][-a-z0-9]*)*$",
        description="With dryRun, of a Route: Deployments that would be applied before it, with commas.",
        examples=["churn,churn-next"],
    ),
]
DryRun = Annotated[bool, Query(alias="dryRun", description="Do everything but commit.")]


class _DryRun(Exception):
    """Leaves the transaction without a commit, with what it would have come to."""

    def __init__(self, result: ApplyResult) -> None:
        super().__init__()
        self.result = result


def router() -> APIRouter:
    """POST /apply."""
    routes = APIRouter(tags=["Apply"])

    async def document(request: Request, caller: Writer, services: App) -> object:
        """After authentication: nobody's body is read before it is known who they are."""
        return await read_json(request, services.settings.limits.document)

    @routes.post(
        "/apply",
        operation_id="apply",
        summary="Create or update one object; an update names the resourceVersion that it replaces",
        response_class=JSON,
        openapi_extra=body("Applied"),
        responses={
            200: answer("ApplyResult", "Updated, or unchanged, or what a dry run would do."),
            201: answer("ApplyResult", "Created."),
            **described(401, 403, 409, 413),
        },
    )
    def apply_document(
        caller: Writer,
        given: Annotated[object, Depends(document)],
        services: App,
        workspace: WorkspaceFilter = None,
        dry_run: DryRun = False,
        beside: Beside = None,
    ) -> JSON:
        if beside is not None and not dry_run:
            raise InvalidInput(Issue("beside", "only with dryRun: else apply the Deployments first"))
        wish = read_applied(given, workspace)
        authorise(caller, wish)
        others = frozenset() if beside is None else frozenset(beside.split(","))
        try:
            with services.store.write(caller.actor) as tx:
                result = apply(tx, wish, runtime_wheel=services.runtime_wheel, dry_run=dry_run, beside=others)
                if dry_run:
                    raise _DryRun(result)
        except _DryRun as outcome:
            result = outcome.result
        created = result.action == "created" and not dry_run
        return JSON(result.model_dump(mode="json", by_alias=True), status_code=201 if created else 200)

    return routes
