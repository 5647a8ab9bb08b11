"""What gateway agents ask for and report. What people ask and do about gateways is `gateways`."""

import datetime
from collections import defaultdict
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from podium.api.access import Gateway
from podium.api.openapi import answer, body
from podium.api.problems import described
from podium.api.routes.gateways import GatewayName
from podium.api.services import Services, services_of
from podium.api.tokens import ISSUER
from podium.api.wire import JSON, read_model
from podium.planning.gateways import GatewayInstance
from podium.resources.errors import NotFound
from podium.resources.load import LoadReport
from podium.resources.requests import GatewayConfig, GatewayReceipt, GatewayReport, RetiringToken
from podium.resources.rollout import FINAL_PHASES
from podium.store import FORMER, INSTANCE, GatewayRow, LoadRow, RouteLoadRow, SampleRow

App = Annotated[Services, Depends(services_of)]
_UNFINISHED = f"status.phase notin ({','.join(sorted(FINAL_PHASES))})"


def router() -> APIRouter:
    """GET /gateway/config, PUT /gateways/{name}."""
    routes = APIRouter(tags=["Gateway"])
    _add_config(routes)
    _add_report(routes)
    return routes


def _add_config(routes: APIRouter) -> None:
    @routes.get(
        "/gateway/config",
        operation_id="getGatewayConfig",
        summary="What a gateway needs to check tokens by itself",
        response_class=JSON,
        responses={200: answer("GatewayConfig"), **described(401, 403)},
    )
    def get_config(caller: Gateway, services: App) -> JSON:
        with services.store.read() as tx:
            revoked, version = list(tx.revoked_tokens()), tx.version
            retiring = [RetiringToken(id=token, at=at) for token, at in tx.retiring_tokens()]
        config = GatewayConfig(
            jwks=services.tokens.jwks(),
            revoked=revoked,
            retiring=retiring,
            issuer=ISSUER,
            tokens_required=services.settings.tokens_required,
            version=version,
        )
        return JSON(config.model_dump(mode="json", by_alias=True))


def _add_report(routes: APIRouter) -> None:
    async def given_report(request: Request, caller: Gateway, services: App) -> GatewayReport:
        return await read_model(request, GatewayReport, services.settings.limits.report)

    @routes.put(
        "/gateways/{name}",
        operation_id="reportGateway",
        summary="What a gateway has loaded, what Envoy refused, and what it counted",
        response_class=JSON,
        openapi_extra=body("GatewayReport"),
        responses={200: answer("GatewayReceipt"), **described(401, 403, 409, 413)},
    )
    def report(
        caller: Gateway,
        given: Annotated[GatewayReport, Depends(given_report)],
        services: App,
        name: GatewayName,
    ) -> JSON:
        rejected = [item.model_dump(mode="json", by_alias=True) for item in given.rejected]
        now = datetime.datetime.now(datetime.UTC)
        # Nobody can have loaded what is not committed: this gateway still speaks of a database that was since restored
        # from an older copy, where the same numbers will come again for something else.
        ahead = given.observed_version > services.store.current_version()
        observed = 0 if ahead else given.observed_version
        said = given.instance
        instance = None if said is None else GatewayInstance(said.home, said.start, said.host, said.pid)
        # Who it is, is not for that part of the report to say.
        envoy = {key: value for key, value in given.envoy.items() if key not in (INSTANCE, FORMER)}
        services.store.report_gateway(GatewayRow(name, now, observed, rejected, envoy), instance)
        if given.load is not None:
            at, load = now.timestamp(), given.load
            services.store.record_load(name, at, _load_rows(name, load, at), _route_rows(name, load, at))
        kept, concerned = _keep(services, name, given)
        concerned |= _awakened(services, given.load)
        if given.leaving:
            services.store.gateway_left(name, caller.actor)
        concerned |= _waiting(services, None if given.leaving else observed)
        if concerned:
            services.store.wake(*sorted(concerned))
        receipt = GatewayReceipt(samples=kept, version=services.store.current_version())
        return JSON(receipt.model_dump(mode="json", by_alias=True))


def _load_rows(gateway: str, load: LoadReport, now: float) -> list[LoadRow]:
    """By the server's own clock: gateways on other machines may have another idea of the time."""
    return [
        LoadRow(
            at=now - one.age,
            gateway=gateway,
            epoch=load.epoch,
            workspace=one.workspace,
            deployment=one.deployment,
            revision=one.revision,
            role=one.role,
            requests=one.requests,
            errors=one.errors,
            refused=one.refused,
            active=one.active,
            time_ms=one.time_ms,
            buckets=one.buckets,
        )
        for one in load.clusters
    ]


def _route_rows(gateway: str, load: LoadReport, now: float) -> list[RouteLoadRow]:
    return [
        RouteLoadRow(
            at=now - one.age,
            gateway=gateway,
            epoch=load.epoch,
            workspace=one.workspace,
            route=one.route,
            requests=one.requests,
            errors=one.errors,
            refused=one.refused,
            limited=one.limited,
        )
        for one in load.routes
    ]


def _awakened(services: Services, load: LoadReport | None) -> set[str]:
    """The Deployments that scale and have requests again after a while without: their autoscaler looks rarely then."""
    names = {(one.workspace, one.deployment) for one in load.clusters if one.age > 0} if load else set()
    if not names:
        return set()
    with services.store.read() as tx:
        found = [tx.find("Deployment", *name) for name in names]
    return {one.uid for one in found if one is not None and one.spec.scaling is not None}


def _keep(services: Services, gateway: str, given: GatewayReport) -> tuple[int, set[str]]:
    """How many samples were new, and the rollouts that they are of."""
    grouped: dict[str, list[SampleRow]] = defaultdict(list)
    for item in given.samples:
        row = SampleRow(
            rollout_uid=item.rollout_uid,
            at=item.at,
            gateway=gateway,
            epoch=item.epoch,
            weight_bp=item.weight_bp,
            stable=item.stable,
            candidate=item.candidate,
        )
        grouped[item.rollout_uid].append(row)
    kept, concerned = 0, set()
    for uid, rows in grouped.items():
        try:
            new = services.store.append_samples(uid, rows)
        except NotFound:
            # The rollout went while the gateway was counting for it.
            continue
        kept += new
        if new:
            concerned.add(uid)
    return kept, concerned


def _waiting(services: Services, observed: int | None) -> set[str]:
    """The rollouts that wait for just this: a gateway that has loaded their weight, or refused something. None: for one
    that is gone."""
    with services.store.read() as tx:
        rollouts = tx.list("Rollout", fields=_UNFINISHED).items
    return {
        item.uid
        for item in rollouts
        if not item.status.loaded and (observed is None or item.status.weight_version <= observed)
    }
