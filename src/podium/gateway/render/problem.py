"""Bodies of the answers that Envoy gives by itself: RFC 9457 problems, and the mapping of its local replies.

Called by `routes` and `listener`.
"""

from typing import Any

from podium.gateway.render.access import CLAIMS, ROLES, TOKEN_FILTER
from podium.gateway.render.document import fragment, typed

MEDIA_TYPE = "application/problem+json"
_TITLES = {
    "notFound": "Not found",
    "unavailable": "Service unavailable",
    "unauthenticated": "Not authenticated",
    "forbidden": "Forbidden",
    "tooLarge": "Body too large",
    "timeout": "Timed out",
    "rateLimited": "Too many requests",
    "invalid": "Bad request",
}


def problem(code: str, status: int, detail: str, **more: str) -> dict[str, Any]:
    """The members of one problem; `code` is the one that programs look at.

    `error` is the detail once more: clients of the Open Inference Protocol show what stands there, and nothing else.
    """
    return {
        "type": f"urn:podium:problem:{code}",
        "title": _TITLES[code],
        "status": status,
        "detail": detail,
        "error": detail,
        "code": code,
        **more,
    }


def answer(code: str, status: int, detail: str, **more: str) -> dict[str, Any]:
    """A route's `direct_response` with a problem as its body (the media type is set by `local_replies`)."""
    return {
        "status": status,
        "body": {"inline_string": fragment(problem(code, status, detail, **more)).decode()},
    }


def local_replies() -> dict[str, Any]:
    """Envoy's `local_reply_config`: our words for what it turns away, with Envoy's own where only that knows what was
    wrong. A direct response keeps its own body."""
    own = [
        # A direct response, and a Route's declared answer, keep their own bodies.
        _as_it_is("response.code_details == 'direct_response'", MEDIA_TYPE),
        _as_it_is("response.headers['x-podium-fallback'] == 'answer'", "application/json"),
    ]
    revoked = {
        "filter": _when("response.code_details.startsWith('rbac_access_denied_matched_policy[revoked')"),
        "status_code": 401,
        **_unauthenticated("revoked", "the token has been revoked"),
    }
    bad = [
        {
            "filter": _both(_status(401), _when(f"response.code_details.{said}")),
            **_unauthenticated(reason, words),
        }
        for reason, said, words in _BAD_TOKENS
    ]
    known = [
        {
            "filter": _both(_status(status), _when(condition)),
            "body_format_override": _format(code, detail, **more),
        }
        for status, condition, code, detail, more in _BY_DETAILS
    ]
    limited, *others = [
        {"filter": _status(status), "body_format_override": _format(code, detail)}
        for status, code, detail in _BY_STATUS
    ]
    unknown = {"filter": _status(401), **_unauthenticated("badSignature", _NOT_OURS)}
    mappers = [*own, limited, revoked, *bad, unknown, *known, *others]
    return {"mappers": mappers, "body_format": _format("invalid", "%LOCAL_REPLY_BODY%")}


