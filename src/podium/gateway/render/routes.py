"""One fragment of the route table per Deployment, and the table around them.

Called by `loader`; `rules` makes the fragments of Routes. The table is one list that Envoy walks for each request, so
an entry has few and small routes: everything that entries share (retries, body limit) stands once at the virtual host.
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from podium.gateway.render import health
from podium.gateway.render.attempts import retry_policy
from podium.gateway.render.document import Document, document, fragment, seconds, typed
from podium.gateway.render.entrance import entrances
from podium.gateway.render.mirror import mirroring, recorded
from podium.gateway.render.problem import answer
from podium.gateway.render.sticky import keyed
from podium.gateway.render.streams import begins_within
from podium.gateway.render.weights import prefix
from podium.planning.routing import WHOLE, Arm, RouteEntry
from podium.resources.shape import DEFAULT_WORKSPACE

ROUTE_TABLE = "podium"
DEFAULT_MAX_BODY = 16 * 2**20
"""Bytes; what the buffer filter and the virtual host are set to, so that only other limits are written per route."""
PREVIEW_VALUE = "true"
_RETRY_ANY = "connect-failure,refused-stream,reset"
_RETRY_UNSENT = "connect-failure,refused-stream,reset-before-request"
_RETRIES = 2
"""So an input that kills whoever reads it takes three replicas with it at most."""
_BACK_OFF = (0.005, 0.05)
"""Seconds before the first repeat, and at most."""
REPEATED = retry_policy(_RETRY_ANY, _RETRIES, *_BACK_OFF)
"""The retry policy of the virtual host: of all routes that have none of their own."""
_STREAM_IDLE = 240.0
"""Envoy ends a stream on which nothing moved for 300 s; longer request timeouts need their own limit."""
_EXTENSIONS = ["binary_tensor_data"]
"""Of the protocol, as a replica names them: what a client is told here holds behind the gateway."""
_ID = "[^/]+"
_WITHOUT_WORKSPACE = {"pattern": {"regex": f"^/ws/{_ID}"}, "substitution": ""}
"""Not a rewritten prefix: the path of a gRPC call, which is back in place by then, has to stay as it is."""


@dataclass(frozen=True)
class EntryRoutes:
    """Rendered routes of one Deployment or Route. In the table all `pinned` come first, then one shared route that
    turns every other `/versions/...` away, then all `published` (a Route takes the path of a Deployment over that has
    its name), then all `main`."""

    pinned: tuple[bytes, ...] = ()
    main: tuple[bytes, ...] = ()
    published: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Handling:
    """What holds for the requests of a route wherever they go. `timeout` in seconds, `max_body` in bytes."""

    timeout: float
    idempotent: bool
    max_body: int
    rewrite: dict[str, Any] | None = None
    held: bool = True
    """Whether the replica itself holds each request to its time, as Podium's model server does."""


def entry_routes(entry: RouteEntry, split: tuple[Arm, ...] = ()) -> EntryRoutes:
    """The routes of one entry: version, preview, live; or a 503 that says why nothing answers; or 404 to all of them.

    `split`: (stable, candidate) of a rollout under way, in that order. Their weights are not in the routes, so that a
    shift changes none; without weights from the runtime layer, all goes to the first.
    """
    outside = public_path(entry.workspace, entry.deployment)
    # The name is what requests are counted by.
    named = {"name": f"deployment:{entry.workspace}/{entry.deployment}"}
    if not entry.own_path:
        return _by_routes_only(entry, outside, named)
    rewrite = None if entry.workspace == DEFAULT_WORKSPACE else _WITHOUT_WORKSPACE
    held = all(arm.paths is None for arm in entry.arms)
    how = Handling(entry.timeout, entry.idempotent, entry.max_body, rewrite, held)
    pinned, main = [], []
    if entry.direct is not None:
        match = {"path_separated_prefix": f"{outside}/versions/{entry.direct.version}"}
        pinned.append(route_to(match, {"cluster": entry.direct.cluster}, how))
    if entry.preview is not None and entry.preview_header is not None:
        header = {"name": entry.preview_header, "string_match": {"exact": PREVIEW_VALUE}}
        match_preview = {"path_separated_prefix": outside, "headers": [header]}
        main.append(route_to(match_preview, {"cluster": entry.preview.cluster}, how))
    match = {"path_separated_prefix": outside}
    if entry.live:
        main += [_copied(entry, route) for route in _live_routes(entry, split, how)]
    else:
        said = answer(
            "unavailable", 503, f"deployment {entry.workspace}/{entry.deployment}: {entry.unavailable}",
            deployment=entry.deployment, workspace=entry.workspace,
        )  # fmt: skip
        main.append({"match": match, "direct_response": said})
    return EntryRoutes(*(tuple(fragment({**route, **named}) for route in part) for part in (pinned, main)))


