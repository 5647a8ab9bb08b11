"""Server-sent events about every committed change."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from podium.api.access import Caller, Reader
from podium.api.openapi import WATCH_EXAMPLE
from podium.api.parameters import MAX_VERSION, Kinds, WorkspaceFilter
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.watching import Interest, WatchHub, read_batch
from podium.resources.errors import PodiumError, Unavailable

App = Annotated[Services, Depends(services_of)]
After = Annotated[
    int | None,
    Query(
        ge=0,
        le=MAX_VERSION,
        description="Everything that was committed after this version; left out: from now on.",
    ),
]


def router() -> APIRouter:
    """GET /watch."""
    routes = APIRouter(tags=["Watch"])

    @routes.get(
        "/watch",
        operation_id="watch",
        summary="Every change from a version on, as server-sent events, and bookmarks that say how far it got",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "ADDED, MODIFIED, DELETED and BOOKMARK events; `id` is where to go on from.",
                "content": {"text/event-stream": {"schema": {"type": "string"}, "example": WATCH_EXAMPLE}},
            },
            **described(401, 403, 410),
        },
    )
    async def watch(
        request: Request,
        caller: Reader,
        services: App,
        kinds: Kinds = None,
        workspace: WorkspaceFilter = None,
        after: After = None,
    ) -> StreamingResponse:
        wanted = frozenset(kinds.split(",")) if kinds else None
        if workspace is not None:
            caller.enter(workspace)
        hub: WatchHub = request.app.state.hub
        if hub.closed:
            raise Unavailable("the server is shutting down", next_step="try again in a moment")
        if after is None:
            after = await run_in_threadpool(services.store.current_version)
        first = await run_in_threadpool(read_batch, services.store, after)
        frames = hub.frames(
            Interest(wanted, workspace, caller.may_enter),
            first,
            heartbeat=services.settings.watch_heartbeat,
            still_allowed=lambda: _still_allowed(services, caller),
        )
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(frames, media_type="text/event-stream", headers=headers)

    return routes


def _still_allowed(services: Services, caller: Caller) -> bool:
    """A watch does not outlive its token."""
    if time.time() >= caller.expires_at:
        return False
    try:
        with services.store.read() as tx:
            row = tx.token(caller.token_id)
            return row.revoked_at is None and not row.is_retired(tx.now)
    except PodiumError:
        return False
