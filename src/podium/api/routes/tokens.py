"""Issue, list and revoke tokens; an admin's business."""

import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from podium.api.access import Admin
from podium.api.openapi import answer, body
from podium.api.parameters import TokenId
from podium.api.problems import described
from podium.api.services import Services, services_of
from podium.api.tokens import ALL_WORKSPACES
from podium.api.wire import JSON, read_model
from podium.resources.errors import InvalidInput, Issue
from podium.resources.requests import IssuedToken, TokenInfo, TokenRequest
from podium.resources.shape import DEFAULT_WORKSPACE
from podium.store import Read, TokenRow

App = Annotated[Services, Depends(services_of)]


def router() -> APIRouter:
    """POST and GET /tokens, DELETE /tokens/{id}."""
    routes = APIRouter(tags=["Token"])

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
            token, claims = services.tokens.issue(wanted.subject, wanted.role, workspaces, lifetime, tx.now)
            row = TokenRow(
                id=claims.id,
                name=claims.subject,
                role=claims.role,
                workspaces=list(workspaces),
                created_at=claims.issued_at,
                created_by=caller.name,
                expires_at=claims.expires_at,
            )
            tx.add_token(row)
        issued = IssuedToken(token=token, info=_info(row))
        return JSON(issued.model_dump(mode="json", by_alias=True), status_code=201)

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

    return routes


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


def _info(row: TokenRow) -> TokenInfo:
    return TokenInfo(
        id=row.id,
        subject=row.name,
        role=row.role,
        workspaces=row.workspaces,
        issued_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
