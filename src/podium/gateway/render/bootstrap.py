"""What Envoy is started with: where its files are, its admin socket, and how it counts. Called by `envoy_process`."""

from typing import Any

from podium.gateway.render.buckets import EDGES_MS
from podium.gateway.render.document import fragment, typed
from podium.gateway.render.listener import watched
from podium.gateway.render.weights import LAYER
from podium.gateway.settings import CLUSTERS, LISTENERS, WEIGHTS, GatewaySettings

_NOT_ABOUT_REQUESTS = (
    r"cluster\.[^.]+\.(assignment_|circuit_breakers\.|default\.|lb_|max_host_weight|membership_change|membership_degraded"
    r"|membership_excluded|update_|version|warming_state).*"
)
_HEAP = "envoy.resource_monitors.fixed_heap"
_SHRUNK, _NO_KEEPALIVE, _RESET, _REFUSED, _FULL = 0.75, 0.8, 0.8, 0.9, 1.0
"""Shares of the memory from which on free memory is given back, connections are not kept, the largest requests are
ended, no more are taken, and every connection of HTTP/1.1 is ended that sends anything (before that some of them)."""
_COUNTED_FROM = 20
"""Requests are told apart by what they hold from 2^20 bytes on, in steps of twice as much: the largest go first."""


def bootstrap(settings: GatewaySettings) -> bytes:
    """Envoy's bootstrap as canonical JSON. It changes with the settings or with this code only."""
    layout = settings.layout
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
            "overload_manager": _overload(settings),
        }
    )


def _overload(settings: GatewaySettings) -> dict[str, Any]:
    """What Envoy does before connections or memory run out. Bodies are held until they are whole, so that without a
    bound whoever may send any could fill the machine."""
    connections = typed(
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=settings.max_connections,
    )
    heap = typed(
        "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
        max_heap_size_bytes=settings.memory,
    )
    return {
        # Memory fills at the speed of a network.
        "refresh_interval": "0.050s",
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": connections,
            },
            {"name": _HEAP, "typed_config": heap},
        ],
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": _COUNTED_FROM},
        "actions": [
            _action("shrink_heap", {"threshold": {"value": _SHRUNK}}),
            _action("disable_http_keepalive", {"threshold": {"value": _NO_KEEPALIVE}}),
            _action(
                "reset_high_memory_stream",
                {"scaled": {"scaling_threshold": _RESET, "saturation_threshold": _REFUSED}},
            ),
            _action("stop_accepting_requests", {"threshold": {"value": _REFUSED}}),
        ],
        # Envoy counts what a request holds for HTTP/2 only. Of HTTP/1.1 it ends connections that go on sending.
        "loadshed_points": [
            {
                "name": "envoy.load_shed_points.http1_server_abort_dispatch",
                "triggers": [
                    {
                        "name": _HEAP,
                        "scaled": {"scaling_threshold": _REFUSED, "saturation_threshold": _FULL},
                    }
                ],
            }
        ],
    }


def _action(name: str, trigger: dict[str, Any]) -> dict[str, Any]:
    """One of Envoy's overload actions, by the memory that is taken."""
    return {"name": f"envoy.overload_actions.{name}", "triggers": [{"name": _HEAP, **trigger}]}
