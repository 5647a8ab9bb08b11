"""A copy of a share of requests for another Deployment, whose answers nobody gets. Called by `rules` and `clusters`.

Envoy sends the copy beside the request, under the same `x-request-id`, and waits for nothing: it has its own cluster
(role `shadow`), so that what it does is in no canary's counters, and its own limit, so that a shadow that hangs holds
some hundred requests and no more.
"""

from collections.abc import Iterable
from typing import Any

from podium.planning.routing import Arm

SHADOW_HEADER = "x-podium-shadow"
"""`true` on each copy, so that a replica knows that nobody reads its answer. No client can send it."""
RECORD_HEADER = "x-podium-record"
"""`true` on each request that a copy may be made of, and on the copy: Podium's own model server then writes down what
it answered, so that both can be compared. No client can send it."""
UNDER_WAY = 256
"""Copies that one gateway has under way to one shadow; more are not sent, and count as its
`upstream_rq_active_overflow`."""


def mirroring(shadows: Iterable[tuple[Arm, int]]) -> dict[str, Any]:
    """For the route's action: arms of role `shadow`, each with its share of requests in basis points. Every share is
    drawn by itself."""
    policies = [_policy(arm.cluster, share) for arm, share in shadows if share > 0]
    return {"request_mirror_policies": policies} if policies else {}


def recorded(shadows: Iterable[tuple[Arm, int]]) -> list[dict[str, Any]]:
    """For the route itself: what it adds to the headers of every request that copies may be made of."""
    if not any(share > 0 for _, share in shadows):
        return []
    header = {"key": RECORD_HEADER, "value": "true"}
    return [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]


def _policy(cluster: str, share: int) -> dict[str, Any]:
    mark = {
        "header": {"key": SHADOW_HEADER, "value": "true"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return {
        "cluster": cluster,
        "runtime_fraction": {"default_value": {"numerator": share, "denominator": "TEN_THOUSAND"}},
        # A host with `-shadow` after it would be unknown to servers that look at it.
        "disable_shadow_host_suffix_append": True,
        "request_headers_mutations": [{"append": mark}],
    }
