"""What the gateway says when it answers itself: never nothing, and never another's name. A real Envoy."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from podium.gateway.render.clusters import cluster
from tests.integration.gateway.one_envoy import OneEnvoy, a_route, arm_of, live, one_envoy
from tests.integration.gateway.upstreams import upstreams

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def envoy() -> Iterator[OneEnvoy]:
    """A Deployment's path and a Route's, both to a replica that never answers."""
    times = {"per_try_timeout": "0.1s", "num_retries": 0, "retry_on": "reset"}
    routes = [
        a_route("/own/", live("hangs"), name="deployment:default/hangs", timeout=0.2),
        a_route("/front/", live("hangs"), name="route:default/front#0", timeout=0.2),
        a_route("/tries/", live("hangs"), {"retry_policy": times}, name="route:default/tries#0"),
    ]
    with upstreams() as made, one_envoy() as envoy:
        yield envoy.start(routes, [cluster(arm_of("hangs", made.start("hangs", lambda _: None)))])


def raw(envoy: OneEnvoy, request: str) -> tuple[int, dict[str, Any]]:
    """Clients tidy paths up."""
    with socket.create_connection(("127.0.0.1", envoy.settings.port), timeout=60) as connection:
        connection.sendall(request.encode() + b"\r\n\r\n")
        answer = b""
        while b"}\n" not in answer:
            part = connection.recv(65536)
            assert part, answer
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)


@pytest.mark.parametrize(
    ("request_line", "words"),
    [
        ("GET /v2/models/a%2Fb HTTP/1.1\r\nhost: g", "escaped slash, backslash or null (%2F, %5C, %00)"),
        ("GET /v2/models/a%5cb HTTP/1.1\r\nhost: g", "escaped slash, backslash or null (%2F, %5C, %00)"),
        ("GET /v2/models/a%00 HTTP/1.1\r\nhost: g", "escaped slash, backslash or null (%2F, %5C, %00)"),
        ("GET /v2 HTTP/1.1", "no header host"),
        ("GET /v2 HTTP/1.1\r\nhost: g\r\nno header", "no request of HTTP/1.1"),
    ],
)
def test_a_request_that_cannot_be_read_is_told_why(envoy: OneEnvoy, request_line: str, words: str) -> None:
    status, body = raw(envoy, request_line)
    assert (status, body["code"], body["status"]) == (400, "invalid", 400)
    assert words in body["detail"] == body["error"]


def test_too_many_headers_and_an_upgrade(envoy: OneEnvoy) -> None:
    status, body = raw(envoy, "GET /v2 HTTP/1.1\r\nhost: g\r\nx: " + "y" * 40_000)
    assert (status, body["code"]) == (431, "invalid")
    assert "headers" in body["detail"]
    upgrade = "GET /v2 HTTP/1.1\r\nhost: g\r\nconnection: upgrade\r\nupgrade: websocket"
    status, body = raw(envoy, upgrade)
    assert (status, body["detail"]) == (403, "connections are not upgraded here")


def test_a_timeout_names_what_it_was(envoy: OneEnvoy) -> None:
    for path, words in (
        ("/own/x", "within the deployment's requestTimeout"),
        ("/front/x", "within the route's timeout"),
        ("/tries/x", "within retries.perTryTimeout"),
    ):
        answer = envoy.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (504, "timeout")
        assert words in answer.json()["detail"], path
