"""Who calls, and whether they may: FastAPI dependencies that routes name; nothing is decided by a request's path text.

    admin    everything
    edit     writes within its workspaces, and what view may
    view     reads within its workspaces
    predict  nothing here: it is for the gateway, where it may have a scope (deployments, verbs)
    gateway  an agent's: reads objects and watches in all workspaces, gets its configuration, reports

What lies in a workspace that the token does not cover is refused with 403 whether it exists or not.
"""

import datetime
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.security.utils import get_authorization_scheme_param

from podium.api.problems import request_id
from podium.api.services import Services, services_of
from podium.api.tokens import ALL_WORKSPACES, HOW_TO_GET_ONE
from podium.resources.errors import Forbidden, NotFound, Unauthenticated
from podium.resources.shape import NAME_RULE
from podium.store import Actor

_MAX_TOKEN = 16_384
WorkspaceName = Annotated[
    str,
    Path(
        pattern="^[a-z]([-a-z0-9]{0,51}[a-z0-9])?$",
        description=f"A workspace: {NAME_RULE}.",
        examples=["default"],
    ),
]


@dataclass(frozen=True)
class Caller:
    """A checked token. `workspaces` None means all of them."""

    name: str
    role: str
    workspaces: frozenset[str] | None
    token_id: str
    expires_at: float
    """Seconds since 1970."""
    request_id: str

    @property
    def actor(self) -> Actor:
        """For the audit."""
        return Actor(self.name, "user", self.request_id)

    def may_enter(self, workspace: str) -> bool:
        """Whether objects of that workspace are this token's business."""
        return self.workspaces is None or workspace in self.workspaces

    def enter(self, workspace: str) -> None:
        """Raises Forbidden where `may_enter` says no."""
        if not self.may_enter(workspace):
            known = ", ".join(sorted(self.workspaces or ()))
            raise Forbidden(
                f"the token of {self.name} does not cover workspace {workspace}; it covers: {known}",
                next_step="use one of those workspaces, or ask an admin for a token",
            )

    def require(self, *roles: str) -> None:
        """Raises Forbidden unless the token has one of these roles."""
        if self.role not in roles:
            raise Forbidden(
                f"this needs the role {' or '.join(roles)}; the token of {self.name} has the role {self.role}",
                next_step="ask an admin for a token with that role",
            )


def bearer_token(request: Request) -> str:
    """The token of the Authorization header. Raises Unauthenticated."""
    given = request.headers.getlist("authorization")
    scheme, token = get_authorization_scheme_param(given[0] if len(given) == 1 else None)
    if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN:
        raise Unauthenticated(
            "expected one header `Authorization: Bearer <token>`",
            next_step=f"PODIUM_TOKEN, or the admin.token file in PODIUM_HOME; else {HOW_TO_GET_ONE}",
        )
    return token


def caller_of(request: Request, services: Annotated[Services, Depends(services_of)]) -> Caller:
    """The caller, whatever the role. Raises Unauthenticated for a token that is bad, unknown here or revoked."""
    claims = services.tokens.verify(bearer_token(request))
    try:
        with services.store.read() as tx:
            row = tx.token(claims.id)
    except NotFound:
        # It could be neither listed nor revoked, so it is not taken, however well it is signed.
        raise Unauthenticated("the token is not on record here", next_step=HOW_TO_GET_ONE) from None
    if row.revoked_at is not None:
        raise Unauthenticated("the token was revoked", next_step=HOW_TO_GET_ONE)
    if row.is_retired(datetime.datetime.now(datetime.UTC)):
        raise Unauthenticated(
            "the token was rotated, and its time is over", next_step="use the token that took its place"
        )
    everywhere = claims.role in ("admin", "gateway") or ALL_WORKSPACES in claims.workspaces
    return Caller(
        name=claims.subject,
        role=claims.role,
        workspaces=None if everywhere else frozenset(claims.workspaces),
        token_id=claims.id,
        expires_at=claims.expires_at.timestamp(),
        request_id=request_id(request),
    )


def _having(*roles: str) -> Callable[..., Awaitable[Caller]]:
    async def dependency(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        caller.require(*roles)
        return caller

    return dependency


def _within(role: Callable[..., Awaitable[Caller]]) -> Callable[..., Awaitable[Caller]]:
    async def dependency(caller: Annotated[Caller, Depends(role)], workspace: WorkspaceName) -> Caller:
        caller.enter(workspace)
        return caller

    return dependency


_reads = _having("view", "edit", "admin", "gateway")
_reads_as_person = _having("view", "edit", "admin")
_writes = _having("edit", "admin")

Reader = Annotated[Caller, Depends(_reads)]
"""May read objects and watch; what of it is the route's to filter by `may_enter`."""
Viewer = Annotated[Caller, Depends(_reads_as_person)]
Writer = Annotated[Caller, Depends(_writes)]
Admin = Annotated[Caller, Depends(_having("admin"))]
Gateway = Annotated[Caller, Depends(_having("gateway", "admin"))]
ReaderHere = Annotated[Caller, Depends(_within(_reads))]
"""As Reader, and the path's workspace is one of the token's."""
ViewerHere = Annotated[Caller, Depends(_within(_reads_as_person))]
WriterHere = Annotated[Caller, Depends(_within(_writes))]
