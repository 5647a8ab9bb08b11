"""The one listener: HTTP in, tokens, body limit, gRPC, routes. Called by `loader`; changes with the settings only."""

from typing import Any

from podium.gateway.render import (
    adaptive,
    entrance,
    fallback,
    grpc,
    health,
    limits,
    streams,
    tls,
    v1,
    variants,
)
from podium.gateway.render.access import CALLER_HEADER, CLAIMS_HEADER, FILTERS, placing
from podium.gateway.render.cascade import CASCADE_HEADER
from podium.gateway.render.counting import counting
from podium.gateway.render.document import Document, document, fragment, typed
from podium.gateway.render.mirror import RECORD_HEADER, SHADOW_HEADER
from podium.gateway.render.problem import local_replies
from podium.gateway.render.record import record
from podium.gateway.render.routes import DEFAULT_MAX_BODY, ROUTE_TABLE
from podium.gateway.settings import (
    ACCESS,
    ADAPTIVE,
    CERTIFICATES,
    LIMITS,
    REVOKED,
    ROUTES,
    TOKENS,
    GatewaySettings,
    Layout,
)

STAT_PREFIX = "podium"
"""Statistics of the listener's side are `http.podium.*`."""
_HEADERS_KB = 32
_HEADERS_COUNT = 100
_HTTP2 = {
    "max_concurrent_streams": 128,
    "initial_stream_window_size": 2**20,
    "initial_connection_window_size": 8 * 2**20,
}
"""Requests under way on one connection, and the bytes that a client may send ahead of what is read."""
_OURS = (CALLER_HEADER, CLAIMS_HEADER, CASCADE_HEADER, RECORD_HEADER, SHADOW_HEADER, "x-podium-route")
"""Headers that only the gateway says: filters, routes and replicas believe them."""


def watched(layout: Layout, kind: str) -> dict[str, Any]:
    """Envoy's `ConfigSource` for one of our files; a rename inside its folder is what wakes Envoy."""
    path = layout.document(kind)
    return {
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
        "resource_api_version": "V3",
        # The file is always there before Envoy starts: a gateway without its routes must not open its port.
        "initial_fetch_timeout": "0s",
    }


def listener(settings: GatewaySettings, *, recording: bool = True) -> Document:
    """The listener on `host:port`, for HTTP/1.1 and HTTP/2 alike: the first bytes of a connection tell which, or
    with TLS what both sides agree on. `recording` False: without the access record that the settings ask for, because
    its file cannot be opened, and Envoy would refuse the listener."""
    secured = (
        {"transport_socket": tls.transport(watched(settings.layout, CERTIFICATES))}
        if settings.certificate
        else {}
    )
    place = settings.record_file if recording else None
    manager = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": _manager(settings, record(place) if place is not None else []),
    }
    return document(
        [
            fragment(
                typed(
                    "envoy.config.listener.v3.Listener",
                    name="podium",
                    address={"socket_address": {"address": settings.host, "port_value": settings.port}},
                    # Otherwise a second Envoy on the same port would silently take half of the requests.
                    enable_reuse_port=False,
                    filter_chains=[{"filters": [manager], **secured}],
                )
            )
        ]
    )


def _manager(settings: GatewaySettings, recording: list[dict[str, Any]]) -> dict[str, Any]:
    return typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=STAT_PREFIX,
        codec_type="AUTO",
        http2_protocol_options=_HTTP2,
        rds={"route_config_name": ROUTE_TABLE, "config_source": watched(settings.layout, ROUTES)},
        access_log=[
            *counting(callers=settings.metrics_port is not None),
            limits.turned_away(),
            *recording,
        ],
        http_filters=_filters(settings),
        local_reply_config=local_replies(),
        server_name="podium",
        use_remote_address=True,
        # No client's address counts as internal: its own x-envoy-* headers (timeouts, retries) are never obeyed.
        internal_address_config={"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        early_header_mutation_extensions=[_without_ours()],
        generate_request_id=True,
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        # The path is made canonical before anything looks at it, so that filters, routes and replica see the same.
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        max_request_headers_kb=_HEADERS_KB,
        common_http_protocol_options={
            "idle_timeout": "900s",
            "max_headers_count": _HEADERS_COUNT,
            # Servers of CGI's line read `_` in a header's name as `-`: to them any mixture of both is one of ours.
            "headers_with_underscores_action": "DROP_HEADER",
        },
        request_headers_timeout="15s",
        request_timeout="600s",
        stream_idle_timeout="300s",
    )


def _without_ours() -> dict[str, Any]:
    """Takes out of each request what a client says in our name, before filters and routes look at it."""
    return {
        "name": "podium.ours",
        "typed_config": typed(
            "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            mutations=[{"remove": name} for name in _OURS],
        ),
    }


def _filters(settings: GatewaySettings) -> list[dict[str, Any]]:
    """In the order in which a request meets them."""
    buffer = typed("envoy.extensions.filters.http.buffer.v3.Buffer", max_request_bytes=DEFAULT_MAX_BODY)
    return [
        *entrance.off(
            health.leaving(), *entrance.passing(), grpc.naming(), v1.paths(), streams.without_timeout()
        ),
        _delivered(settings, TOKENS),
        placing(),
        _delivered(settings, REVOKED),
        # In front of the buffer: nobody makes the gateway hold a body that may not ask at all. An HTTP/1.1 client whose
        # request is refused before it has come in whole loses its connection.
        _delivered(settings, ACCESS),
        *entrance.off(fallback.answering()),
        {"name": "envoy.filters.http.buffer", "typed_config": buffer},
        # Behind it, so that who is only too fast keeps the connection.
        *entrance.off(_delivered(settings, LIMITS)),
        *entrance.off(*variants.drawing(), adaptive.noting(), _delivered(settings, ADAPTIVE)),
        *entrance.off(*grpc.bridging()),
        {
            "name": "envoy.filters.http.router",
            "typed_config": typed("envoy.extensions.filters.http.router.v3.Router"),
        },
    ]


def _delivered(settings: GatewaySettings, kind: str) -> dict[str, Any]:
    """A filter whose configuration comes by itself."""
    name, type_name = (FILTERS | limits.FILTERS | adaptive.FILTERS)[kind]
    return {
        "name": name,
        "config_discovery": {
            "config_source": watched(settings.layout, kind),
            "type_urls": [f"type.googleapis.com/{type_name}"],
        },
    }
