"""Bodies that are begun and never ended, at a real Envoy: what it holds has a bound, and it serves on afterwards."""

import os
import socket
from pathlib import Path

import pytest

from podium.gateway.render.clusters import cluster
from podium.gateway.settings import LEAST_MEMORY, share_of_memory
from tests.integration.gateway.conftest import until
from tests.integration.gateway.one_envoy import OneEnvoy, a_route, arm_of, live, one_envoy
from tests.integration.gateway.upstreams import upstreams

pytestmark = pytest.mark.integration

PATH = "/v2/models/churn"
PIECE = bytes(2**20)
CLIENTS, PIECES = 60, 14
"""All of them together are more than three times what Envoy may hold."""


def resident(envoy: OneEnvoy) -> int:
    """Bytes of Envoy's process."""
    pages = Path(f"/proc/{envoy.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def send(connection: socket.socket, content: bytes) -> bool:
    """Whether the other side still takes it."""
    try:
        connection.sendall(content)
    except OSError:
        return False
    return True


def test_bodies_that_never_end_have_a_bound_together() -> None:
    with upstreams() as started, one_envoy(memory=LEAST_MEMORY) as envoy:
        envoy.start([a_route(PATH, live("churn"))], [cluster(arm_of("churn", started.start("churn")))])
        idle = resident(envoy)
        head = f"POST {PATH} HTTP/1.1\r\nhost: g\r\ncontent-length: {16 * 10**6}\r\n\r\n".encode()
        held = [
            socket.create_connection(("127.0.0.1", envoy.settings.port), timeout=30) for _ in range(CLIENTS)
        ]
        taken, most = 0, idle
        try:
            assert all(send(one, head) for one in held)
            for _ in range(PIECES):
                taken += sum(send(one, PIECE) for one in held)
                most = max(most, resident(envoy))
            assert envoy.stats("shed_load_count")
        finally:
            for one in held:
                one.close()
        assert taken > LEAST_MEMORY // len(PIECE)
        assert most < idle + 2 * LEAST_MEMORY
        # The replica was never asked, and is there for the next.
        until(lambda: envoy.client.get(PATH).status_code == 200, 60)


def test_a_machines_share_is_no_less_than_what_two_hundred_bodies_need() -> None:
    assert share_of_memory() >= max(2 * 2**30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)
