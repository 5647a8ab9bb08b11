"""Bodies of the answers that Envoy gives by itself: RFC 9457 problems, and the mapping of its local replies.

Called by `routes` and `listener`.
"""

from typing import Any

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
    """Envoy's `local_reply_config`. Its words are kept as the detail; a direct response keeps its own body."""
    revoked = "response.code_details.startsWith('rbac_access_denied_matched_policy[revoked')"
    return {
        "mappers": [
            {
                "filter": _when("response.code_details == 'direct_response'"),
                "body_format_override": {
                    "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
                    "content_type": MEDIA_TYPE,
                },
            },
            {
                # A Route's declared answer, which is its own body too.
                "filter": _when("response.headers['x-podium-fallback'] == 'answer'"),
                "body_format_override": {
                    "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
                    "content_type": "application/json",
                },
            },
            {
                "filter": _status(429),
                "body_format_override": _format(
                    "rateLimited",
                    "over the limit of requests of this route; retry-after says when to come back",
                ),
            },
            {
                "filter": _when("response.code_details == 'reached_concurrency_limit'"),
                "body_format_override": _format(
                    "unavailable", "the route's adaptive limit of concurrency is reached"
                ),
            },
            {
                "filter": _when(revoked),
                "status_code": 401,
                "body_format_override": _format("unauthenticated", "the token has been revoked"),
                "headers_to_add": [_challenge()],
            },
            {
                "filter": _status(401),
                "body_format_override": _format(
                    "unauthenticated",
                    "%LOCAL_REPLY_BODY%",
                    nextStep="send the header Authorization: Bearer TOKEN with a token that `podium token create` made",
                ),
            },
            {
                "filter": _status(403),
                "body_format_override": _format(
                    "forbidden",
                    "the token is not for this workspace, or its scope is without this deployment or verb",
                ),
            },
            {
                "filter": _status(413),
                "body_format_override": _format("tooLarge", "the body is over the deployment's limit"),
            },
            {
                "filter": _status(504),
                "body_format_override": _format(
                    "timeout", "no answer within the deployment's requestTimeout"
                ),
            },
            {
                "filter": _status(503),
                "body_format_override": _format(
                    "unavailable", "the replica could not be reached: %LOCAL_REPLY_BODY%"
                ),
            },
            {
                "filter": _status(404),
                "body_format_override": _format("notFound", "no such path"),
            },
        ],
        "body_format": _format("invalid", "%LOCAL_REPLY_BODY%"),
    }


def _format(code: str, detail: str, **more: str) -> dict[str, Any]:
    body = problem(code, 0, detail, instance="%REQ(X-REQUEST-ID)%", **more)
    body["status"] = "%RESPONSE_CODE%"
    return {"json_format": body, "content_type": MEDIA_TYPE}


def _challenge() -> dict[str, Any]:
    header = {"key": "www-authenticate", "value": 'Bearer realm="podium", error="invalid_token"'}
    return {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _status(code: int) -> dict[str, Any]:
    value = {"default_value": code, "runtime_key": f"podium.reply.{code}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _when(expression: str) -> dict[str, Any]:
    config = typed("envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", expression=expression)
    return {"extension_filter": {"name": "cel", "typed_config": config}}
