"""Checks of our own for schemathesis: what every refusal must say."""

from typing import Any

import schemathesis


@schemathesis.check
def problems_say_what_is_wrong(ctx: Any, response: Any, case: Any) -> None:
    """Every error is a problem document with our request id; a 422 names the fields; nothing internal is told."""
    status = response.status_code
    if status < 400 or case.method == "HEAD":
        return
    if "x-request-id" not in response.headers:
        # uvicorn's own answer to what is no HTTP: it never came to us.
        assert (status, response.text) == (400, "Invalid HTTP request received."), response.text
        return
    problem = response.json()
    assert problem["status"] == status
    assert problem["type"] == f"urn:podium:problem:{problem['code']}"
    assert problem["instance"].removeprefix("urn:podium:request:") == response.headers["x-request-id"][0]
    if status in (413, 422):
        assert problem["issues"], problem
        assert all(issue["field"] and issue["message"] for issue in problem["issues"]), problem
    assert "Traceback" not in response.text
    assert "sqlalchemy" not in response.text.lower()
