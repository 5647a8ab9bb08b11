"""A small model first, and a larger one where it is not sure. Called by `rules`; the attempts are `attempts`'.

The request tells the replicas of the first Deployment what counts as sure, in a header that no client can send. A
replica that is not sure says so in its answer's header, which Envoy takes as the reason for the next attempt. Nothing
is held back: Envoy drops the first answer, so when the larger model then fails, its failure is the answer (or the
fallback's, where there is one). A streamed answer never says it.
"""

from collections.abc import Iterable
from typing import Any

from podium.resources.traffic import Cascade

CASCADE_HEADER = "x-podium-cascade"


def asking(cascade: Cascade, deployments: Iterable[str]) -> list[dict[str, Any]]:
    """For the route's `request_headers_to_add`. `deployments` are those that may be asked first: the larger model gets
    the same header, and knows by the names that it is not meant."""
    value = f"by={','.join(deployments)};threshold={cascade.threshold!r};output={cascade.output}"
    return [
        {"header": {"key": CASCADE_HEADER, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    ]
