"""Get, list and delete, for every kind of the table: a new kind needs nothing here."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from podium.api.access import Caller, Reader, ReaderHere, WorkspaceName, Writer, WriterHere
from podium.api.deleting import delete
from podium.api.openapi import answer
from podium.api.parameters import Continue, FieldSelector, LabelSelector, Limit, ObjectName, ResourceVersion
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.wire import JSON
from podium.planning.quotas import quota_use
from podium.resources.errors import InvalidInput, Issue
from podium.resources.kinds import KINDS, AnyResource, Kind
from podium.resources.model import Quota, WorkspaceStatus
from podium.resources.shape import DEFAULT_WORKSPACE
from podium.store import Page, Read

App = Annotated[Services, Depends(services_of)]
_PAGE = 500
Responses = dict[int | str, dict[str, Any]]


def router() -> APIRouter:
    """Routes of all kinds."""
    routes = APIRouter()
    for kind in KINDS.values():
        if kind.name == "Workspace":
            _add_tenants(routes, kind)
        else:
            _add_kind(routes, kind)
    return routes


def _with_use(tx: Read, workspace: AnyResource) -> AnyResource:
    """With what is taken of its quota, if it has one of its own. Reckoned here and kept nowhere: it would have to be
    written again with every change of any of them."""
    if workspace.spec.quota == Quota():
        return workspace
    deployments, routes = (
        tx.list(kind, workspace=workspace.metadata.name).items for kind in ("Deployment", "Route")
    )
    return workspace.model_copy(update={"status": WorkspaceStatus(used=quota_use(deployments, routes))})


def _add_kind(routes: APIRouter, kind: Kind) -> None:
    _add_lists(routes, kind)
    _add_single(routes, kind)


def _add_lists(routes: APIRouter, kind: Kind) -> None:
    names, within = f"{kind.name}s", f"/workspaces/{{workspace}}/{kind.plural}"

    def list_everywhere(
        caller: Reader,
        services: App,
        labels: LabelSelector = None,
        fields: FieldSelector = None,
        limit: Limit = _PAGE,
        after: Continue = None,
    ) -> JSON:
        with services.store.read() as tx:
            return _page(_visible(tx, caller, kind, (labels, fields), limit, after))

    def list_here(
        caller: ReaderHere,
        services: App,
        workspace: WorkspaceName,
        labels: LabelSelector = None,
        fields: FieldSelector = None,
        limit: Limit = _PAGE,
        after: Continue = None,
    ) -> JSON:
        with services.store.read() as tx:
            return _page(
                tx.list(
                    kind.name, workspace=workspace, labels=labels, fields=fields, limit=limit, after=after
                )
            )

    listing: Responses = {200: answer(f"{kind.name}List")}
    routes.add_api_route(
        f"/{kind.plural}", list_everywhere, methods=["GET"], operation_id=f"listAll{names}",
        summary=f"{names} of all workspaces that the token covers", responses={**listing, **described(401, 403)},
        response_class=JSON, tags=[kind.name],
    )  # fmt: skip
    routes.add_api_route(
        within, list_here, methods=["GET"], operation_id=f"list{names}", summary=f"{names} of a workspace",
        responses={**listing, **described(401, 403)}, response_class=JSON, tags=[kind.name],
    )  # fmt: skip


def _add_single(routes: APIRouter, kind: Kind) -> None:
    place = f"/workspaces/{{workspace}}/{kind.plural}/{{name}}"

    def get_one(caller: ReaderHere, services: App, workspace: WorkspaceName, name: ObjectName) -> JSON:
        with services.store.read() as tx:
            return JSON(tx.get(kind.name, workspace, name).document())

    def delete_one(
        caller: WriterHere,
        services: App,
        workspace: WorkspaceName,
        name: ObjectName,
        resource_version: ResourceVersion = None,
    ) -> JSON:
        with services.store.write(caller.actor) as tx:
            result = delete(tx, caller, tx.get(kind.name, workspace, name), resource_version)
        return _deleted(result.removed, result.model_dump(mode="json", by_alias=True))

    routes.add_api_route(
        place, get_one, methods=["GET"], operation_id=f"get{kind.name}",
        summary=f"One {kind.name}. {kind.description}", responses={200: answer(kind.name), **described(401, 403, 404)},
        response_class=JSON, tags=[kind.name],
    )  # fmt: skip
    routes.add_api_route(
        place, delete_one, methods=["DELETE"], operation_id=f"delete{kind.name}",
        summary=f"Delete a {kind.name}", responses={**_DELETED, **described(401, 403, 404, 409)},
        response_class=JSON, tags=[kind.name],
    )  # fmt: skip


def _add_tenants(routes: APIRouter, kind: Kind) -> None:
    def list_workspaces(
        caller: Reader,
        services: App,
        labels: LabelSelector = None,
        fields: FieldSelector = None,
        limit: Limit = _PAGE,
        after: Continue = None,
    ) -> JSON:
        with services.store.read() as tx:
            page = tx.list(kind.name, labels=labels, fields=fields, limit=limit, after=after)
            seen = [_with_use(tx, item) for item in page.items if caller.may_enter(item.metadata.name)]
        return _page(page, seen)

    def get_workspace(caller: ReaderHere, services: App, workspace: WorkspaceName) -> JSON:
        with services.store.read() as tx:
            return JSON(_with_use(tx, tx.get(kind.name, DEFAULT_WORKSPACE, workspace)).document())

    def delete_workspace(
        caller: Writer, services: App, workspace: WorkspaceName, resource_version: ResourceVersion = None
    ) -> JSON:
        with services.store.write(caller.actor) as tx:
            caller.require("admin")
            result = delete(tx, caller, tx.get(kind.name, DEFAULT_WORKSPACE, workspace), resource_version)
        return _deleted(result.removed, result.model_dump(mode="json", by_alias=True))

    routes.add_api_route(
        "/workspaces", list_workspaces, methods=["GET"], operation_id="listWorkspaces",
        summary="Workspaces that the token covers", response_class=JSON, tags=[kind.name],
        responses={200: answer("WorkspaceList"), **described(401, 403)},
    )  # fmt: skip
    routes.add_api_route(
        "/workspaces/{workspace}", get_workspace, methods=["GET"], operation_id="getWorkspace",
        summary="One Workspace", response_class=JSON, tags=[kind.name],
        responses={200: answer("Workspace"), **described(401, 403, 404)},
    )  # fmt: skip
    routes.add_api_route(
        "/workspaces/{workspace}", delete_workspace, methods=["DELETE"], operation_id="deleteWorkspace",
        summary="Delete an empty Workspace", response_class=JSON, tags=[kind.name],
        responses={**_DELETED, **described(401, 403, 404, 409)},
    )  # fmt: skip


_DELETED: Responses = {
    200: answer("DeleteResult", "It is gone."),
    202: answer("DeleteResult", "It is marked, and goes when its finalizers are done."),
}


def _deleted(removed: bool, result: dict[str, Any]) -> JSON:
    return JSON(result, status_code=200 if removed else 202)


def _page(page: Page, items: list[AnyResource] | None = None) -> JSON:
    shown = page.items if items is None else items
    return JSON(
        {
            "items": [item.document() for item in shown],
            "continue": page.next,
            "version": page.version,
        }
    )


def _visible(
    tx: Read,
    caller: Caller,
    kind: Kind,
    selectors: tuple[str | None, str | None],
    limit: int,
    after: str | None,
) -> Page:
    """One page over all workspaces that the caller may enter, in the same order as over all there are."""
    labels, fields = selectors
    if caller.workspaces is None:
        return tx.list(kind.name, labels=labels, fields=fields, limit=limit, after=after)
    version, first, inner = _read_cursor(after) if after is not None else (tx.version, "", None)
    items: list[AnyResource] = []
    for workspace in sorted(name for name in caller.workspaces if name >= first):
        cursor = inner if workspace == first else None
        wanted = limit - len(items)
        if wanted == 0:
            return Page(items, f"{version}:{workspace}:", version)
        page = tx.list(
            kind.name, workspace=workspace, labels=labels, fields=fields, limit=wanted, after=cursor
        )
        items += page.items
        if page.next is not None:
            return Page(items, f"{version}:{workspace}:{page.next}", version)
    return Page(items, None, version)


def _read_cursor(cursor: str) -> tuple[int, str, str | None]:
    version, _, rest = cursor.partition(":")
    workspace, separator, inner = rest.partition(":")
    if not (version.isascii() and version.isdecimal() and len(version) < 19 and separator):
        raise InvalidInput(
            Issue("continue", "not a page token of this list"), next_step="list again from the start"
        )
    return int(version), workspace, inner or None
