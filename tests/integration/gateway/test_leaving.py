"""A gateway that is stopped says so first, and serves on until whoever spreads the clients has noticed."""

import signal
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.gateway.conftest import Gateway, until
from tests.integration.gateway.documents import World
from tests.integration.gateway.load import Load
from tests.integration.gateway.wire_server import WireServer

pytestmark = [pytest.mark.integration, pytest.mark.chaos]


@pytest.fixture
def gateway(server: WireServer) -> Iterator[Gateway]:
    made = Gateway(server.url, notice=60.0)
    yield made
    made.close()


def _announces(gateway: Gateway) -> bool:
    return gateway.get("/v2/health/ready").status_code == 503


def test_it_serves_on_while_its_health_check_fails(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    assert gateway.get("/v2/health/ready").json() == {"ready": True}
    with Load(gateway.port) as load:
        load.wait_more(50)
        gateway.signal_agent(signal.SIGINT, wait=False)
        until(lambda: _announces(gateway))
        load.wait_more(50)
        with httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False) as newcomer:
            answer = newcomer.get("/v2/models/churn/infer")
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            assert newcomer.get("/v2/health/live").status_code == 200
        # Changes are followed as before.
        server.wait_loaded(world.canary("churn", 100))
        load.wait_more(50)
    assert load.failures == []
    assert load.revisions["churn-00002"] >= 1
    # The second signal cuts the notice short.
    assert gateway.signal_agent(signal.SIGINT) == 0
    assert not gateway.answers()
    assert [report.get("leaving", False) for report in server.reports[-2:]] == [False, True]


def test_an_agent_that_dies_meanwhile_is_followed_by_one_that_takes_it_back(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    pid = gateway.envoy_pid()
    gateway.signal_agent(signal.SIGINT, wait=False)
    until(lambda: _announces(gateway))
    gateway.signal_agent(signal.SIGKILL)
    assert gateway.get("/v2/models/churn/infer").status_code == 200
    gateway.start_agent()
    until(lambda: not _announces(gateway))
    assert gateway.envoy_pid() == pid
    assert "connection" not in gateway.get("/v2/models/churn/infer").headers


def test_an_envoy_that_no_longer_listens_is_not_adopted(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    pid = gateway.envoy_pid()
    gateway.signal_agent(signal.SIGKILL)
    # As an agent leaves it that dies between the two steps of a stop.
    transport = httpx.HTTPTransport(uds=str(gateway.settings.layout.admin_socket))
    with httpx.Client(transport=transport, base_url="http://envoy", trust_env=False) as admin:
        assert admin.post("/healthcheck/fail").status_code == 200
        assert admin.post("/drain_listeners").status_code == 200
    until(lambda: not gateway.answers())
    gateway.start_agent()
    until(gateway.answers)
    assert gateway.envoy_pid() != pid
    server.wait_loaded(world.canary("churn", 100))
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00002"
