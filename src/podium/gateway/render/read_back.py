"""The inverse of `routes` and `clusters`: fragments out of files that an agent before this one wrote.

Called by `loader`. A file is read as what it is, not as what this version would write: fragments keep their content.
"""

import re
from typing import Any

import orjson

from podium.gateway.render.attempts import clusters_of as staged_clusters
from podium.gateway.render.document import fragment
from podium.gateway.render.health import READY
from podium.gateway.render.routes import EntryRoutes
from podium.resources.shape import DEFAULT_WORKSPACE

_PREFIX = re.compile(
    r"(?:/ws/(?P<workspace>[^/]+))?/v2/models/(?P<deployment>[^/]+)(?P<pinned>/versions(?:/[^/]+)?)?"
)
_ROUTE_NAME = re.compile(r"route:(?P<workspace>[^/]+)/(?P<name>[^#]+)(?:#.*)?")


def resources_of(content: bytes) -> dict[str, bytes]:
    """name -> fragment of each resource of a file."""
    return {resource["name"]: fragment(resource) for resource in orjson.loads(content)["resources"]}


def is_configured(table: bytes) -> bool:
    """Does this route table say that the gateway is ready?"""
    for route in _routes(table):
        if route["match"].get("path") == READY:
            return bool(route["direct_response"]["status"] == 200)
    return False


def entries_of(table: bytes) -> dict[tuple[str, str], EntryRoutes]:
    """(workspace, deployment) or (workspace, route:NAME) -> its routes in this table."""
    pinned: dict[tuple[str, str], list[bytes]] = {}
    main: dict[tuple[str, str], list[bytes]] = {}
    published: dict[tuple[str, str], list[bytes]] = {}
    for route in _routes(table):
        named = _ROUTE_NAME.fullmatch(route.get("name", ""))
        if named is not None:
            key = (named["workspace"], f"route:{named['name']}")
            published.setdefault(key, []).append(fragment(route))
            continue
        found = _PREFIX.fullmatch(route["match"].get("path_separated_prefix", ""))
        if found is not None:
            key = (found["workspace"] or DEFAULT_WORKSPACE, found["deployment"])
            (pinned if found["pinned"] else main).setdefault(key, []).append(fragment(route))
    return {
        key: EntryRoutes(*(tuple(part.get(key, ())) for part in (pinned, main, published)))
        for key in {**pinned, **main, **published}
    }


def clusters_of(routes: EntryRoutes) -> set[str]:
    """Names of the clusters that these routes lead to."""
    names: set[str] = set()
    for content in (*routes.pinned, *routes.main, *routes.published):
        action = orjson.loads(content).get("route", {})
        if "cluster" in action:
            names.add(action["cluster"])
        names.update(arm["name"] for arm in action.get("weighted_clusters", {}).get("clusters", ()))
        names.update(policy["cluster"] for policy in action.get("request_mirror_policies", ()))
        names |= staged_clusters(action)
    return names


def _routes(table: bytes) -> list[dict[str, Any]]:
    routes: list[dict[str, Any]] = orjson.loads(table)["resources"][0]["virtual_hosts"][0]["routes"]
    return routes
