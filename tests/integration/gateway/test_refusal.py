"""Configuration that Envoy refuses: only the guilty entry stays behind, in Envoy's own words."""

import os
import signal
import socket

import httpx
import pytest

from podium.gateway.settings import AccessRecord
from tests.integration.gateway.conftest import Gateway, until
from tests.integration.gateway.documents import World, deployment, revision
from tests.integration.gateway.load import Load
from tests.integration.gateway.wire_server import WireServer

pytestmark = pytest.mark.integration

# A valid address for us, and longer than a Unix socket's path can be: Envoy refuses the cluster.
TOO_LONG = "unix:/tmp/" + "x" * 150


def _refused(report: dict[str, object], deployment_name: str) -> bool:
    return any(item["deployment"] == deployment_name for item in report["rejected"])  # type: ignore[attr-defined]


def test_an_update_that_is_refused_leaves_traffic_where_it_was(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    with Load(gateway.port) as load:
        load.wait_more(100)
        version = server.put(revision("churn", 2, [TOO_LONG]), deployment("churn", stable="churn-00002"))
        report = server.wait_report(lambda report: _refused(report, "churn"))
        load.wait_more(100)
    [item] = report["rejected"]
    assert item["workspace"] == "default"
    assert item["version"] == version
    assert "exceeds maximum UNIX domain socket path size" in item["error"]
    assert load.failures == []
    assert set(load.revisions) == {"churn-00001"}
    # Others go on, and the report stands until the entry changes.
    later = world.deploy("other")
    report = server.wait_loaded(later)
    assert _refused(report, "churn")
    assert gateway.get("/v2/models/other/infer").status_code == 200
    repaired = server.put(deployment("churn", stable="churn-00001"))
    assert server.wait_loaded(repaired)["rejected"] == []


def test_one_bad_entry_among_many_at_the_first_load(gateway: Gateway, server: WireServer) -> None:
    world = World(server, gateway)
    address = [gateway.start_replica("all")]
    documents = []
    for number in range(40):
        endpoints = [TOO_LONG] if number == 23 else address
        documents += [
            revision(f"d{number}", 1, endpoints),
            deployment(f"d{number}", stable=f"d{number}-00001"),
        ]
    version = server.put(*documents)
    gateway.start_agent()
    report = server.wait_loaded(version, 40)
    assert [item["deployment"] for item in report["rejected"]] == ["d23"]
    for number in range(40):
        wanted = 404 if number == 23 else 200
        assert gateway.get(f"/v2/models/d{number}/infer").status_code == wanted
    del world


def test_refused_content_never_waits_for_the_next_start(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    """Whatever was refused is not in the files: Envoy started again, also by a new agent, is as before."""
    gateway.start_agent()
    server.wait_loaded(server.version)
    server.put(revision("churn", 2, [TOO_LONG]), deployment("churn", stable="churn-00002"))
    server.wait_report(lambda report: _refused(report, "churn"))
    server.stop()
    gateway.signal_agent(signal.SIGKILL)
    pid = gateway.envoy_pid()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not gateway.answers())
    gateway.start_agent()
    until(gateway.answers)
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00001"
    # The successor knows no good fragment from memory, only from the files: refused again, traffic stays.
    server.start()
    server.reports.clear()
    server.wait_report(lambda report: _refused(report, "churn"))
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00001"


def test_killed_while_a_content_was_not_seen_loaded(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    """Both die between the rename and the acknowledgement of something that Envoy does not take."""
    gateway.start_agent()
    server.wait_loaded(server.version)
    server.stop()
    gateway.signal_agent(signal.SIGKILL)
    os.kill(gateway.envoy_pid(), signal.SIGKILL)
    until(lambda: not gateway.answers())
    layout = gateway.settings.layout
    for kind in ("routes", "clusters"):
        path = layout.document(kind)
        os.link(path, layout.acknowledged / path.name)
        broken = path.with_name("new")
        broken.write_text('{"versionInfo":"abc","resources":[{"@type":"nonsense"}]}')
        broken.replace(path)
    gateway.start_agent()
    until(gateway.answers)
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00001"


def test_an_address_of_no_known_kind_is_refused_by_us(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    server.put(revision("churn", 1, ["ftp://somewhere:21"]))
    report = server.wait_report(lambda report: _refused(report, "churn"))
    assert "expected unix:/path or http://host:port" in report["rejected"][0]["error"]
    assert gateway.get("/v2/models/churn/infer").status_code == 200


@pytest.mark.parametrize("chance", ["another wish", "a new Envoy"])
def test_a_listener_that_was_refused_is_tried_again(server: WireServer, chance: str) -> None:
    """Its port belongs to somebody else: the running Envoy goes on with the one before."""
    gateway = Gateway(server.url)
    place = gateway.folder / "record" / "requests.jsonl"
    gateway.given["record"] = AccessRecord(path=place)

    def refused() -> bool:
        return "listener is refused" in str(server.reports[-1]["envoy"]["problem"])

    try:
        version = World(server, gateway).deploy("churn")
        gateway.start_agent()
        server.wait_loaded(version, 60)
        gateway.signal_agent(signal.SIGKILL)
        with socket.socket() as somebody:
            somebody.bind(("127.0.0.1", 0))
            somebody.listen()
            port = gateway.given["port"] = somebody.getsockname()[1]
            gateway.start_agent()
            # Another listener than the one that was there when the agent came up: with a record.
            until(lambda: gateway.agent_log().count("no access record") == 2, 60, 0.05)
            place.parent.mkdir()
            until(refused, 60, 0.05)
            assert gateway.get("/v2/models/churn/infer").status_code == 200
        if chance == "another wish":
            place.unlink()
            place.parent.rmdir()
        else:
            os.kill(gateway.envoy_pid(), signal.SIGKILL)
        until(lambda: not refused(), 60, 0.05)
        answer = httpx.get(f"http://127.0.0.1:{port}/v2/models/churn/infer", trust_env=False, timeout=20)
        assert answer.status_code == 200
    finally:
        gateway.close()
