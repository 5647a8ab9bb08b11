"""A model's versions and aliases: push, import, verify, alias. Reading and deleting them is `objects`."""

import datetime
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response, StreamingResponse

from podium.api.access import Caller, ViewerHere, WorkspaceName, WriterHere
from podium.api.openapi import PUSH_EXAMPLE, answer, body
from podium.api.parameters import Alias, ModelName, ObjectName
from podium.api.problems import described, problem_line, request_id
from podium.api.services import Services, services_of
from podium.api.threads import Threads
from podium.api.wire import JSON, encode, read_model
from podium.registry.verify import verify_version
from podium.resources.errors import NotFound
from podium.resources.kinds import Model
from podium.resources.requests import AliasRequest, ImportRequest, PushRequest
from podium.store import Write

App = Annotated[Services, Depends(services_of)]
_MODEL = "/workspaces/{workspace}/models/{name}"
_LINES = {
    "description": "One JSON object per line: progress any number of times, then the version, or a problem.",
    "content": {"application/x-ndjson": {"schema": {"type": "string"}, "example": PUSH_EXAMPLE}},
}


def router() -> APIRouter:
    """Everything under /models/{name} and /modelversions/{name} that is more than an object."""
    routes = APIRouter(tags=["Model"])
    _add_publishing(routes)
    _add_aliases(routes)
    _add_alias_history(routes)
    _add_verify(routes)
    return routes


def _add_publishing(routes: APIRouter) -> None:
    threads = Threads(16)

    async def wanted_push(request: Request, caller: WriterHere, services: App) -> PushRequest:
        return await read_model(request, PushRequest, services.settings.limits.push)

    async def wanted_import(request: Request, caller: WriterHere, services: App) -> ImportRequest:
        return await read_model(request, ImportRequest, services.settings.limits.document)

    responses = {200: _LINES, **described(401, 403, 404, 409, 413)}

    @routes.post(
        f"{_MODEL}/versions",
        operation_id="pushVersion",
        summary="A new version out of files that are blobs already; the same push again is the same version",
        response_class=StreamingResponse,
        openapi_extra=body("PushRequest"),
        responses=responses,
    )
    def push_version(
        request: Request,
        caller: WriterHere,
        wanted: Annotated[PushRequest, Depends(wanted_push)],
        services: App,
        workspace: WorkspaceName,
        name: ModelName,
    ) -> Response:
        _check(services, workspace)
        outcomes = services.publisher.push(workspace, name, wanted, caller.actor)
        return _lines(outcomes, request_id(request), threads)

    @routes.post(
        f"{_MODEL}/import",
        operation_id="importVersion",
        summary="A version of an MLflow registry, or the model of a run, as a version here",
        response_class=StreamingResponse,
        openapi_extra=body("ImportRequest"),
        responses=responses,
    )
    def import_version(
        request: Request,
        caller: WriterHere,
        wanted: Annotated[ImportRequest, Depends(wanted_import)],
        services: App,
        workspace: WorkspaceName,
        name: ModelName,
    ) -> Response:
        _check(services, workspace)
        outcomes = services.publisher.import_(workspace, name, wanted, caller.actor)
        return _lines(outcomes, request_id(request), threads)


def _check(services: Services, workspace: str) -> None:
    with services.store.read() as tx:
        if tx.find("Workspace", "default", workspace) is None:
            raise NotFound(f"there is no workspace {workspace}", next_step="podium get workspaces")


def _lines(outcomes: Iterator[dict[str, Any]], instance: str, threads: Threads) -> Response:
    """What fails before the first line gets a status of its own; what fails later is the last line."""
    first = next(outcomes, None)

    async def rest() -> AsyncIterator[bytes]:
        try:
            item = first
            while item is not None:
                yield encode(item) + b"\n"
                item = await threads.run(next, outcomes, None)
        except Exception as error:
            # The status is out: whatever it was, the client must learn of it as a line.
            yield encode({"problem": problem_line(error, instance)}) + b"\n"

    return StreamingResponse(rest(), media_type="application/x-ndjson")


