"""Who may call: the three filters that check tokens, each delivered by itself (ECDS), so that a revocation counts at
once and cuts no connection.

A token is good for workspaces (`ws`), or, when it has a scope, for what its scope names: `dep`, the deployments and
routes as WORKSPACE/NAME, WORKSPACE/* or *, and `can`, the verbs. Which deployment a request is for is read off its path
by one more filter. So the rules hold nothing about scopes in use: they do not grow with them, and a new token counts at
once. A gateway from before there were scopes sees a token for no workspace, and refuses it.

Called by `loader` and `listener`. Envoy holds public keys only.
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from podium.gateway.render import conditions
from podium.gateway.render.document import Document, document, fragment, typed
from podium.gateway.render.grpc import METHOD_NOTE
from podium.gateway.render.only_for import only_for
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
CLAIMS_HEADER = "x-podium-claims"
"""What people have put into the token, as `name=value;...`: the other side of `resources.claims.as_text`. Removed from
what clients send, like the subject's."""
TOKEN_FILTER, CLAIMS = "envoy.filters.http.jwt_authn", "podium"
"""Where the claims of a checked token are noted: the filter's metadata, under this key."""
_PLACE = "podium.place"
_SEGMENT = "[^/?]+"
_PLACES = {
    "one": (rf"^/ws/({_SEGMENT})/v2/models/({_SEGMENT})([/?].*)?$", r"\1/\2"),
    "any": (rf"^/ws/({_SEGMENT})/v2/models/{_SEGMENT}([/?].*)?$", r"\1/*"),
    "defaultOne": (rf"^/v2/models/({_SEGMENT})([/?].*)?$", rf"{DEFAULT_WORKSPACE}/\1"),
    "defaultAny": (rf"^/v2/models/{_SEGMENT}([/?].*)?$", f"{DEFAULT_WORKSPACE}/*"),
}
"""What is noted of a path, and how. A path that does not match is noted as it is, with a / in front, as no scope is."""
_ROLE = {"or_match": {"value_matchers": [{"string_match": {"exact": name}} for name in ROLES]}}
_GRPC_PREDICTIONS = ("ModelInfer", "ModelStreamInfer")
_CLOCK_SKEW_SECONDS = 1
_CHECKED_TOKENS = 1000
"""How many tokens each worker of Envoy remembers as checked: a signature takes twice as long as all the rest. Expiry is
looked at again at each request, and what is revoked is not this filter's business."""
_LONGEST_TOKEN = 8192
"""Longer ones are checked each time."""


@dataclass(frozen=True)
class AccessRules:
    """What the server says about tokens. `jwks` is a JSON Web Key Set of Ed25519 public keys; `retiring`: ids of tokens
    that were rotated, and when they count as revoked."""

    required: bool
    jwks: str
    issuer: str
    revoked: tuple[str, ...]
    retiring: tuple[tuple[str, datetime.datetime], ...] = ()

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
                ids = tuple(sorted(str(token) for token in revoked))
                return cls(required, jwks, issuer, ids, _retiring(given.get("retiring") or []))
        raise InvalidInput(Issue("body", "expected jwks, issuer, tokensRequired and revoked"))


def _retiring(given: Any) -> tuple[tuple[str, datetime.datetime], ...]:
    """A server of before does not say any."""
    try:
        found = [(str(one["id"]), datetime.datetime.fromisoformat(one["at"])) for one in given]
    except (TypeError, KeyError, ValueError):
        raise InvalidInput(Issue("retiring", "expected ids with times")) from None
    if any(at.tzinfo is None for _, at in found):
        raise InvalidInput(Issue("retiring", "expected times with a zone"))
    return tuple(sorted(found))


def chosen_by_caller(route: bytes) -> bool:
    """Whether who calls has a part in taking this rendered route, or in where it leads."""
    words = (CALLER_HEADER.encode(), CLAIMS_HEADER.encode(), TOKEN_FILTER.encode())
    if not any(said in route for said in words):
        return False
    found = orjson.loads(route)
    choice = fragment([found["match"], found.get("route", {}).get("hash_policy")])
    return any(said in choice for said in words)


def tokens(rules: AccessRules, *, choosing: bool = True) -> Document:
    """Signature, issuer and expiry. The gateway's own answers need no token. `choosing`: some route is chosen by the
    caller."""
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
                    "payload_in_metadata": CLAIMS,
                    "claim_to_headers": [
                        {"claim_name": "sub", "header_name": CALLER_HEADER},
                        {"claim_name": "claimed", "header_name": CLAIMS_HEADER},
                    ],
                    "jwt_cache_config": {
                        "jwt_cache_size": _CHECKED_TOKENS,
                        "jwt_max_token_size": _LONGEST_TOKEN,
                    },
                    # A route was looked for once before the caller was known. With a thousand of them another look
                    # is a third of all that a request costs.
                    "clear_route_cache": choosing,
                }
            },
            "rules": [
                {"match": {"path": "/v2"}},
                {"match": {"prefix": "/v2/health/"}},
                {"match": {"prefix": "/"}, "requires": {"provider_name": "podium"}},
            ],
        }
    return _document(TOKENS, fields)


def placing() -> dict[str, Any]:
    """Notes which deployment a request is for, behind the token's check: for tokens with a scope only."""
    place = typed(
        "envoy.extensions.filters.http.header_to_metadata.v3.Config",
        request_rules=[
            {
                "header": ":path",
                "on_header_present": {
                    "metadata_namespace": _PLACE,
                    "key": key,
                    "regex_value_rewrite": {"pattern": {"regex": regex}, "substitution": written},
                },
            }
            for key, (regex, written) in _PLACES.items()
        ],
    )
    claim = typed(
        "envoy.extensions.matching.common_inputs.network.v3.DynamicMetadataInput",
        filter=TOKEN_FILTER,
        path=[{"key": CLAIMS}, {"key": "dep"}],
    )
    there = typed(
        "envoy.extensions.matching.input_matchers.metadata.v3.Metadata", value={"present_match": True}
    )
    scoped = {
        "single_predicate": {
            "input": {"name": "scope", "typed_config": claim},
            "custom_match": {"name": "there", "typed_config": there},
        }
    }
    return only_for(scoped, "podium.place", place)


