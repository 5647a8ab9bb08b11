"""Signed tokens: an Ed25519 key, what it signs, and how a signature is checked.

`bootstrap` makes the key and the first token, `routes/tokens` issues more, `access` verifies them on each request;
the gateways get the public half as a JWKS and check signatures in Envoy. A token is signed and carries its role, so
that the gateway needs no database; the store keeps only its id, so that it can be listed and revoked.
"""

import base64
import datetime
import hashlib
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from podium.resources.claims import as_text
from podium.resources.durable import create_file
from podium.resources.errors import Refused, Unauthenticated

ISSUER = "podium"
ALL_WORKSPACES = "*"
Role = Literal["admin", "edit", "view", "predict", "gateway"]
ROLES: tuple[str, ...] = get_args(Role)
VERBS = ("predict", "metadata")
"""What a scope may allow at a gateway: asking a model, and asking about it."""
_REQUIRED = ["iss", "sub", "jti", "iat", "exp", "role", "ws"]


@dataclass(frozen=True)
class Scope:
    """What a token with a scope is for, and nothing else. `names` are deployments and routes as WORKSPACE/NAME,
    WORKSPACE/* for all of a workspace, or `*` alone for all there are; `verbs` are some of VERBS."""

    names: tuple[str, ...]
    verbs: tuple[str, ...]


@dataclass(frozen=True)
class Claims:
    """What a token says. `workspaces` is names, or `*` alone for all of them; none where there is a scope: whoever
    knows nothing of scopes then finds a token that is for nothing."""

    id: str
    subject: str
    role: str
    workspaces: tuple[str, ...]
    issued_at: datetime.datetime
    expires_at: datetime.datetime
    scope: Scope | None = None


class TokenAuthority:
    """Issues and verifies with one key. Thread-safe: it has no state but the key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = key.public_key()
        raw = self._public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.key_id = hashlib.sha256(raw).hexdigest()[:16]
        self._raw = raw

    def issue(
        self,
        subject: str,
        role: Role,
        workspaces: tuple[str, ...],
        lifetime: datetime.timedelta,
        now: datetime.datetime,
        scope: Scope | None = None,
        given: Mapping[str, str] | None = None,
    ) -> tuple[str, Claims]:
        """A new token and what it says. `now` is in UTC; the id has 128 random bits. `given`: claims of a person's own,
        checked (`resources.claims`). They stand under `claims`, for rules that match on them, and as one text under
        `claimed`, of which a gateway makes a header."""
        issued = now.replace(microsecond=0)
        held = workspaces if scope is None else ()
        claims = Claims(secrets.token_urlsafe(16), subject, role, held, issued, issued + lifetime, scope)
        payload: dict[str, Any] = {
            "iss": ISSUER,
            "sub": subject,
            "jti": claims.id,
            "iat": int(claims.issued_at.timestamp()),
            "exp": int(claims.expires_at.timestamp()),
            "role": role,
            "ws": list(held),
        }
        if scope is not None:
            payload |= {"dep": list(scope.names), "can": list(scope.verbs)}
        if given:
            payload |= {"claims": dict(given), "claimed": as_text(given)}
        return jwt.encode(payload, self._key, algorithm="EdDSA", headers={"kid": self.key_id}), claims

    def verify(self, token: str) -> Claims:
        """Checks signature, issuer and expiry; whether it is revoked only the store knows. Raises Unauthenticated."""
        try:
            payload = jwt.decode(
                token,
                self._public,
                algorithms=["EdDSA"],
                issuer=ISSUER,
                options={"require": _REQUIRED},
                leeway=1,
            )
            claims = Claims(
                id=payload["jti"],
                subject=payload["sub"],
                role=payload["role"],
                workspaces=tuple(payload["ws"]),
                issued_at=datetime.datetime.fromtimestamp(payload["iat"], datetime.UTC),
                expires_at=datetime.datetime.fromtimestamp(payload["exp"], datetime.UTC),
                scope=Scope(tuple(payload["dep"]), tuple(payload["can"])) if "dep" in payload else None,
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired", next_step=HOW_TO_GET_ONE) from None
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError):
            raise Unauthenticated("the token is not one of this server's", next_step=HOW_TO_GET_ONE) from None
        said = (*claims.workspaces, *((*claims.scope.names, *claims.scope.verbs) if claims.scope else ()))
        if claims.role not in ROLES or not all(isinstance(name, str) for name in said):
            raise Unauthenticated("the token is not one of this server's", next_step=HOW_TO_GET_ONE)
        return claims

    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set (RFC 7517, RFC 8037)."""
        x = base64.urlsafe_b64encode(self._raw).rstrip(b"=").decode()
        return {
            "keys": [
                {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.key_id, "x": x}
            ]
        }


HOW_TO_GET_ONE = "ask an admin for a token (podium token create), and pass it as PODIUM_TOKEN"


def load_or_create(path: Path) -> TokenAuthority:
    """The key in this file, made on first use. Only the owner may read it; raises Refused where others may.

    The file appears whole or not at all, and of several processes that start together one makes it.
    """
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        create_file(path, pem)
    check_private(path)
    loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(loaded, Ed25519PrivateKey):
        raise Refused(f"{path} holds no Ed25519 key", next_step="move the file away, and a new key is made")
    return TokenAuthority(loaded)


def check_private(path: Path) -> None:
    """Raises Refused if anyone but the owner can read or write the file."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise Refused(
            f"{path} can be read by others (mode {mode:04o})",
            next_step=f"chmod 600 {path}, and change what it holds",
        )
