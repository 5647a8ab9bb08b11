"""From an answer that says no to one of Podium's errors. Called by `effects` and both clients."""

from collections.abc import Mapping
from typing import Any

import httpx
import orjson
from pydantic import ValidationError

from podium.resources import errors
from podium.resources.errors import InvalidInput, Issue, PodiumError, Unavailable
from podium.resources.requests import Problem


def _by_code() -> dict[str, type[PodiumError]]:
    found = vars(errors).values()
    return {kind.code: kind for kind in found if isinstance(kind, type) and issubclass(kind, PodiumError)}


_CODES = _by_code()


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> PodiumError:
    """The error that a problem document describes. What is no such document did not come from Podium's API."""
    if headers.get("content-type", "").partition(";")[0] == "application/problem+json":
        try:
            return error_in(orjson.loads(body))
        except (ValueError, ValidationError):
            pass
    words = f"HTTP {status}: {body[:300].decode('utf-8', 'replace').strip()}"
    if status >= 500:
        return Unavailable(
            words, next_step="check that PODIUM_URL leads to Podium, and look at the server's log"
        )
    return PodiumError(words, next_step="check that PODIUM_URL leads to Podium")


def error_in(document: Any) -> PodiumError:
    """The error in a problem document. Raises pydantic's ValidationError if it is none."""
    problem = Problem.model_validate(document)
    details: dict[str, Any] = {"status": problem.status, "instance": problem.instance}
    if problem.resource_version is not None:
        details["resourceVersion"] = problem.resource_version
    kind = _CODES.get(problem.code, PodiumError)
    issues = [Issue(issue.field, issue.message) for issue in problem.issues or []]
    if issubclass(kind, InvalidInput):
        error: PodiumError = InvalidInput(
            issues or [Issue("body", problem.detail)], message=problem.detail, next_step=problem.next_step
        )
        error.details = details
        return error
    if issues:
        details["field"] = issues[0].field
    return kind(problem.detail, next_step=problem.next_step, details=details)


def unreachable(url: str, error: httpx.HTTPError) -> Unavailable:
    """The error for a server that did not answer."""
    if isinstance(error, httpx.TimeoutException):
        return Unavailable(
            f"{url} did not answer in time", next_step="try again, or give it a longer timeout"
        )
    reason = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        # It runs, so neither starting it nor waiting for it would help.
        why = (
            reason.partition("verify failed: ")[2].partition(" (_ssl")[0]
            or "it was not signed by anyone known"
        )
        return Unavailable(
            f"the certificate of {url} is not taken: {why}",
            next_step="name who signed it with --ca-file or PODIUM_CA_FILE",
        )
    return Unavailable(
        f"{url} does not answer: {reason}", next_step="podium status; podium up starts it here"
    )
