"""What Envoy is started with: where its files are, its admin socket, and how it counts. Called by `envoy_process`."""

from podium.gateway.render.buckets import EDGES_MS
from podium.gateway.render.document import fragment, typed
from podium.gateway.render.listener import watched
from podium.gateway.render.weights import LAYER
from podium.gateway.settings import CLUSTERS, LISTENERS, WEIGHTS, GatewaySettings

_NOT_ABOUT_REQUESTS = (
    r"cluster\.[^.]+\.(assignment_|circuit_breakers\.|default\.|lb_|max_host_weight|membership_change|membership_degraded"
    r"|membership_excluded|update_|version|warming_state).*"
)


def bootstrap(settings: GatewaySettings) -> bytes:
    """Envoy's bootstrap as canonical JSON. It changes with the settings or with this code only."""
    layout = settings.layout
    downstream = typed(
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=settings.max_connections,
    )
    return fragment(
        {
            "node": {"id": settings.name, "cluster": "podium-gateway"},
            "admin": {"address": {"pipe": {"path": str(layout.admin_socket), "mode": 0o600}}},
            "dynamic_resources": {
                "lds_config": watched(layout, LISTENERS),
                "cds_config": watched(layout, CLUSTERS),
            },
            "layered_runtime": {
                "layers": [
                    {"name": LAYER, "rtds_layer": {"name": LAYER, "rtds_config": watched(layout, WEIGHTS)}},
                ]
            },
            # Histograms are merged at the flush: a sample is at most this much behind the counters.
            "stats_flush_interval": "1s",
            "stats_config": {
                # Forty of a cluster's statistics say nothing about requests; with thousands of clusters they made
                # every start and every scrape slow.
                "stats_matcher": {
                    "exclusion_list": {"patterns": [{"safe_regex": {"regex": _NOT_ABOUT_REQUESTS}}]}
                },
                # Names are read as they are; taking them apart into tags costs more than making them.
                "use_all_default_tags": False,
                "histogram_bucket_settings": [
                    {"match": {"prefix": "cluster."}, "buckets": list(EDGES_MS)},
                ],
            },
            # A thousand idle deployments cost nothing until their first request.
            "deferred_stat_options": {"enable_deferred_creation_stats": True},
            "overload_manager": {
                "resource_monitors": [
                    {
                        "name": "envoy.resource_monitors.global_downstream_max_connections",
                        "typed_config": downstream,
                    }
                ]
            },
        }
    )
