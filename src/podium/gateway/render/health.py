"""`/v2/health/ready` of a gateway that is about to stop: 503, while it still serves. Called by `listener` and `routes`.

Load balancers ask that path. They are given the time to send new connections elsewhere before these are refused
(`admin.fail_health`, `envoy_process.announce`).
"""

from typing import Any

from podium.gateway.render.document import typed

READY = "/v2/health/ready"
_FILTER = "envoy.filters.http.health_check"
ON = {_FILTER: typed("envoy.config.route.v3.FilterConfig", config={})}
"""For a route's `typed_per_filter_config`: that the filter is on."""


def leaving() -> dict[str, Any]:
    """The filter, which lets every request pass until Envoy was told to fail its health checks."""
    ready = {"name": ":path", "string_match": {"exact": READY}}
    settings = typed(
        "envoy.extensions.filters.http.health_check.v3.HealthCheck", pass_through_mode=True, headers=[ready]
    )
    return {"name": _FILTER, "typed_config": settings}