_BY_STATUS: tuple[tuple[int, str, str], ...] = (
    (429, "rateLimited", "over the limit of requests of this route; retry-after says when to come back"),
    (
        403,
        "forbidden",
        "the token is not for this workspace, or its scope is without this deployment or verb",
    ),
    (408, "timeout", "it took longer than the gateway waits: %LOCAL_REPLY_BODY%"),
    (413, "tooLarge", "the body is over the deployment's limit"),
    (431, "invalid", "the headers are too many or too large"),
    (504, "timeout", "no answer within the deployment's requestTimeout"),
    (503, "unavailable", "the replica could not be reached: %LOCAL_REPLY_BODY%"),
    (404, "notFound", "no such path"),
)
"""Status, code and detail; what is found out by more than the status stands between 429 and the rest."""
_DETAILS = "%RESPONSE_CODE_DETAILS%"
_HELD = f"metadata.filter_metadata['{TOKEN_FILTER}']['{CLAIMS}']"
_OVERLOADED = {"reason": "overloaded"}
_BY_DETAILS: tuple[tuple[int, str, str, str, dict[str, str]], ...] = (
    (
        400, "response.code_details == 'path_normalization_failed'", "invalid",
        "the path is not taken: it has an escaped slash, backslash or null (%%2F, %%5C, %%00)", {},
    ),
    (400, "response.code_details == 'missing_host_header'", "invalid", "the request has no header host", {}),
    (400, "response.code_details.startsWith('http1.')", "invalid", f"this is no request of HTTP/1.1: {_DETAILS}", {}),
    (403, "response.code_details == 'upgrade_failed'", "forbidden", "connections are not upgraded here", {}),
    (
        403, f"!('role' in {_HELD}) || !({_HELD}.role in {list(ROLES)})", "forbidden",
        "the token's role is none that may ask for predictions", {"reason": "role"},
    ),
    (
        403, f"'dep' in {_HELD}", "forbidden",
        "the token's scope is without this deployment or route, or without this verb", {"reason": "scope"},
    ),
    (
        403, f"'ws' in {_HELD}", "forbidden",
        "the token is not for this workspace", {"reason": "workspace"},
    ),
    (
        503, "response.code_details == 'reached_concurrency_limit'", "unavailable",
        "the route's adaptive limit of concurrency is reached", _OVERLOADED,
    ),
    (
        503, "response.code_details.contains('{overflow')", "unavailable",
        "as much is under way as the deployment's circuitBreaker lets through", _OVERLOADED,
    ),
    (
        503, "response.code_details.startsWith('overload')", "unavailable",
        "the gateway has no memory left for this request", _OVERLOADED,
    ),
    (
        504, "response.code_details == 'stream_idle_timeout'", "timeout",
        "nothing has moved for longer than the gateway waits", {},
    ),
    (
        504, "response.code_details == 'upstream_per_try_timeout'", "timeout",
        "no attempt was answered within retries.perTryTimeout", {},
    ),
    (
        504, "xds.route_name.startsWith('route:')", "timeout",
        "no answer within the route's timeout, or without one the longest requestTimeout of its deployments", {},
    ),
)  # fmt: skip
"""Status, the condition on what Envoy knows, code, detail and more members; the first one that holds counts. A
condition on what is not there does not hold."""
_TOKEN_DENIED = "jwt_authn_access_denied{Jwt"  # noqa: S105 - what Envoy says
_BAD_TOKENS: tuple[tuple[str, str, str], ...] = (
    ("missing", f"startsWith('{_TOKEN_DENIED}_is_missing')", "no token"),
    ("expired", f"startsWith('{_TOKEN_DENIED}_is_expired')", "the token has expired"),
    ("notYetValid", f"startsWith('{_TOKEN_DENIED}_not_yet_valid')", "the token is not valid yet"),
    (
        "malformed",
        "matches('Jwt_(is_not_in|header|payload|signature)_')",
        "this is no token: it cannot be read",
    ),
)
"""Reason, the condition on what Envoy's filter said, and the words for it. What these tell stands in the token itself,
for whoever holds it."""
_NOT_OURS = "the token is not one of this server, or was changed: its signature does not fit"
"""Another key, another issuer, a claim that is missing: which of it is for the server's people to know."""
_TOKEN_STEP = "send the header Authorization: Bearer TOKEN with a token that `podium token create` made"  # noqa: S105


def _as_it_is(condition: str, media_type: str) -> dict[str, Any]:
    body = {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}, "content_type": media_type}
    return {"filter": _when(condition), "body_format_override": body}


def _format(code: str, detail: str, **more: str) -> dict[str, Any]:
    body = problem(code, 0, detail, instance="%REQ(X-REQUEST-ID)%", **more)
    body["status"] = "%RESPONSE_CODE%"
    return {"json_format": body, "content_type": MEDIA_TYPE}


def _unauthenticated(reason: str, words: str) -> dict[str, Any]:
    """The body and the challenge (RFC 6750) of a 401. In Envoy's own stand the address as the client wrote it."""
    told = "" if reason == "missing" else f', error="invalid_token", error_description="{words}"'
    header = {"key": "www-authenticate", "value": f'Bearer realm="podium"{told}'}
    return {
        "body_format_override": _format("unauthenticated", words, reason=reason, nextStep=_TOKEN_STEP),
        "headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def _both(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"and_filter": {"filters": list(conditions)}}


def _status(code: int) -> dict[str, Any]:
    value = {"default_value": code, "runtime_key": f"podium.reply.{code}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _when(expression: str) -> dict[str, Any]:
    config = typed("envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", expression=expression)
    return {"extension_filter": {"name": "cel", "typed_config": config}}
