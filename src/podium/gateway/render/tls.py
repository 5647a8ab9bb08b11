"""TLS on the listener: the certificate is a document of its own (SDS), so that a new one cuts no connection. Called by
`listener` and `loader`."""

from typing import Any

from podium.gateway.render.document import Document, document, fragment, typed

SECRET = "podium.certificate"  # noqa: S105 - its name


def transport(source: dict[str, Any]) -> dict[str, Any]:
    """The filter chain's `transport_socket`; `source` is where the certificate comes from."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context={
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                # The client chooses; gRPC's clients take the first, browsers too.
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificate_sds_secret_configs": [{"name": SECRET, "sds_config": source}],
            },
        ),
    }


def certificate(chain: bytes, key: bytes) -> Document:
    """The certificate that new connections get. Both in one file, so that they change together."""
    held = {
        "certificate_chain": {"inline_string": chain.decode("latin-1")},
        "private_key": {"inline_string": key.decode("latin-1")},
    }
    secret = typed("envoy.extensions.transport_sockets.tls.v3.Secret", name=SECRET, tls_certificate=held)
    return document([fragment(secret)])
