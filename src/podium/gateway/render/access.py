"""Who may call: the three filters that check tokens, each delivered by itself (ECDS), so that a revocation counts at
once and cuts no connection.

Called by `loader` and `listener`. Envoy holds public keys only.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from podium.gateway.render.document import Document, document, fragment, typed
from podium.gateway.settings import ACCESS, REVOKED, TOKENS
from podium.resources.errors import InvalidInput, Issue
from podium.resources.shape import DEFAULT_WORKSPACE

FILTERS = {
    TOKENS: ("podium.tokens", "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"),
    REVOKED: ("podium.revoked", "envoy.extensions.filters.http.rbac.v3.RBAC"),
    ACCESS: ("podium.access", "envoy.extensions.filters.http.rbac.v3.RBAC"),
}
"""kind of document -> the filter's name and type, in the order in which a request meets them."""
ROLES = ("admin", "edit", "view", "predict")
CALLER_HEADER = "x-podium-caller"
"""The token's subject, for the filters behind these and for the replica. A client's own header of this name is removed
by `listener` before any filter runs; where no tokens are required there is none."""
_METADATA = "envoy.filters.http.jwt_authn"
_CLAIMS = "podium"
_CLOCK_SKEW_SECONDS = 1
_CHECKED_TOKENS = 1000
"""How many tokens each worker of Envoy remembers as checked: a signature takes twice as long as all the rest. Expiry is
looked at again at each request, and what is revoked is not this filter's business."""
_LONGEST_TOKEN = 8192
"""Longer ones are checked each time."""


@dataclass(frozen=True)
class AccessRules:
    """What the server says about tokens. `jwks` is a JSON Web Key Set of Ed25519 public keys."""

    required: bool
    jwks: str
    issuer: str
    revoked: tuple[str, ...]

    @classmethod
    def parse(cls, given: Any) -> "AccessRules":
        """From the server's answer. Raises InvalidInput if it is not of the agreed shape."""
        match given:
            case {
                "jwks": {"keys": list(keys)},
                "issuer": str(issuer),
                "tokensRequired": bool(required),
                "revoked": list(revoked),
            }:
                if required and not keys:
                    raise InvalidInput(Issue("jwks.keys", "expected a key, because tokens are required"))
                if any(key.get("kty") != "OKP" or "d" in key for key in keys):
                    raise InvalidInput(Issue("jwks.keys", "expected public Ed25519 keys only"))
                jwks = orjson.dumps({"keys": keys}, option=orjson.OPT_SORT_KEYS).decode()
                return cls(required, jwks, issuer, tuple(sorted(str(token) for token in revoked)))
        raise InvalidInput(Issue("body", "expected jwks, issuer, tokensRequired and revoked"))


def tokens(rules: AccessRules) -> Document:
    """Signature, issuer and expiry. The gateway's own answers need no token."""
    fields: dict[str, Any] = {}
    if rules.required:
        fields = {
            "providers": {
                "podium": {
                    "issuer": rules.issuer,
                    "local_jwks": {"inline_string": rules.jwks},
                    "from_headers": [{"name": "Authorization", "value_prefix": "Bearer "}],
                    "forward": False,
                    "require_expiration": True,
                    "clock_skew_seconds": _CLOCK_SKEW_SECONDS,
                    "payload_in_metadata": _CLAIMS,
                    "claim_to_headers": [{"claim_name": "sub", "header_name": CALLER_HEADER}],
                    "jwt_cache_config": {
                        "jwt_cache_size": _CHECKED_TOKENS,
                        "jwt_max_token_size": _LONGEST_TOKEN,
                    },
                    # A route may choose by the caller: it was looked for once before the caller was known.
                    "clear_route_cache": True,
                }
            },
            "rules": [
                {"match": {"path": "/v2"}},
                {"match": {"prefix": "/v2/health/"}},
                {"match": {"prefix": "/"}, "requires": {"provider_name": "podium"}},
            ],
        }
    return _document(TOKENS, fields)


def revoked(rules: AccessRules) -> Document:
    """Turns tokens away that were taken back before they expire."""
    fields: dict[str, Any] = {}
    if rules.required:
        principals = [_claim("jti", {"string_match": {"exact": token}}) for token in rules.revoked]
        policies = (
            {"revoked": {"permissions": [{"any": True}], "principals": principals}} if principals else {}
        )
        fields = {"rules": {"action": "DENY", "policies": policies}}
    return _document(REVOKED, fields)


def access(rules: AccessRules, workspaces: Iterable[str]) -> Document:
    """The workspace in the path must be one of the token's. A workspace that is not listed takes tokens for all."""
    if not rules.required:
        return _document(ACCESS, {})
    policies = {
        "own": {
            "permissions": [_path({"exact": "/v2"}), _path({"prefix": "/v2/health/"})],
            "principals": [{"any": True}],
        },
        "all": _policy([{"any": True}], "*"),
        f"workspace {DEFAULT_WORKSPACE}": _policy(
            [_path({"prefix": "/v2/models/"}), _path({"prefix": f"/ws/{DEFAULT_WORKSPACE}/"})],
            DEFAULT_WORKSPACE,
        ),
    }
    for name in sorted(set(workspaces) - {DEFAULT_WORKSPACE}):
        policies[f"workspace {name}"] = _policy([_path({"prefix": f"/ws/{name}/"})], name)
    return _document(ACCESS, {"rules": {"action": "ALLOW", "policies": policies}})


def open_access() -> AccessRules:
    """Rules without tokens, for whoever runs on loopback without any."""
    return AccessRules(False, '{"keys":[]}', "podium", ())


def _policy(permissions: list[dict[str, Any]], workspace: str) -> dict[str, Any]:
    role = {"or_match": {"value_matchers": [{"string_match": {"exact": name}} for name in ROLES]}}
    held = _claim("ws", {"list_match": {"one_of": {"string_match": {"exact": workspace}}}})
    return {"permissions": permissions, "principals": [{"and_ids": {"ids": [held, _claim("role", role)]}}]}


def _path(match: dict[str, Any]) -> dict[str, Any]:
    return {"url_path": {"path": match}}


def _claim(name: str, value: dict[str, Any]) -> dict[str, Any]:
    path = [{"key": _CLAIMS}, {"key": name}]
    return {"sourced_metadata": {"metadata_matcher": {"filter": _METADATA, "path": path, "value": value}}}


def _document(kind: str, fields: dict[str, Any]) -> Document:
    name, type_name = FILTERS[kind]
    config = typed(
        "envoy.config.core.v3.TypedExtensionConfig", name=name, typed_config=typed(type_name, **fields)
    )
    return document([fragment(config)])