def _by_routes_only(entry: RouteEntry, outside: str, named: dict[str, Any]) -> EntryRoutes:
    """What stands at a path that is closed. Versions have their own: what turns others away says something else."""
    said = answer(
        "notFound", 404, f"deployment {entry.workspace}/{entry.deployment} is asked through Routes only "
        "(its spec.traffic.ownPath is false): ask the Route by its name",
        deployment=entry.deployment, workspace=entry.workspace,
    )  # fmt: skip
    versions, others = (
        fragment({"match": {"path_separated_prefix": path}, "direct_response": said, **named})
        for path in (f"{outside}/versions", outside)
    )
    return EntryRoutes((versions,), (others,))


def public_path(workspace: str, name: str) -> str:
    """Where a Deployment or a Route answers."""
    inside = f"/v2/models/{name}"
    return inside if workspace == DEFAULT_WORKSPACE else f"/ws/{workspace}{inside}"


def _live_routes(entry: RouteEntry, split: tuple[Arm, ...], how: Handling) -> list[dict[str, Any]]:
    match = {"path_separated_prefix": public_path(entry.workspace, entry.deployment)}
    if entry.sticky is None or len(split) < 2:
        return [route_to(match, _target(entry, split), how)]
    parts = keyed(match, entry.sticky, entry.salt)
    return [route_to(part, {**_target(entry, split, by_hash=bool(key)), **key}, how) for part, key in parts]


def _copied(entry: RouteEntry, route: dict[str, Any]) -> dict[str, Any]:
    """With copies for the candidate of a rollout, if there are any to be made."""
    if entry.shadow is None:
        return route
    headers = [*route.get("request_headers_to_add", ()), *recorded([entry.shadow])]
    action = {**route["route"], **mirroring([entry.shadow])}
    return {**route, "route": action, "request_headers_to_add": headers}


def _target(entry: RouteEntry, split: tuple[Arm, ...], *, by_hash: bool = False) -> dict[str, Any]:
    arms = split if len(split) > 1 else entry.live
    if len(arms) == 1:
        return {"cluster": arms[0].cluster}
    shares = [(arm.cluster, WHOLE if place == 0 else 0) for place, arm in enumerate(arms)]
    return {
        "weighted_clusters": {
            "runtime_key_prefix": prefix(entry.workspace, entry.deployment),
            "clusters": [{"name": name, "weight": weight} for name, weight in shares],
            **({"use_hash_policy": True} if by_hash else {}),
        }
    }


def route_to(match: dict[str, Any], target: dict[str, Any], how: Handling) -> dict[str, Any]:
    """One route of Envoy's. `target` is its action as far as that says where to."""
    action = {**target, "timeout": seconds(how.timeout)}
    if how.rewrite is not None:
        action["regex_rewrite"] = how.rewrite
    if how.timeout > _STREAM_IDLE:
        action["idle_timeout"] = seconds(how.timeout + 60)
    if not how.idempotent and "retry_policy" not in action:
        action["retry_policy"] = _retry(_RETRY_UNSENT)
    route: dict[str, Any] = {"match": match, "route": action}
    if how.max_body != DEFAULT_MAX_BODY:
        route["request_body_buffer_limit"] = how.max_body
        limit = typed(
            "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
            buffer={"max_request_bytes": how.max_body},
        )
        route["typed_per_filter_config"] = {"envoy.filters.http.buffer": limit}
    if not how.held:
        route["route"] = begins_within(action, how.timeout, REPEATED)
    return route


