"""One Envoy cluster per arm: a revision in one role, with the addresses of its ready replicas.

Called by `loader`. Calls `planning.routing` for the data only, and `paths` for servers with names of their own.
"""

import functools
import ipaddress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from podium.gateway.render.document import fragment, seconds, typed
from podium.gateway.render.mirror import UNDER_WAY
from podium.gateway.render.paths import upstream_filters
from podium.gateway.render.protection import breakers, outliers
from podium.planning.routing import Arm
from podium.resources.errors import InvalidInput, Issue

CONNECT_TIMEOUT = 2.0
IDLE_TIMEOUT = 4.0
"""Seconds after which an unused connection to a replica is closed: before the replica does it, so that no request is
written into a connection that is being closed."""


def cluster(arm: Arm) -> bytes:
    """The arm's cluster. Raises InvalidInput for an address that is neither `unix:/path` nor `http://host:port`.

    The weight is not in it, so a flip of weights changes no cluster.
    """
    return _cluster(replace(arm, weight=0))


@functools.lru_cache(maxsize=65_536)
def _cluster(arm: Arm) -> bytes:
    name, addresses = arm.cluster, [_address(endpoint) for endpoint in arm.endpoints]
    filters = upstream_filters(arm)
    return fragment(
        typed(
            "envoy.config.cluster.v3.Cluster",
            name=name,
            type="STRICT_DNS" if any(by_name for _, by_name in addresses) else "STATIC",
            connect_timeout=seconds(CONNECT_TIMEOUT),
            lb_policy="LEAST_REQUEST",
            load_assignment={
                "cluster_name": name,
                "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": address}} for address, _ in addresses]}
                ],
            },
            circuit_breakers=breakers(
                arm.protection.circuit_breaker if arm.protection else None,
                most=UNDER_WAY if arm.role == "shadow" else None,
            ),
            **outliers(arm.protection.outlier_ejection if arm.protection else None),
            typed_extension_protocol_options={
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    explicit_http_config={"http_protocol_options": {}},
                    common_http_protocol_options={"idle_timeout": seconds(IDLE_TIMEOUT)},
                    **({"http_filters": filters} if filters else {}),
                )
            },
        )
    )


def _address(endpoint: str) -> tuple[dict[str, Any], bool]:
    """Envoy's form of an address, and whether its host is a name that must be resolved."""
    if endpoint.startswith("unix:/"):
        return {"pipe": {"path": endpoint.removeprefix("unix:")}}, False
    parts = urlsplit(endpoint)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "http" or not parts.hostname or not port or parts.path not in ("", "/"):
        raise InvalidInput(Issue("address", f"{endpoint[:200]!r}: expected unix:/path or http://host:port"))
    socket = {"socket_address": {"address": parts.hostname, "port_value": port}}
    try:
        ipaddress.ip_address(parts.hostname)
    except ValueError:
        return socket, True
    return socket, False
