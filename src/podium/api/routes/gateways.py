"""What people ask and do about gateways. What the agents ask for and report is `gateway_reports`."""

import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query

from podium.api.access import Admin, Viewer
from podium.api.openapi import answer
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.wire import JSON
from podium.planning.gateways import SILENT_LIMIT
from podium.resources.errors import NotFound, Refused
from podium.store import FORMER, INSTANCE, GatewayRow

App = Annotated[Services, Depends(services_of)]
GatewayName = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,118}[A-Za-z0-9])?$", description="One name per agent.")
]
Since = Annotated[
    int, Query(ge=1, le=30 * 86400, description="Seconds: only those that reported since then.")
]
Force = Annotated[bool, Query(description="Also one that still reports: until its next report.")]
_EVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_SHOWN = 20


def router() -> APIRouter:
    """GET /gateways, DELETE /gateways/{name}."""
    routes = APIRouter(tags=["Gateway"])
    _add_list(routes)
    _add_forget(routes)
    return routes


def _add_list(routes: APIRouter) -> None:
    @routes.get(
        "/gateways",
        operation_id="listGateways",
        summary="The gateways that reported lately",
        response_class=JSON,
        responses={200: answer("GatewayList"), **described(401, 403)},
    )
    def list_gateways(caller: Viewer, services: App, since: Since = 600) -> JSON:
        after = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=since)
        return JSON(
            {"items": [_shown(row, caller.may_enter) for row in services.store.gateways(since=after)]}
        )


def _add_forget(routes: APIRouter) -> None:
    @routes.delete(
        "/gateways/{name}",
        operation_id="forgetGateway",
        summary="Wait no longer for a gateway that is gone",
        response_class=JSON,
        responses={200: answer("ForgottenGateway"), **described(401, 403, 404, 409)},
    )
    def forget(caller: Admin, services: App, name: GatewayName, force: Force = False) -> JSON:
        known = {row.name: row for row in services.store.gateways(since=_EVER)}
        if name not in known:
            names = ", ".join(list(known)[:_SHOWN]) or "none"
            raise NotFound(
                f"there is no gateway {name}; known: {names}", next_step="podium gateway list --all"
            )
        silent = datetime.datetime.now(datetime.UTC) - known[name].seen_at
        if silent <= SILENT_LIMIT and not force:
            raise Refused(
                f"gateway {name} reported {max(0.0, silent.total_seconds()):.0f} s ago: it is not gone",
                next_step="stop it first; it would be known again with its next report",
            )
        services.store.forget_gateway(name, caller.actor)
        row = known[name]
        return JSON({"name": name, "seenAt": row.seen_at, "observedVersion": row.observed_version})


def _shown(row: GatewayRow, may_enter: Any) -> dict[str, Any]:
    instance = row.detail.get(INSTANCE)
    return {
        "name": row.name,
        "seenAt": row.seen_at,
        "observedVersion": row.observed_version,
        "rejected": [item for item in row.rejected if may_enter(str(item.get("workspace", "")))],
        "envoy": {name: value for name, value in row.detail.items() if name not in (INSTANCE, FORMER)},
        "instance": instance,
    }