def _retry(reasons: str) -> dict[str, Any]:
    """Another replica is tried at once. An overload answer (429) is an answer: repeating it would add to the load."""
    return retry_policy(reasons, _RETRIES, *_BACK_OFF)


@functools.lru_cache(maxsize=4)
def _before(configured: bool, version: str) -> tuple[bytes, ...]:
    """What the gateway answers itself. It is ready as soon as it has had a configuration from the server."""
    about = {"name": "podium", "version": version, "extensions": _EXTENSIONS}
    ready = (
        {"status": 200, "body": {"inline_string": '{"ready":true}'}}
        if configured
        else answer("unavailable", 503, "the gateway has had no configuration from the server yet")
    )
    json_header = {"header": {"key": "content-type", "value": "application/json"}}
    plain = {"response_headers_to_add": [{**json_header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]}
    live = {"status": 200, "body": {"inline_string": '{"live":true}'}}
    server = {"status": 200, "body": {"inline_string": fragment(about).decode()}}
    return (
        *(fragment(route) for route in entrances()),
        fragment({"match": {"path": "/v2"}, "direct_response": server, **plain}),
        fragment({"match": {"path": "/v2/health/live"}, "direct_response": live, **plain}),
        fragment(
            {
                "match": {"path": health.READY},
                "direct_response": ready,
                "typed_per_filter_config": health.ON,
                **(plain if configured else {}),
            }
        ),
        fragment(
            {
                "match": {"prefix": f"/ws/{DEFAULT_WORKSPACE}/v2/"},
                "redirect": {"prefix_rewrite": "/v2/", "response_code": "PERMANENT_REDIRECT"},
            }
        ),
    )


_VERSIONS = fragment(
    {
        "match": {"safe_regex": {"regex": rf"(/ws/{_ID})?/v2/models/{_ID}/versions(/.*)?"}},
        "direct_response": answer(
            "notFound", 404, "the deployment does not serve this version: only the version that has passed its gates "
            "answers by number",
        ),
    }
)  # fmt: skip
_UNKNOWN = fragment(
    {
        "match": {"safe_regex": {"regex": rf"(/ws/{_ID})?/v2/models/{_ID}(/.*)?"}},
        "direct_response": answer(
            "notFound", 404, "no deployment with this name is served in this workspace"
        ),
    }
)
_NO_PATH = fragment(
    {
        "match": {"prefix": "/"},
        "direct_response": answer(
            "notFound",
            404,
            "no such path; deployments answer at /v2/models/NAME and /ws/WORKSPACE/v2/models/NAME",
        ),
    }
)


def route_table(entries: Iterable[EntryRoutes], *, configured: bool, version: str) -> Document:
    """The whole table. `configured` False: nothing has ever come from the server, so the gateway is not ready."""
    pinned: list[bytes] = []
    main: list[bytes] = []
    published: list[bytes] = []
    for entry in entries:
        pinned.extend(entry.pinned)
        main.extend(entry.main)
        published.extend(entry.published)
    before = _before(configured, version)
    routes = b",".join([*before, *pinned, _VERSIONS, *published, *main, _UNKNOWN, _NO_PATH])
    return document([_FRAME[0] + routes + _FRAME[1]])


def has_own(table: bytes, *, configured: bool, version: str) -> bool:
    """Whether a table has the routes in front of all entries that this version writes there."""
    return b",".join(_before(configured, version)) in table


def _frame() -> tuple[bytes, bytes]:
    """The table's JSON before and after the list of routes."""
    mark = "\x00"
    table = typed(
        "envoy.config.route.v3.RouteConfiguration",
        name=ROUTE_TABLE,
        virtual_hosts=[
            {
                "name": ROUTE_TABLE,
                "domains": ["*"],
                "retry_policy": REPEATED,
                "request_body_buffer_limit": DEFAULT_MAX_BODY,
                # A model's code never sees a caller's token.
                "request_headers_to_remove": ["authorization"],
                "routes": [mark],
            }
        ],
        # A missing cluster fails its own requests only; without this one would make Envoy refuse the whole table.
        validate_clusters=False,
    )
    before, after = re.split(re.escape(fragment(mark).decode()), fragment(table).decode())
    return before.encode(), after.encode()


_FRAME = _frame()
