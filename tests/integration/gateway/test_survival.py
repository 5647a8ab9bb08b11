"""What dies, and what goes on: agent, Envoy, replicas and server are killed under load."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.integration.gateway.conftest import Gateway, until
from tests.integration.gateway.documents import World, deployment, revision
from tests.integration.gateway.load import Load
from tests.integration.gateway.wire_server import WireServer

pytestmark = [pytest.mark.integration, pytest.mark.chaos]


def test_agent_killed_and_adopted_again(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    server.wait_loaded(world.canary("churn", 10))
    pid = gateway.envoy_pid()
    with Load(gateway.port) as load:
        load.wait_more(200)
        gateway.signal_agent(signal.SIGKILL)
        load.wait_more(200)
        # A change that nobody hears, and one while the successor runs.
        world.canary("churn", 50)
        gateway.start_agent()
        server.wait_loaded(server.version)
        load.wait_more(200)
        server.wait_loaded(world.canary("churn", 0))
    assert load.failures == []
    assert load.revisions["churn-00002"] > 0
    assert gateway.envoy_pid() == pid
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00001"


def test_sigterm_leaves_envoy_and_sigint_stops_it(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    pid = gateway.envoy_pid()
    assert gateway.signal_agent(signal.SIGTERM) == 0
    assert gateway.get("/v2/models/churn/infer").status_code == 200
    gateway.start_agent()
    server.reports.clear()
    server.wait_loaded(server.version)
    assert gateway.envoy_pid() == pid
    assert gateway.signal_agent(signal.SIGINT) == 0
    assert not gateway.answers()
    assert _is_gone(pid)
    assert gateway.envoy_state() is None


def test_requests_under_way_end_when_envoy_is_stopped(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    with Load(gateway.port, path="/v2/models/churn/infer?sleep=0.5", rate=100, connections=4) as load:
        until(lambda: load.total >= 4)
        gateway.signal_agent(signal.SIGINT)
        load._stop.set()
    # What was answered was answered in full: only connections that came later were turned away.
    assert all("Connect" in words or "200" in words for _, words in load.failures), load.failures


def test_envoy_killed_comes_back_without_a_server(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    server.wait_loaded(world.canary("churn", 100))
    server.stop()
    pid = gateway.envoy_pid()
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    until(lambda: gateway.answers() and gateway.get("/v2/models/churn/infer").status_code == 200, pause=0.002)
    passed = time.monotonic() - began
    assert passed < 2.0
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00002"
    until(lambda: gateway.envoy_pid() != pid)
    server.start()
    server.reports.clear()
    report = server.wait_loaded(world.canary("churn", 0))
    assert report["envoy"]["restarts"] == 1
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00001"


def test_agent_starts_envoy_from_files_without_a_server(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    server.stop()
    gateway.signal_agent(signal.SIGKILL)
    os.kill(gateway.envoy_pid(), signal.SIGKILL)
    until(lambda: not gateway.answers())
    gateway.start_agent()
    until(gateway.answers)
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00001"
    assert gateway.get("/v2/health/ready").status_code == 200


def test_server_gone_changes_nothing(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    lists = server.lists
    with Load(gateway.port) as load:
        load.wait_more(100)
        server.stop()
        load.wait_more(300)
        server.start()
        server.wait_loaded(world.canary("churn", 100))
    assert load.failures == []
    # It went on where it was: no second list was needed.
    assert server.lists == lists


def test_a_watch_that_is_too_old_lists_again(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    server.stop()
    version = world.canary("churn", 100)
    server.forget_changes()
    server.start()
    server.wait_loaded(version)
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00002"


@pytest.mark.parametrize("path", ["/v2/models/churn/infer", "/v2/models/churn/infer?sleep=0.02"])
def test_one_of_two_replicas_killed(gateway: Gateway, server: WireServer, path: str) -> None:
    world = World(server, gateway)
    version = world.deploy("churn", replicas=2)
    gateway.start_agent()
    server.wait_loaded(version)
    with Load(gateway.port, path=path, rate=500, connections=16) as load:
        load.wait_more(300)
        gateway.replicas["churn-00001-0"].kill()
        load.wait_more(500)
        left = world.endpoints["default", "churn", 1][1:]
        server.wait_loaded(server.put(revision("churn", 1, left)))
        load.wait_more(200)
    assert load.failures == []


def test_without_repeats_only_requests_under_way_are_given_up(gateway: Gateway, server: WireServer) -> None:
    world = World(server, gateway)
    version = world.deploy("churn", replicas=2, idempotent=False)
    gateway.start_agent()
    server.wait_loaded(version)
    with Load(gateway.port, path="/v2/models/churn/infer?sleep=0.02", rate=500, connections=16) as load:
        load.wait_more(300)
        gateway.replicas["churn-00001-0"].kill()
        load.wait_more(600)
    # At most what was in flight on 16 connections when it died.
    assert len(load.failures) <= 16
    assert all(words.startswith("503") for _, words in load.failures)


def test_replicas_come_and_go_under_load(gateway: Gateway, server: WireServer) -> None:
    world = World(server, gateway)
    version = world.deploy("churn", replicas=2)
    gateway.start_agent()
    server.wait_loaded(version)
    both = world.endpoints["default", "churn", 1]
    with Load(gateway.port, path="/v2/models/churn/infer?sleep=0.01", rate=400, connections=16) as load:
        for turn in range(6):
            server.wait_loaded(server.put(revision("churn", 1, [both[turn % 2]])))
            load.wait_more(60)
        server.wait_loaded(server.put(revision("churn", 1, both)))
        load.wait_more(60)
    assert load.failures == []


def test_envoy_handed_over_under_load(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    old = gateway.envoy_pid()
    with Load(gateway.port, path="/v2/models/churn/infer?sleep=0.005", rate=400, connections=8) as load:
        load.wait_more(200)
        gateway.signal_agent(signal.SIGHUP, wait=False)
        until(lambda: gateway.envoy_pid() != old)
        load.wait_more(200)
        # The new one takes changes, and the old one goes.
        server.wait_loaded(world.canary("churn", 100))
        until(lambda: _is_gone(old))
        load.wait_more(200)
    assert load.failures == []
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00002"
    report = server.wait_report(lambda report: report["envoy"]["pid"] == gateway.envoy_pid())
    assert report["envoy"]["restarts"] == 0


def test_two_handovers_and_a_kill(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    for _ in range(2):
        old = gateway.envoy_pid()
        gateway.signal_agent(signal.SIGHUP, wait=False)
        until(lambda old=old: gateway.envoy_pid() != old)
        until(lambda old=old: _is_gone(old))
    os.kill(gateway.envoy_pid(), signal.SIGKILL)
    until(lambda: gateway.answers() and gateway.get("/v2/models/churn/infer").status_code == 200)


def test_an_outdated_envoy_is_handed_over_by_the_next_agent(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    """What an upgrade of Podium is to the gateway: a new agent finds an Envoy that was started otherwise."""
    gateway.start_agent()
    server.wait_loaded(server.version)
    old = gateway.envoy_pid()
    gateway.signal_agent(signal.SIGTERM)
    state = json.loads(gateway.settings.layout.state.read_text())
    state["incarnations"][0]["start"] = "of an older version"
    state["incarnations"][0]["unknown"] = "of another version"
    gateway.settings.layout.state.write_text(json.dumps(state))
    with Load(gateway.port) as load:
        load.wait_more(100)
        gateway.start_agent()
        until(lambda: gateway.envoy_pid() != old)
        server.wait_loaded(world.canary("churn", 100))
        until(lambda: _is_gone(old))
        load.wait_more(100)
    assert load.failures == []


def test_a_large_body_survives_the_death_of_a_replica(gateway: Gateway, server: WireServer) -> None:
    world = World(server, gateway)
    version = world.deploy("churn", replicas=2)
    gateway.start_agent()
    server.wait_loaded(version)
    answers: list[httpx.Response] = []

    def post() -> None:
        path = "/v2/models/churn/infer?sleep=1"
        answers.append(
            httpx.post(f"http://127.0.0.1:{gateway.port}{path}", content=b"x" * 12 * 2**20, timeout=30)
        )

    # Least-request puts one on each replica.
    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    dying = gateway.replicas["churn-00001-0"]
    until(lambda: _connections(dying.pid) >= 1)
    dying.kill()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 4
    assert all(answer.json()["bytes"] == 12 * 2**20 for answer in answers)


def test_a_taken_port_is_said(gateway: Gateway, server: WireServer) -> None:
    with socket.create_server(("127.0.0.1", gateway.port)):
        gateway.start_agent()
        assert gateway.agent is not None
        assert gateway.agent.wait(30) != 0
    assert f"could not listen on 127.0.0.1:{gateway.port}" in gateway.agent_log()
    assert "Address already in use" in gateway.agent_log()
    # Nothing is left behind, and it works once the port is free.
    gateway.start_agent()
    until(gateway.answers)


def test_a_second_agent_in_the_same_home_is_refused(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    first = gateway.agent
    gateway.start_agent()
    assert gateway.agent is not None
    assert gateway.agent.wait(20) != 0
    assert "already runs" in gateway.agent_log()
    gateway.agent = first
    assert gateway.get("/v2/models/churn/infer").status_code == 200


def test_killed_between_start_and_note_leaves_no_stray(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    """The state file as it stands when an agent dies right after it has started Envoy: the token, but no pid."""
    gateway.start_agent()
    server.wait_loaded(server.version)
    pid = gateway.envoy_pid()
    gateway.signal_agent(signal.SIGKILL)
    path = gateway.settings.layout.state
    text = path.read_text()
    path.write_text(text.replace(f'"pid":{pid}', '"pid":0'))
    assert path.read_text() != text
    gateway.start_agent()
    server.wait_loaded(world.canary("churn", 100))
    assert gateway.envoy_pid() == pid


def test_a_stranger_with_the_pid_is_not_adopted(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    pid = gateway.envoy_pid()
    gateway.signal_agent(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not gateway.answers())
    path = gateway.settings.layout.state
    path.write_text(path.read_text().replace(f'"pid":{pid}', f'"pid":{os.getpid()}'))
    gateway.start_agent()
    until(gateway.answers)
    assert gateway.envoy_pid() not in (pid, os.getpid())


def test_deployment_without_replicas_says_so(gateway: Gateway, server: WireServer) -> None:
    version = server.put(deployment("off", replicas=0))
    gateway.start_agent()
    server.wait_loaded(version)
    answer = gateway.get("/v2/models/off/infer")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert (
        answer.json()["detail"]
        == "deployment default/off: the deployment has no replicas (spec.replicas is 0)"
    )


def _connections(pid: int) -> int:
    """Open sockets of a process beside the one that it listens on."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(link.startswith("socket:") for link in links) - 3


def _is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    # ProcessLookupError: it went between the opening and the reading.
    except (FileNotFoundError, ProcessLookupError):
        return True
