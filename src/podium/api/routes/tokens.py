"""Issue, list, rotate and revoke tokens; an admin's business."""

import datetime
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from podium.api.access import Admin
from podium.api.openapi import answer, body
from podium.api.parameters import TokenId
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.tokens import ALL_WORKSPACES, VERBS, Role, Scope
from podium.api.wire import JSON, read_model
from podium.resources.errors import InvalidInput, Issue, Refused
from podium.resources.requests import IssuedToken, RotateRequest, TokenInfo, TokenRequest
from podium.resources.shape import DEFAULT_WORKSPACE
from podium.store import Read, TokenRow

App = Annotated[Services, Depends(services_of)]
_SERVED = ("Deployment", "Route")
"""Kinds whose names stand in paths at a gateway."""
_MOST_NAMES = 100
_BOOTSTRAP = "bootstrap"


def router() -> APIRouter:
    """POST and GET /tokens, GET and DELETE /tokens/{id}, POST /tokens/{id}/rotate."""
    routes = APIRouter(tags=["Token"])
    _add_create(routes)
    _add_rotate(routes)
    _add_records(routes)
    return routes


def _add_create(routes: APIRouter) -> None:
    async def wanted_token(request: Request, caller: Admin, services: App) -> TokenRequest:
        return await read_model(request, TokenRequest, services.settings.limits.document)

    @routes.post(
        "/tokens",
        operation_id="createToken",
        summary="A new token, which is shown this once",
        response_class=JSON,
        openapi_extra=body("TokenRequest"),
        responses={201: answer("IssuedToken", "Made."), **described(401, 403, 413)},
    )
    def create_token(
        caller: Admin, wanted: Annotated[TokenRequest, Depends(wanted_token)], services: App
    ) -> JSON:
        with services.store.write(caller.actor) as tx:
            workspaces = _workspaces(tx, wanted)
            lifetime = datetime.timedelta(seconds=wanted.lifetime)
            deployments, verbs = _scope(tx, wanted, workspaces)
            like = TokenRow(
                id="", name=wanted.subject, role=wanted.role, workspaces=list(workspaces), created_at=tx.now,
                created_by=caller.name, deployments=deployments, verbs=verbs,
                claims=_claims(wanted),
            )  # fmt: skip
            token, row = _issue(services, like, lifetime, tx.now)
            tx.add_token(row)
        return _issued(token, row)


def _add_rotate(routes: APIRouter) -> None:
    async def wanted_rotation(request: Request, caller: Admin, services: App) -> RotateRequest:
        return await read_model(request, RotateRequest, services.settings.limits.document)

    @routes.post(
        "/tokens/{token_id}/rotate",
        operation_id="rotateToken",
        summary="A new token with the same rights and lifetime; the old one ends after the overlap, by itself",
        response_class=JSON,
        openapi_extra=body("RotateRequest", required=False),
        responses={201: answer("IssuedToken", "Made."), **described(401, 403, 404, 409, 413)},
    )
    def rotate_token(
        caller: Admin,
        wanted: Annotated[RotateRequest, Depends(wanted_rotation)],
        services: App,
        token_id: TokenId,
    ) -> JSON:
        with services.store.write(caller.actor) as tx:
            old = tx.token(token_id)
            if old.created_by == _BOOTSTRAP or old.expires_at is None:
                raise Refused(
                    f"the token {old.id} is the server's own: it stands in a file that the server keeps",
                    next_step="podium token create makes one that can be rotated",
                )
            like = replace(old, created_by=caller.name, rotated_from=old.id, rotated_to=None, retires_at=None)
            token, row = _issue(services, like, old.expires_at - old.created_at, tx.now)
            ends = min(old.expires_at, tx.now + datetime.timedelta(seconds=wanted.overlap))
            tx.rotate_token(row, ends)
        return _issued(token, row)


def _add_records(routes: APIRouter) -> None:
    @routes.get(
        "/tokens",
        operation_id="listTokens",
        summary="The tokens that were given out, newest first, without the tokens themselves",
        response_class=JSON,
        responses={200: answer("TokenList"), **described(401, 403)},
    )
    def list_tokens(caller: Admin, services: App) -> JSON:
        with services.store.read() as tx:
            rows = tx.tokens()
        return JSON({"items": [_info(row).model_dump(mode="json", by_alias=True) for row in rows]})

    @routes.delete(
        "/tokens/{token_id}",
        operation_id="revokeToken",
        summary="Refuse a token from now on, here and at every gateway",
        response_class=JSON,
        responses={200: answer("TokenInfo"), **described(401, 403, 404)},
    )
    def revoke_token(caller: Admin, services: App, token_id: TokenId) -> JSON:
        with services.store.write(caller.actor) as tx:
            row = tx.revoke_token(token_id)
        return JSON(_info(row).model_dump(mode="json", by_alias=True))

    @routes.get(
        "/tokens/{token_id}",
        operation_id="getToken",
        summary="One token on record, without the token itself",
        response_class=JSON,
        responses={200: answer("TokenInfo"), **described(401, 403, 404)},
    )
    def get_token(caller: Admin, services: App, token_id: TokenId) -> JSON:
        with services.store.read() as tx:
            row = tx.token(token_id)
        return JSON(_info(row).model_dump(mode="json", by_alias=True))


