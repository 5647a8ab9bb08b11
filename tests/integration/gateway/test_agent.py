"""The whole gateway, against a server at the wire: an agent process, a real Envoy, real replicas."""

import pytest

from tests.integration.gateway.conftest import Gateway, until
from tests.integration.gateway.documents import World, deployment, rollout
from tests.integration.gateway.wire_server import WireServer

pytestmark = pytest.mark.integration


def test_a_deployment_is_served_and_reported(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    report = server.wait_loaded(server.version)
    assert report["name"] == "g1"
    assert report["rejected"] == []
    assert report["envoy"]["state"] == "serving"
    answer = gateway.get("/v2/models/churn/infer")
    assert answer.status_code == 200
    assert answer.json()["revision"] == "churn-00001"
    assert answer.headers["x-podium-revision"] == "churn-00001"


def test_weights_move_and_samples_follow(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    server.wait_loaded(world.canary("churn", 0))
    for _ in range(40):
        assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00001"
    server.wait_loaded(world.canary("churn", 50))
    seen = [gateway.get("/v2/models/churn/infer").json()["revision"] for _ in range(200)]
    assert 60 < seen.count("churn-00002") < 140
    # The other way round: the same counts must be in the samples, under the weight that was loaded.
    fresh = server.wait_report(
        lambda report: any(s["candidate"]["upstream_rq_total"] + s["stable"]["upstream_rq_total"] == 240
                           for s in report["samples"])
    )  # fmt: skip
    sample = fresh["samples"][0]
    assert sample["weightBp"] == 5000
    assert sample["gateway"] == "g1"
    assert sample["rolloutUid"] == "uid-default-churn-1"
    assert sample["candidate"]["upstream_rq_total"] == seen.count("churn-00002")
    assert sample["candidate"]["upstream_rq_completed"] == seen.count("churn-00002")
    version = world.canary("churn", 0)
    server.wait_loaded(version)
    for _ in range(40):
        assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00001"


def test_counters_are_told_however_often_there_is_something_new(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    """Each commit is told at once; that must not put the counters off, which rollouts and the autoscaler live on."""
    gateway.start_agent()
    server.wait_loaded(world.canary("churn", 50))
    gateway.get("/v2/models/churn/infer")
    begun = len(server.reports)

    def counted() -> bool:
        server.other_commit()
        later = server.reports[begun:]
        return sum(1 for report in later if report["samples"]) >= 2

    until(counted, 30, pause=0.2)


def test_promotion_ends_on_the_candidate(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    server.wait_loaded(world.canary("churn", 100))
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00002"
    version = server.put(
        deployment("churn", stable="churn-00002"),
        rollout("churn", "churn-00001", "churn-00002", 100, phase="Promoted"),
    )
    server.wait_loaded(version)
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00002"
    assert gateway.get("/v2/models/churn/versions/2/infer").status_code == 200
    assert gateway.get("/v2/models/churn/versions/1/infer").status_code == 404


def test_a_bookmark_is_reported_without_a_change(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    before = gateway.settings.layout.document("routes").stat().st_mtime_ns
    server.wait_loaded(server.other_commit(), seconds=30)
    assert gateway.settings.layout.document("routes").stat().st_mtime_ns == before


def test_a_removed_deployment_is_unknown(world: World, gateway: Gateway, server: WireServer) -> None:
    gateway.start_agent()
    server.wait_loaded(server.version)
    server.wait_loaded(server.delete("Deployment", "churn"))
    answer = gateway.get("/v2/models/churn/infer")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "notFound"


def test_not_ready_before_the_first_configuration(gateway: Gateway, server: WireServer) -> None:
    server.stop()
    gateway.start_agent()
    until(gateway.answers)
    answer = gateway.get("/v2/health/ready")
    assert answer.status_code == 503
    assert answer.json()["code"] == "unavailable"
    server.start()
    until(lambda: gateway.get("/v2/health/ready").status_code == 200)


def test_after_a_restore_of_an_older_database_nothing_is_reported_that_was_not_loaded(
    world: World, gateway: Gateway, server: WireServer
) -> None:
    gateway.start_agent()
    backup = server.copy()
    server.wait_loaded(world.canary("churn", 50))
    for _ in range(20):
        server.wait_loaded(server.other_commit())
    lost = list(server.objects.values())
    # A server that was restored was restarted: the watch breaks off.
    server.stop()
    server.restore(backup)
    server.start()
    # What it says before it has listed again may still be the old number; a server knows better than to believe that.
    server.wait_report(lambda report: report["observedVersion"] == backup[0])
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00001"
    server.put(*lost)
    version = world.canary("churn", 100)
    server.wait_report(lambda report: report["observedVersion"] == version)
    assert gateway.get("/v2/models/churn/infer").json()["revision"] == "churn-00002"