def revoked(rules: AccessRules) -> Document:
    """Turns tokens away that were taken back before they expire, and those that were rotated, from their time on: Envoy
    looks at the clock itself, so that it needs neither agent nor server for it."""
    fields: dict[str, Any] = {}
    if rules.required:
        policies: dict[str, Any] = {}
        if rules.revoked:
            # One claim against a list, not a list of claims: the token is looked into once.
            ids = [{"string_match": {"exact": token}} for token in rules.revoked]
            held = _claim("jti", {"or_match": {"value_matchers": ids}} if len(ids) > 1 else ids[0])
            policies["revoked"] = {"permissions": [{"any": True}], "principals": [held]}
        for token, at in rules.retiring:
            policies[f"revoked since {token}"] = {
                "permissions": [{"any": True}],
                "principals": [_claim("jti", {"string_match": {"exact": token}})],
                "condition": conditions.condition(conditions.since(at)),
            }
        # Rules without a policy refuse nobody either, but Envoy notes their verdict on each request.
        fields = {"rules": {"action": "DENY", "policies": policies}} if policies else {}
    return _document(REVOKED, fields)


def access(rules: AccessRules, workspaces: Iterable[str]) -> Document:
    """The workspace in the path must be one of the token's, or the deployment in it one of its scope. A workspace that
    is not listed takes tokens for all, and those with a scope in it."""
    if not rules.required:
        return _document(ACCESS, {})
    # Envoy asks them in the order of their names, until one says yes.
    policies = {
        f"1 workspace {DEFAULT_WORKSPACE}": _policy(
            [_path({"prefix": "/v2/models/"}), _path({"prefix": f"/ws/{DEFAULT_WORKSPACE}/"})],
            DEFAULT_WORKSPACE,
        ),
        "2 all": _policy([{"any": True}], "*"),
        "3 own": {
            "permissions": [_path({"exact": "/v2"}), _path({"prefix": "/v2/health/"})],
            "principals": [{"any": True}],
        },
        "4 scoped predict": _scoped({"not_rule": _reading()}, "predict"),
        "5 scoped metadata": _scoped(_reading(), "metadata"),
    }
    for name in sorted(set(workspaces) - {DEFAULT_WORKSPACE}):
        policies[f"6 workspace {name}"] = _policy([_path({"prefix": f"/ws/{name}/"})], name)
    return _document(ACCESS, {"rules": {"action": "ALLOW", "policies": policies}})


def open_access() -> AccessRules:
    """Rules without tokens, for whoever runs on loopback without any."""
    return AccessRules(False, '{"keys":[]}', "podium", ())


def _scoped(permission: dict[str, Any], verb: str) -> dict[str, Any]:
    """Tokens whose scope names the deployment that the path names, and the verb."""
    named = conditions.metadata(TOKEN_FILTER, CLAIMS, "dep")
    covers = [conditions.is_in(conditions.metadata(_PLACE, key), named) for key in _PLACES]
    covers.append(conditions.is_in(conditions.text("*"), named))
    # A note that is missing is an error to CEL, and an error is no permission.
    can = _claim("can", {"list_match": {"one_of": {"string_match": {"exact": verb}}}})
    scope = _claim("dep", {"present_match": True})
    return {
        "permissions": [permission],
        "principals": [{"and_ids": {"ids": [scope, can, _claim("role", _ROLE)]}}],
        "condition": conditions.condition(conditions.either(*covers)),
    }


def _reading() -> dict[str, Any]:
    """Asks about a model, and nothing of it: GET and HEAD, and the calls of gRPC that are no predictions."""
    methods = [{"header": {"name": ":method", "string_match": {"exact": name}}} for name in ("GET", "HEAD")]
    namespace, key = METHOD_NOTE
    said = {"filter": namespace, "path": [{"key": key}]}

    def call(value: dict[str, Any]) -> dict[str, Any]:
        return {"sourced_metadata": {"metadata_matcher": {**said, "value": value}}}

    predictions = [call({"string_match": {"exact": name}}) for name in _GRPC_PREDICTIONS]
    asks = {
        "and_rules": {
            "rules": [call({"present_match": True}), {"not_rule": {"or_rules": {"rules": predictions}}}]
        }
    }
    return {"or_rules": {"rules": [*methods, asks]}}


def _policy(permissions: list[dict[str, Any]], workspace: str) -> dict[str, Any]:
    held = _claim("ws", {"list_match": {"one_of": {"string_match": {"exact": workspace}}}})
    return {"permissions": permissions, "principals": [{"and_ids": {"ids": [held, _claim("role", _ROLE)]}}]}


def _path(match: dict[str, Any]) -> dict[str, Any]:
    return {"url_path": {"path": match}}


def _claim(name: str, value: dict[str, Any]) -> dict[str, Any]:
    path = [{"key": CLAIMS}, {"key": name}]
    return {"sourced_metadata": {"metadata_matcher": {"filter": TOKEN_FILTER, "path": path, "value": value}}}


def _document(kind: str, fields: dict[str, Any]) -> Document:
    name, type_name = FILTERS[kind]
    config = typed(
        "envoy.config.core.v3.TypedExtensionConfig", name=name, typed_config=typed(type_name, **fields)
    )
    return document([fragment(config)])
