"""How fast a version is and what it needs: measure one replica, read the newest result."""

from collections.abc import AsyncGenerator, Generator
from typing import Annotated, Any

from anyio import CancelScope
from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from podium.api.access import Caller, ViewerHere, WorkspaceName, WriterHere
from podium.api.openapi import PROFILE_EXAMPLE, answer, body
from podium.api.parameters import ModelName
from podium.api.problems import described, problem_line, request_id
from podium.api.services import Services, services_of
from podium.api.threads import Threads
from podium.api.wire import JSON, encode, read_model
from podium.resources.errors import NotFound
from podium.resources.profile import ProfileRequest

App = Annotated[Services, Depends(services_of)]
VersionNumber = Annotated[
    str, Path(pattern="^[1-9][0-9]{0,8}$", description="A version's number.", examples=["3"])
]
_PATH = "/workspaces/{workspace}/models/{name}/versions/{version}/profile"
_LINES = {
    "description": "One JSON object per line: progress at least once a second, then the version, or a problem.",
    "content": {"application/x-ndjson": {"schema": {"type": "string"}, "example": PROFILE_EXAMPLE}},
}


def router() -> APIRouter:
    """POST and GET of a version's profile."""
    routes = APIRouter(tags=["ModelVersion"])
    threads = Threads(4)

    async def wanted_profile(request: Request, caller: WriterHere, services: App) -> ProfileRequest:
        return await read_model(request, ProfileRequest, services.settings.limits.push)

    @routes.post(
        _PATH,
        operation_id="profileVersion",
        summary="Measure latency, throughput and memory of one replica, and keep the result; ends with the connection",
        response_class=StreamingResponse,
        openapi_extra=body("ProfileRequest", required=False),
        responses={200: _LINES, **described(401, 403, 404, 409, 413)},
    )
    async def profile_version(
        request: Request,
        caller: WriterHere,
        wanted: Annotated[ProfileRequest, Depends(wanted_profile)],
        services: App,
        workspace: WorkspaceName,
        name: ModelName,
        version: VersionNumber,
    ) -> Response:
        outcomes = services.profiler.profile(workspace, f"{name}.{version}", wanted, caller.actor)
        # What fails before the first line gets a status of its own; what fails later is the last line.
        first = await threads.run(next, outcomes, None)
        return _Lines(_lines(first, outcomes, request_id(request), threads))

    @routes.get(
        _PATH,
        operation_id="getProfile",
        summary="The newest profile of a version",
        response_class=JSON,
        responses={200: answer("Profile"), **described(401, 403, 404)},
    )
    def get_profile(
        caller: ViewerHere, services: App, workspace: WorkspaceName, name: ModelName, version: VersionNumber
    ) -> JSON:
        return JSON(_kept(caller, services, workspace, name, version))

    return routes


def _kept(caller: Caller, services: Services, workspace: str, name: str, version: str) -> dict[str, Any]:
    with services.store.read() as tx:
        found = tx.get("ModelVersion", workspace, f"{name}.{version}")
    if found.status.profile is None:
        raise NotFound(
            f"{name} version {version} has not been measured yet",
            next_step=f"podium model profile {name}:{version}",
        )
    document: dict[str, Any] = found.document()["status"]["profile"]
    return document


async def _lines(
    first: Any, outcomes: Generator[dict[str, Any], None, None], instance: str, threads: Threads
) -> AsyncGenerator[bytes, None]:
    try:
        item = first
        while item is not None:
            yield encode(item) + b"\n"
            item = await threads.run(next, outcomes, None)
    except Exception as error:
        # The status is out: whatever it was, the client must learn of it as a line.
        yield encode({"problem": problem_line(error, instance)}) + b"\n"
    finally:
        # Whoever asked may be gone: nothing is measured for nobody.
        with CancelScope(shield=True):
            await threads.run(outcomes.close)


class _Lines(StreamingResponse):
    """Ends what makes its lines, also when the connection ends first."""

    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._made_by = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await self._made_by.aclose()
