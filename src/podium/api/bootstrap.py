"""What must be there before anybody can do anything: the workspace `default`, the signing key, the first tokens.

Called by `podium.app` at each start, after the migration; it changes nothing where all is there.
"""

import datetime
from pathlib import Path

from podium.api.tokens import (
    ALL_WORKSPACES,
    Role,
    TokenAuthority,
    check_private,
    load_or_create,
)
from podium.resources.durable import replace_file
from podium.resources.errors import AlreadyExists, NotFound, Unauthenticated
from podium.resources.kinds import KINDS
from podium.resources.shape import DEFAULT_WORKSPACE, Metadata, Resource
from podium.store import Actor, Store, TokenRow

_LIFETIME = datetime.timedelta(days=365)
_RENEW_BEFORE = datetime.timedelta(days=30)


def bootstrap(
    store: Store, *, key_file: Path, admin_token_file: Path, gateway_token_file: Path
) -> TokenAuthority:
    """Makes what is missing and gives the key's authority. The files are the owner's alone (mode 0600); raises
    Refused where others can read them."""
    authority = load_or_create(key_file)
    _make_default_workspace(store)
    keep_token(store, authority, admin_token_file, subject="admin", role="admin")
    keep_token(store, authority, gateway_token_file, subject="gateway", role="gateway")
    return authority


def keep_token(store: Store, authority: TokenAuthority, file: Path, *, subject: str, role: Role) -> bool:
    """Sees to it that the file holds a good token for all workspaces; True if it had to be made anew, because it was
    missing, revoked, of another key, or has less than 30 days left."""
    if file.exists():
        check_private(file)
        if _good(store, authority, file.read_text().strip()):
            return False
    now = datetime.datetime.now(datetime.UTC)
    token, claims = authority.issue(subject, role, (ALL_WORKSPACES,), _LIFETIME, now)
    row = TokenRow(
        id=claims.id,
        name=subject,
        role=role,
        workspaces=[ALL_WORKSPACES],
        created_at=claims.issued_at,
        created_by="bootstrap",
        expires_at=claims.expires_at,
    )
    # The row first: a token that is on record nowhere would be refused, a row without its token does no harm.
    with store.write(Actor("bootstrap", "system")) as tx:
        tx.add_token(row)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(file, token.encode() + b"\n", several_writers=True)
    return True


def _good(store: Store, authority: TokenAuthority, token: str) -> bool:
    try:
        claims = authority.verify(token)
        with store.read() as tx:
            row = tx.token(claims.id)
    except (Unauthenticated, NotFound):
        return False
    left = claims.expires_at - datetime.datetime.now(datetime.UTC)
    return row.revoked_at is None and left > _RENEW_BEFORE


def _make_default_workspace(store: Store) -> None:
    kind = KINDS["Workspace"]
    with store.read() as tx:
        if tx.find("Workspace", DEFAULT_WORKSPACE, DEFAULT_WORKSPACE) is not None:
            return
    wish = Resource(
        kind=kind.name,
        metadata=Metadata(name=DEFAULT_WORKSPACE, workspace=DEFAULT_WORKSPACE),
        spec=kind.spec.model_validate({"description": "Where everything is that names no other workspace."}),
        status=kind.status(),
    )
    try:
        with store.write(Actor("bootstrap", "system")) as tx:
            tx.create(wish)
    except AlreadyExists:
        # Another server that started at the same moment was first.
        return
