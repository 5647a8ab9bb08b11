"""A user's key as Envoy's hash policy: the same user meets the same arm. Called by `rules` and `routes`.

Envoy hashes the salted key (xxHash64) and takes the place that this gives on the line of the weights;
`planning.sticky.place_of` tells the same place.
"""

import re
from typing import Any

from podium.gateway.render.access import CALLER_HEADER
from podium.resources.route import StickyKey


def keyed(match: dict[str, Any], sticky: StickyKey, salt: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The matches that `match` falls into, each with what is to be merged into the action of its route: a hash policy,
    or nothing where there is no key and requests are spread at random. The salt must hold no backslash."""
    by_key = (match, {"hash_policy": _hash(sticky, salt)})
    if sticky.cookie is None:
        return [by_key]
    # Without the cookie the other cookies would be the key.
    has = {"name": "cookie", "string_match": {"safe_regex": {"regex": f"(?s){_cookie(sticky.cookie)}"}}}
    with_cookie = {**match, "headers": [*match.get("headers", ()), has]}
    return [(with_cookie, by_key[1]), (match, {})]


def _hash(sticky: StickyKey, salt: str) -> list[dict[str, Any]]:
    """The salted key: without the salt the same users would be in the first variant of every experiment."""
    name, pattern = sticky.header or CALLER_HEADER, "(?s)^(.*)$"
    if sticky.cookie is not None:
        name, pattern = "cookie", f"(?s)^{_cookie(sticky.cookie)}$"
    rewrite = {"pattern": {"regex": pattern}, "substitution": f"{salt}:\\1"}
    return [{"header": {"header_name": name, "regex_rewrite": rewrite}}]


def _cookie(name: str) -> str:
    return rf"(?:.*;\s*)?{re.escape(name)}=([^;]*).*"
