"""The FastAPI application: routers, error handlers, request ids, counters, the watches' hub.

Called by `podium.app`, which serves it with uvicorn, and calls `end_watches` before it asks uvicorn to stop: uvicorn
waits for open answers, and a watch is one that never ends by itself.
"""

import contextlib
import functools
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, Depends, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from podium.api import openapi, problems
from podium.api.metrics import Metrics
from podium.api.parameters import only_known_parameters
from podium.api.routes import (
    apply,
    blobs,
    comparisons,
    deployments,
    gateway_reports,
    gateways,
    health,
    models,
    objects,
    profiles,
    records,
    route_test,
    tokens,
    traffic,
    watch,
)
from podium.api.services import Services
from podium.api.watching import WatchHub

PREFIX = "/api/v1"
_log = logging.getLogger("podium.api.access")
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def create_app(services: Services) -> FastAPI:
    """The application. It needs its lifespan to run (uvicorn does that): the hub of the watches starts there."""
    hub = WatchHub(services.store)
    metrics = Metrics(services.store, services.version, lambda: hub.watchers)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await hub.start()
        try:
            yield
        finally:
            await hub.stop()

    app = FastAPI(
        title="Podium",
        version=services.version,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        # A path with a slash too many is a 404, not a redirect to another host's idea of it.
        redirect_slashes=False,
    )
    app.state.services, app.state.hub, app.state.metrics = services, hub, metrics
    app.include_router(_api())
    app.include_router(health.router(), dependencies=[Depends(only_known_parameters)])
    problems.install(app)
    openapi.install(app)
    app.add_middleware(RequestContext, metrics=metrics)
    return app


@functools.cache
def _api() -> APIRouter:
    """All paths under the prefix. They find the services by the application that is asked, so that all applications of
    a process share them: they take most of the time that an application takes to make."""
    api = APIRouter(prefix=PREFIX, dependencies=[Depends(only_known_parameters)])
    # What is more than an object comes first: no object's name can hide it.
    for part in (
        apply,
        watch,
        deployments,
        route_test,
        models,
        profiles,
        records,
        blobs,
        tokens,
        gateway_reports,
        gateways,
        traffic,
        comparisons,
        objects,
    ):
        api.include_router(part.router())
    api.include_router(health.schemas())
    return api


def end_watches(app: FastAPI) -> None:
    """Ends all watches, from any thread; new ones are refused with 503."""
    app.state.hub.close()


class RequestContext:
    """Gives each request an id, answers with it, counts it and logs a line. Plain ASGI: streams pass untouched."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started, status, ended = time.perf_counter(), 500, None

        async def answer(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status, ended = message["status"], time.perf_counter()
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        self._metrics.running.inc()
        try:
            await self._app(scope, receive, answer)
        finally:
            self._metrics.running.dec()
            seconds = (ended or time.perf_counter()) - started
            # Only what we know goes into labels: a caller must not be able to make up new time series.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            route = _label(scope)
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(method, route).observe(seconds)
            _log.debug("%s %s %s %d %.1f ms", request_id, method, route, status, seconds * 1000)


def _label(scope: Scope) -> str:
    """The route's own path, for the counters; a router's routes know only their part of it."""
    path = str(getattr(scope.get("route"), "path", "none"))
    within = scope["path"].startswith(f"{PREFIX}/") and not path.startswith(PREFIX) and path != "none"
    return f"{PREFIX}{path}" if within else path


def _request_id(scope: Scope) -> str:
    """The caller's own id where it is harmless to log, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return str(given)
    return secrets.token_hex(8)