def _add_aliases(routes: APIRouter) -> None:
    async def wanted_alias(request: Request, caller: WriterHere, services: App) -> AliasRequest:
        return await read_model(request, AliasRequest, services.settings.limits.document)

    @routes.put(
        f"{_MODEL}/aliases/{{alias}}",
        operation_id="setAlias",
        summary="Point an alias at a version; Deployments that serve by it roll out",
        response_class=JSON,
        openapi_extra=body("AliasRequest"),
        responses={200: answer("Model"), **described(401, 403, 404, 409, 413)},
    )
    def set_alias(
        caller: WriterHere,
        wanted: Annotated[AliasRequest, Depends(wanted_alias)],
        services: App,
        workspace: WorkspaceName,
        name: ModelName,
        alias: Alias,
    ) -> JSON:
        with services.store.write(caller.actor) as tx:
            after = tx.set_alias(workspace, name, alias, wanted.version)
            _wake_followers(tx, after, alias)
        return JSON(after.document())

    @routes.delete(
        f"{_MODEL}/aliases/{{alias}}",
        operation_id="removeAlias",
        summary="Take an alias away",
        response_class=JSON,
        responses={200: answer("Model"), **described(401, 403, 404, 409)},
    )
    def remove_alias(
        caller: WriterHere, services: App, workspace: WorkspaceName, name: ModelName, alias: Alias
    ) -> JSON:
        with services.store.write(caller.actor) as tx:
            after = tx.set_alias(workspace, name, alias, None)
            _wake_followers(tx, after, alias)
        return JSON(after.document())


def _add_alias_history(routes: APIRouter) -> None:
    @routes.get(
        f"{_MODEL}/aliases",
        operation_id="listAliasHistory",
        summary="Where each alias of a model has pointed, newest first",
        response_class=JSON,
        responses={200: answer("AliasHistory"), **described(401, 403, 404)},
    )
    def list_alias_history(
        caller: ViewerHere, services: App, workspace: WorkspaceName, name: ModelName
    ) -> JSON:
        with services.store.read() as tx:
            model = tx.get("Model", workspace, name)
            moves = tx.alias_history(workspace, name)
        history = [
            {
                "at": move.at,
                "alias": move.alias,
                "version": move.version,
                "previous": move.previous,
                "actor": move.actor,
                "commitVersion": move.commit_version,
            }
            for move in moves
        ]
        return JSON({"aliases": model.status.aliases, "history": history})


def _wake_followers(tx: Write, model: Model, alias: str) -> None:
    workspace, name = model.metadata.workspace, model.metadata.name
    fields = f"spec.model.name={name},spec.model.alias={alias}"
    for deployment in tx.list("Deployment", workspace=workspace, fields=fields).items:
        tx.wake(deployment.uid)


def _add_verify(routes: APIRouter) -> None:
    threads = Threads(2)

    @routes.post(
        "/workspaces/{workspace}/modelversions/{name}/verify",
        operation_id="verifyVersion",
        summary="Read every stored byte of a version and compare it with what was pushed",
        response_class=JSON,
        responses={200: answer("Verification"), **described(401, 403, 404)},
    )
    async def verify(caller: WriterHere, services: App, workspace: WorkspaceName, name: ObjectName) -> JSON:
        return JSON(await threads.run(_verify, caller, services, workspace, name))


def _verify(caller: Caller, services: Services, workspace: str, name: str) -> dict[str, Any]:
    with services.store.read() as tx:
        version = tx.get("ModelVersion", workspace, name)
    findings = verify_version(version.spec.manifest, services.blobs)
    # A storage that does not answer says nothing about the bytes.
    unknown = any(finding.problem == "unreadable" for finding in findings)
    intact = None if unknown else not findings
    update = {"verified_at": datetime.datetime.now(datetime.UTC), "intact": intact}
    with services.store.write(caller.actor) as tx:
        current = tx.get("ModelVersion", workspace, name)
        after = tx.set_status(current.uid, current.status.model_copy(update=update))
        words = "intact" if intact else "not all of it could be read" if unknown else "damaged"
        tx.audit("verify", after, f"{name}: {words}")
        if intact is False:
            tx.event(after, "Warning", "Damaged", f"{len(findings)} of its files are not what was pushed")
    found = [
        {"path": item.path, "sha256": item.sha256, "problem": item.problem, "message": item.message}
        for item in findings
    ]
    return {"intact": intact, "findings": found, "object": after.document()}
