"""The one place that turns errors into HTTP statuses: RFC 9457 problem documents for everything that goes wrong.

`create.create_app` calls `install`; routes call `described` for their part of the OpenAPI document and
`problem_line` where an answer is already on its way. Nothing of an unforeseen error leaves the server but a
request id, by which its log line is found.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from podium.api.wire import encode
from podium.resources import errors
from podium.resources.errors import InvalidInput, Issue, PodiumError
from podium.resources.requests import Problem, ProblemIssue

MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger("podium.api")

STATUSES: dict[type[PodiumError], int] = {
    errors.InvalidInput: 422,
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.Conflict: 409,
    errors.Refused: 409,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.Expired: 410,
    errors.TooLarge: 413,
    errors.IntegrityError: 500,
    errors.LeaseLost: 503,
    errors.Unavailable: 503,
    PodiumError: 500,
}
_TITLES = {
    400: "The request could not be read",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Refused in the present state",
    410: "Expired",
    413: "Too large",
    422: "Invalid input",
    500: "Internal error",
    503: "Unavailable",
}
_CODES = {400: "unreadable", 404: "notFound", 405: "methodNotAllowed", 413: "tooLarge"}
_MEANINGS = {
    401: "No token, or one that is malformed, expired or revoked.",
    403: "The token's role or workspaces do not allow this.",
    404: "There is no such object.",
    405: "The path does not know this method.",
    409: "The object has changed (`conflict`, with its present `resourceVersion`), the name is taken "
    "(`alreadyExists`), or the present state does not allow it (`refused`).",
    410: "The position is older than what is kept: list again and watch from there.",
    413: "The body is over the limit.",
    422: "Something in the request is wrong; `issues` names each field.",
    500: "The server failed; its log has the request id.",
    503: "Something that the server stands on did not answer; the same request can succeed later.",
}


def request_id(request: Request) -> str:
    """The id that `create.RequestContext` gave this request."""
    return str(getattr(request.state, "request_id", ""))


def status_of(error: PodiumError) -> int:
    """The nearest entry of the table along the error's own line of classes."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def problem_of(error: PodiumError, instance: str) -> Problem:
    """The document for one of our own errors. Details that are not the caller's business stay behind."""
    status = status_of(error)
    issues = (
        [ProblemIssue(field=i.field, message=i.message) for i in error.issues]
        if isinstance(error, InvalidInput)
        else []
    )
    # What is too large is the body, unless it is said otherwise.
    field = error.details.get("field", "body" if isinstance(error, errors.TooLarge) else None)
    if not issues and isinstance(field, str):
        issues = [ProblemIssue(field=field, message=error.message)]
    version = error.details.get("resourceVersion")
    return Problem(
        type=f"urn:podium:problem:{error.code}",
        title=_TITLES[status],
        status=status,
        detail=error.message,
        code=error.code,
        instance=f"urn:podium:request:{instance}",
        next_step=error.next_step,
        issues=issues or None,
        resource_version=version if isinstance(version, int) else None,
    )


def problem_line(error: Exception, instance: str) -> dict[str, Any]:
    """The document as data, for an answer whose status is out already. An unforeseen error is logged, not shown."""
    if not isinstance(error, PodiumError):
        _log.error("request %s failed", instance, exc_info=error)
        error = PodiumError("the server failed", next_step="look for the request id in the server's log")
    return document(problem_of(error, instance))


def document(problem: Problem) -> dict[str, Any]:
    """Wire form: members that have nothing to say are left out."""
    return problem.model_dump(mode="json", by_alias=True, exclude_none=True)


def _respond(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    extra = dict(headers or {})
    if problem.status == 401:
        extra.setdefault("www-authenticate", 'Bearer realm="podium"')
    if problem.status == 503:
        extra.setdefault("retry-after", "1")
    return Response(
        encode(document(problem)), status_code=problem.status, headers=extra, media_type=MEDIA_TYPE
    )


async def _podium_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PodiumError)  # noqa: S101 - how the handler is registered
    if status_of(error) >= 500:
        _log.error("request %s: %s: %s", request_id(request), error.code, error.message, exc_info=error)
    return _respond(problem_of(error, request_id(request)))


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - how the handler is registered
    return _respond(problem_of(InvalidInput(_parameter_issues(error.errors())), request_id(request)))


def _parameter_issues(findings: Sequence[Any]) -> list[Issue]:
    """FastAPI's findings with the parameter's own name as the field: (`query`, `limit`) -> `limit`."""
    issues = []
    for finding in findings:
        place, *rest = [str(part) for part in finding["loc"]] or ["body"]
        issues.append(Issue(".".join(rest) or place, str(finding["msg"])))
    return issues


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - how the handler is registered
    status = error.status_code if error.status_code in _TITLES else (400 if error.status_code < 500 else 500)
    details = {404: "there is no such path", 405: "this path does not know that method"}
    problem = Problem(
        type=f"urn:podium:problem:{_CODES.get(status, 'error')}",
        title=_TITLES[status],
        status=status,
        detail=details.get(status, _TITLES[status].lower()),
        code=_CODES.get(status, "error"),
        instance=f"urn:podium:request:{request_id(request)}",
        next_step="GET /openapi.json lists every path and method" if status in details else None,
    )
    headers = dict(error.headers or {})
    if status == 405:
        headers["Allow"] = ", ".join(request.app.state.methods(request.url.path))
    return _respond(problem, headers)


async def _gone(request: Request, error: Exception) -> Response:
    """The client left in the middle of its body: nobody reads this, and it is no failure of ours."""
    return Response(status_code=400)


async def _unforeseen(request: Request, error: Exception) -> Response:
    instance = request_id(request)
    failure = PodiumError("the server failed", next_step=f"look for request {instance} in the server's log")
    response = _respond(problem_of(failure, instance))
    # This handler runs outside of the middleware that sets the header elsewhere.
    response.headers["x-request-id"] = instance
    return response


def install(app: FastAPI) -> None:
    """Registers a handler for everything that can be raised under a route."""
    app.add_exception_handler(PodiumError, _podium_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unforeseen)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: each of these statuses, 422 and 500 with the problem schema, as OpenAPI wants it."""
    schema = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": _MEANINGS[status], "content": schema}
        for status in sorted({*statuses, 422, 500, 503})
    }
