"""Is it alive, is it ready, what does it count, what do its documents look like. No token is needed for any of it:
nothing here tells more than that a server runs, and how much it has to do."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response

from podium.api.metrics import CONTENT_TYPE, Metrics
from podium.api.openapi import answer
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.wire import JSON
from podium.resources.errors import NotFound, Unavailable
from podium.resources.kinds import KINDS, json_schema, kind_of

App = Annotated[Services, Depends(services_of)]
KindName = Annotated[str, Path(pattern="^[A-Za-z]{1,60}$", description="A kind, as `Deployment`.")]


def router() -> APIRouter:
    """GET /healthz, /readyz, /metrics: outside of /api/v1."""
    routes = APIRouter(tags=["Health"])

    @routes.get(
        "/healthz",
        operation_id="isAlive",
        summary="200 as long as the process answers",
        response_class=JSON,
        responses={200: answer("Health"), **described()},
    )
    async def is_alive(services: App) -> JSON:
        return JSON({"status": "ok", "version": services.version})

    @routes.get(
        "/readyz",
        operation_id="isReady",
        summary="200 when the database answers and its tables are there",
        response_class=JSON,
        responses={200: answer("Readiness"), **described()},
    )
    def is_ready(services: App) -> JSON:
        schema = services.store.schema_version()
        if not schema:
            raise Unavailable(
                "the database has no tables yet", next_step="podium up (or podium server) makes them"
            )
        return JSON(
            {
                "status": "ok",
                "version": services.version,
                "schema": schema,
                "resourceVersion": services.store.current_version(),
            }
        )

    @routes.get(
        "/metrics",
        operation_id="getMetrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses={
            200: {"description": "Text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **described(),
        },
    )
    def get_metrics(request: Request) -> Response:
        metrics: Metrics = request.app.state.metrics
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})

    return routes


def schemas() -> APIRouter:
    """GET /schemas and /schemas/{kind}: inside of /api/v1."""
    routes = APIRouter(tags=["Schema"])

    @routes.get(
        "/schemas",
        operation_id="listSchemas",
        summary="The kinds that there are",
        response_class=JSON,
        responses={200: answer("KindList"), **described()},
    )
    async def list_schemas() -> JSON:
        items = [
            {"kind": kind.name, "plural": kind.plural, "short": kind.short, "applied": kind.applied,
             "description": kind.description}
            for kind in KINDS.values()
        ]  # fmt: skip
        return JSON({"items": items})

    @routes.get(
        "/schemas/{kind}",
        operation_id="getSchema",
        summary="The JSON Schema (2020-12) of a kind",
        response_class=JSON,
        responses={200: answer("JsonSchema"), **described(404)},
    )
    def get_schema(kind: KindName) -> JSON:
        known = {name for entry in KINDS.values() for name in (entry.name.lower(), entry.plural, entry.short)}
        if kind.lower() not in known:
            raise NotFound(f"there is no kind {kind[:60]}; known: {', '.join(KINDS)}")
        return JSON(json_schema(kind_of(kind)))

    return routes