def _issue(
    services: Services, like: TokenRow, lifetime: datetime.timedelta, now: datetime.datetime
) -> tuple[str, TokenRow]:
    """A token for what the row says, and the row as it is to be kept."""
    scope = None if like.deployments is None else Scope(tuple(like.deployments), tuple(like.verbs or ()))
    role: Role = like.role  # type: ignore[assignment]  # the request's own choices, or those of one before
    token, claims = services.tokens.issue(
        like.name, role, tuple(like.workspaces), lifetime, now, scope, like.claims
    )
    row = replace(like, id=claims.id, created_at=claims.issued_at, expires_at=claims.expires_at)
    return token, row


def _issued(token: str, row: TokenRow) -> JSON:
    issued = IssuedToken(token=token, info=_info(row))
    return JSON(issued.model_dump(mode="json", by_alias=True), status_code=201)


def _workspaces(tx: Read, wanted: TokenRequest) -> tuple[str, ...]:
    if wanted.role in ("admin", "gateway"):
        if wanted.workspaces not in ([ALL_WORKSPACES], [DEFAULT_WORKSPACE]):
            raise InvalidInput(
                Issue("workspaces", f"the role {wanted.role} is for all of them: leave this out")
            )
        return (ALL_WORKSPACES,)
    if ALL_WORKSPACES in wanted.workspaces:
        if len(wanted.workspaces) > 1:
            raise InvalidInput(Issue("workspaces", "expected names, or * alone"))
        return (ALL_WORKSPACES,)
    for index, name in enumerate(wanted.workspaces):
        if tx.find("Workspace", DEFAULT_WORKSPACE, name) is None:
            raise InvalidInput(Issue(f"workspaces[{index}]", f"there is no workspace {name}"))
    return tuple(dict.fromkeys(wanted.workspaces))


def _scope(
    tx: Read, wanted: TokenRequest, workspaces: tuple[str, ...]
) -> tuple[list[str] | None, list[str] | None]:
    """Deployments and verbs of the row. Raises InvalidInput naming what does not fit."""
    if wanted.deployments is None and wanted.verbs is None:
        return None, None
    if wanted.role != "predict":
        field = "verbs" if wanted.deployments is None else "deployments"
        words = f"only for the role predict; what the role {wanted.role} may do goes by workspace"
        raise InvalidInput(Issue(field, words))
    verbs = [verb for verb in VERBS if verb in (wanted.verbs or VERBS)]
    everywhere = workspaces == (ALL_WORKSPACES,)
    if wanted.deployments is None:
        return ["*"] if everywhere else [f"{name}/*" for name in workspaces], verbs
    names: list[str] = []
    for index, given in enumerate(wanted.deployments):
        workspace, _, name = given.rpartition("/")
        try:
            names += _named(tx, name, [workspace] if workspace else list(workspaces), workspaces)
        except ValueError as error:
            raise InvalidInput(Issue(f"deployments[{index}]", str(error))) from None
    names = list(dict.fromkeys(names))
    if len(names) > _MOST_NAMES:
        raise InvalidInput(Issue("deployments", f"expected at most {_MOST_NAMES} in all, got {len(names)}"))
    return names, verbs


def _named(tx: Read, name: str, places: list[str], workspaces: tuple[str, ...]) -> list[str]:
    """Where something of this name is served, as WORKSPACE/NAME. A name that is not there is a typing error sooner
    than a wish for later, and would be whoever's takes the name next. Raises ValueError."""
    if places == [ALL_WORKSPACES]:
        raise ValueError(f"the token is for all workspaces: say WORKSPACE/{name}")
    if workspaces != (ALL_WORKSPACES,) and not set(places) <= set(workspaces):
        raise ValueError(f"workspace {places[0]} is none of the token's: {', '.join(workspaces)}")
    found = [place for place in places if any(tx.find(kind, place, name) for kind in _SERVED)]
    if not found:
        raise ValueError(f"there is no deployment or route {name} in {', '.join(places)}")
    return [f"{place}/{name}" for place in found]


def _claims(wanted: TokenRequest) -> dict[str, str] | None:
    if wanted.claims and wanted.role == "gateway":
        raise InvalidInput(Issue("claims", "not for the role gateway: its token never comes by a Route"))
    return wanted.claims or None


def _info(row: TokenRow) -> TokenInfo:
    return TokenInfo(
        id=row.id,
        subject=row.name,
        role=row.role,
        workspaces=row.workspaces,
        issued_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        deployments=row.deployments,
        verbs=row.verbs,
        claims=row.claims or {},
        retires_at=row.retires_at,
        rotated_from=row.rotated_from,
        rotated_to=row.rotated_to,
    )
