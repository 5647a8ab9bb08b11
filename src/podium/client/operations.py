"""Objects, rollouts, aliases, tokens, records: what the API does, one generator each. Run by both clients."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from podium.client.effects import Call, Operation, Pause, Query, Reply, call
from podium.resources.comparison import Comparison, Comparisons
from podium.resources.errors import Conflict, InvalidInput, Issue
from podium.resources.kinds import KINDS, AnyResource, Kind, Model, kind_of
from podium.resources.load import Traffic
from podium.resources.requests import (
    ActionResult,
    ApplyResult,
    DeleteResult,
    IssuedToken,
    ReplicaLog,
    RotateRequest,
    TokenInfo,
    TokenRequest,
)
from podium.resources.route_test import RouteTestRequest, RouteTestResult

Action = Literal["pause", "resume", "promote", "abort", "retry"]
_ATTEMPTS = 20
_PAGE = 500


def segment(text: str) -> str:
    """A name as one part of a path, whatever is in it."""
    return quote(text, safe="")


def place(kind: Kind, workspace: str, name: str) -> str:
    """Path of one object."""
    if kind.name == "Workspace":
        return f"/workspaces/{segment(name)}"
    return f"/workspaces/{segment(workspace)}/{kind.plural}/{segment(name)}"


def deployment_path(workspace: str, name: str, what: str) -> str:
    """Path of something that a Deployment has."""
    return f"{place(KINDS['Deployment'], workspace, name)}/{what}"


def parsed(document: Mapping[str, Any]) -> AnyResource:
    """An object of the API as one of ours."""
    return kind_of(str(document["kind"])).parse(document)


def apply(
    document: Mapping[str, Any], workspace: str, dry_run: bool, beside: Sequence[str] = ()
) -> Operation[ApplyResult]:
    """Creates or updates. A document that names its resourceVersion is sent once, as it is. One that does not is sent
    again with the present version for as long as somebody else is faster: then it is written over what they wrote."""
    meta = document.get("metadata")
    if not isinstance(meta, Mapping):
        raise InvalidInput(Issue("metadata", "expected an object with at least a name"))
    query: Query = {
        "workspace": None if meta.get("workspace") else workspace,
        "dryRun": dry_run or None,
        "beside": ",".join(beside) or None,
    }
    if document.get("kind") == "Workspace":
        query = {"dryRun": dry_run or None}
    wish = dict(document)
    for attempt in range(_ATTEMPTS):
        try:
            reply = yield from call(Call("POST", "/apply", query, body=wish))
            return ApplyResult.model_validate(reply.json())
        except Conflict as error:
            if meta.get("resourceVersion") is not None or attempt == _ATTEMPTS - 1:
                raise
            present = error.details.get("resourceVersion")
            # Without a present version the object went away in between: create it.
            wish["metadata"] = {**meta, "resourceVersion": present} if present is not None else dict(meta)
            if attempt:
                yield Pause(0.02 * attempt)
    raise AssertionError("the loop returns or raises")


def get(kind: str, name: str, workspace: str) -> Operation[AnyResource]:
    """One object. Raises NotFound."""
    reply = yield from call(Call("GET", place(kind_of(kind), workspace, name)))
    return parsed(reply.json())


def list_objects(
    kind: str, workspace: str | None, labels: str | None, fields: str | None
) -> Operation[list[AnyResource]]:
    """All objects, page after page. `workspace` None: of all workspaces that the token covers."""
    known = kind_of(kind)
    within = workspace is not None and known.name != "Workspace"
    path = f"/workspaces/{segment(workspace or '')}/{known.plural}" if within else f"/{known.plural}"
    items: list[AnyResource] = []
    after: str | None = None
    while True:
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": _PAGE, "continue": after}
        page = (yield from call(Call("GET", path, query))).json()
        items += [known.parse(item) for item in page["items"]]
        after = page["continue"]
        if after is None:
            return items


def delete(kind: str, name: str, workspace: str, resource_version: int | None) -> Operation[DeleteResult]:
    """Asks for the deletion; `removed` is False while finalizers hold it."""
    query = {"resourceVersion": resource_version}
    reply = yield from call(Call("DELETE", place(kind_of(kind), workspace, name), query))
    return DeleteResult.model_validate(reply.json())


def rollout(name: str, action: Action, workspace: str) -> Operation[ActionResult]:
    """pause, resume, promote, abort, retry."""
    reply = yield from call(
        Call("POST", deployment_path(workspace, name, "rollout"), body={"action": action})
    )
    return ActionResult.model_validate(reply.json())


def rollback(name: str, revision: str | None, workspace: str) -> Operation[ActionResult]:
    """Back to that revision, or to the one before."""
    reply = yield from call(
        Call("POST", deployment_path(workspace, name, "rollback"), body={"revision": revision})
    )
    return ActionResult.model_validate(reply.json())


def test_route(name: str, request: RouteTestRequest, workspace: str) -> Operation[RouteTestResult]:
    """Which Deployment would answer the request."""
    path = f"{place(KINDS['Route'], workspace, name)}/test"
    reply = yield from call(Call("POST", path, body=request.model_dump(mode="json", by_alias=True)))
    return RouteTestResult.model_validate(reply.json())


def logs(name: str, replica: str | None, lines: int, workspace: str) -> Operation[list[ReplicaLog]]:
    """The last lines of each replica."""
    query: Query = {"replica": replica, "lines": lines}
    reply = yield from call(Call("GET", deployment_path(workspace, name, "logs"), query))
    return [ReplicaLog.model_validate(item) for item in reply.json()["items"]]


def set_alias(model: str, alias: str, version: str | None, workspace: str) -> Operation[Model]:
    """Points it at a version, or takes it away (None). The Model as it is then."""
    path = f"{place(KINDS['Model'], workspace, model)}/aliases/{segment(alias)}"
    if version is None:
        reply = yield from call(Call("DELETE", path))
    else:
        reply = yield from call(Call("PUT", path, body={"version": str(version)}))
    return parsed(reply.json())


def alias_history(model: str, workspace: str) -> Operation[dict[str, Any]]:
    """`aliases`: where each one points; `history`: every move, newest first."""
    reply = yield from call(Call("GET", f"{place(KINDS['Model'], workspace, model)}/aliases"))
    return dict(reply.json())


def verify(model: str, version: str, workspace: str) -> Operation[dict[str, Any]]:
    """`intact` (None: not all of it could be read), `findings`, `object`."""
    path = place(KINDS["ModelVersion"], workspace, f"{model}.{version}")
    reply = yield from call(Call("POST", f"{path}/verify", timeout=3600))
    return dict(reply.json())


def create_token(request: TokenRequest) -> Operation[IssuedToken]:
    """The token is in the answer, and nowhere else."""
    body = request.model_dump(mode="json", by_alias=True, exclude_none=True)
    reply = yield from call(Call("POST", "/tokens", body=body))
    return IssuedToken.model_validate(reply.json())


def rotate_token(token_id: str, request: RotateRequest) -> Operation[IssuedToken]:
    """A new token like this one, in the answer and nowhere else."""
    body = request.model_dump(mode="json", by_alias=True)
    reply = yield from call(Call("POST", f"/tokens/{segment(token_id)}/rotate", body=body))
    return IssuedToken.model_validate(reply.json())


def token(token_id: str) -> Operation[TokenInfo]:
    """One token on record."""
    reply = yield from call(Call("GET", f"/tokens/{segment(token_id)}"))
    return TokenInfo.model_validate(reply.json())


def tokens() -> Operation[list[TokenInfo]]:
    """All tokens on record."""
    reply = yield from call(Call("GET", "/tokens"))
    return [TokenInfo.model_validate(item) for item in reply.json()["items"]]


def revoke_token(token_id: str) -> Operation[TokenInfo]:
    """Refused from now on."""
    reply = yield from call(Call("DELETE", f"/tokens/{segment(token_id)}"))
    return TokenInfo.model_validate(reply.json())


def traffic(window: str, workspace: str | None) -> Operation[Traffic]:
    """Of one workspace, or of all that the token covers (None)."""
    path = "/traffic" if workspace is None else f"/workspaces/{segment(workspace)}/traffic"
    reply = yield from call(Call("GET", path, {"window": window}))
    return Traffic.model_validate(reply.json())


def comparisons(workspace: str) -> Operation[list[Comparison]]:
    """Shadows beside their champions."""
    reply = yield from call(Call("GET", f"/workspaces/{segment(workspace)}/comparisons"))
    return Comparisons.model_validate(reply.json()).items


def gateways(since: int | None) -> Operation[list[dict[str, Any]]]:
    """Those that reported in the last `since` seconds."""
    reply = yield from call(Call("GET", "/gateways", {"since": since}))
    return list(reply.json()["items"])


def forget_gateway(name: str, force: bool) -> Operation[dict[str, Any]]:
    """Its last report, as it was."""
    reply = yield from call(Call("DELETE", f"/gateways/{segment(name)}", {"force": force or None}))
    return dict(reply.json())


def records(path: str, limit: int, **filters: str | None) -> Operation[list[dict[str, Any]]]:
    """Up to `limit` rows of events or audit, newest first, over as many pages as it takes."""
    rows: list[dict[str, Any]] = []
    before: int | None = None
    while len(rows) < limit:
        query: Query = {**filters, "limit": min(1000, limit - len(rows)), "before": before}
        page = (yield from call(Call("GET", path, query))).json()
        rows += page["items"]
        before = page["next"]
        if before is None:
            break
    return rows


def samples(rollout_name: str, workspace: str) -> Operation[list[dict[str, Any]]]:
    """All samples of a rollout, oldest first."""
    path = f"{place(KINDS['Rollout'], workspace, rollout_name)}/samples"
    rows: list[dict[str, Any]] = []
    after = 0
    while True:
        page = (yield from call(Call("GET", path, {"after": after, "limit": 1000}))).json()
        rows += page["items"]
        if page["next"] is None:
            return rows
        after = page["next"]


def replay(rollout_name: str, workspace: str) -> Operation[list[dict[str, Any]]]:
    """What the stored evidence of a rollout's decisions gives when it is judged again."""
    path = f"{place(KINDS['Rollout'], workspace, rollout_name)}/replay"
    return list((yield from plain(path))["items"])


def plain(path: str) -> Operation[dict[str, Any]]:
    """Whatever the API says there."""
    reply: Reply = yield from call(Call("GET", path))
    return dict(reply.json())
