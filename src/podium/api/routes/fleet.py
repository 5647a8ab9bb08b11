"""What a person does about gateways. What agents ask for and report is `gateways`."""

import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from podium.api.access import Admin
from podium.api.openapi import answer
from podium.api.problems import described
from podium.api.routes.gateways import GatewayName
from podium.api.services import Services, services_of
from podium.api.wire import JSON
from podium.planning.gateways import SILENT_LIMIT
from podium.resources.errors import NotFound, Refused

App = Annotated[Services, Depends(services_of)]
Force = Annotated[bool, Query(description="Also one that still reports: until its next report.")]
_EVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_SHOWN = 20


def router() -> APIRouter:
    """DELETE /gateways/{name}."""
    routes = APIRouter(tags=["Gateway"])

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

    return routes
