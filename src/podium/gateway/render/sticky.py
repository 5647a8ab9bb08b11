"""A user's key as Envoy's hash policy: the same user meets the same arm. Called by `rules` and `routes`.

Envoy hashes the salted key (xxHash64) and takes the place that this gives on the line of the weights;
`planning.sticky.place_of` tells the same place.
"""

import re
from typing import Any

from podium.gateway.render.access import CALLER_HEADER, CLAIMS_HEADER
from podium.resources.claims import is_own, text_pattern
from podium.resources.route import StickyKey

_WHOLE = "(.*)"


def keyed(match: dict[str, Any], sticky: StickyKey, salt: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The matches that `match` falls into, each with what is to be merged into the action of its route: a hash policy,
    or nothing where there is no key and requests are spread at random. The salt must hold no backslash."""
    name, pattern = _where(sticky)
    # The salted key: without the salt the same users would be in the first variant of every experiment.
    rewrite = {"pattern": {"regex": f"(?s)^{pattern}$"}, "substitution": f"{salt}:\\1"}
    hashed = {"hash_policy": [{"header": {"header_name": name, "regex_rewrite": rewrite}}]}
    if pattern == _WHOLE:
        return [(match, hashed)]
    # Without the key, the other cookies or claims in the header would be it.
    has = {"name": name, "string_match": {"safe_regex": {"regex": f"(?s){pattern}"}}}
    with_key = {**match, "headers": [*match.get("headers", ()), has]}
    return [(with_key, hashed), (match, {})]


def _where(sticky: StickyKey) -> tuple[str, str]:
    """The header that the key stands in, and a pattern of the header whose first group is the key."""
    if sticky.cookie is not None:
        return "cookie", _cookie(sticky.cookie)
    if sticky.claim is not None and not is_own(sticky.claim):
        return CLAIMS_HEADER, text_pattern(sticky.claim)
    return sticky.header or CALLER_HEADER, _WHOLE


def _cookie(name: str) -> str:
    return rf"(?:.*;\s*)?{re.escape(name)}=([^;]*).*"
