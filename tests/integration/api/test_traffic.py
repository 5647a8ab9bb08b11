"""What gateways count, and what the API makes of it."""

from typing import Any

import httpx
import pytest

from podium.resources.deployment import DeploymentStatus
from podium.resources.kinds import AnyResource
from podium.resources.scaling import ScalingStatus
from podium.resources.shape import Metadata
from tests.integration.api.server import TESTER, ApiServer, deployment, workspace
from tests.unit.planning.worlds import revision, rollout

PATH = "/api/v1/workspaces/default/traffic"


@pytest.fixture
def served(server: ApiServer) -> ApiServer:
    """`churn` on its way from revision 1 (two replicas) to 2 (one, with 20 percent); `quiet` sleeps; `price` is in
    another workspace."""
    server.create(workspace("team"))
    owner = server.create(deployment("churn", replicas=2))
    quiet = server.create(deployment("quiet", replicas=0, scaling={"min": 0, "max": 3}))
    server.create(deployment("price", workspace="team"))
    with server.store.write(TESTER) as tx:
        for made in (revision(1, ready=2), revision(2, ready=1), rollout(weight=20)):
            tx.create(_bare(made))
        status = DeploymentStatus(phase="Progressing", stable_revision="churn-00001", rollout="churn-2")
        tx.set_status(owner.uid, status)
        asleep = ScalingStatus(desired=0, reason="no request for 300 s")
        tx.set_status(quiet.uid, DeploymentStatus(phase="Ready", scaling=asleep))
    return server


def _bare(made: AnyResource) -> AnyResource:
    return made.model_copy(update={"metadata": Metadata(name=made.metadata.name)})


def counted(revision: str, requests: int, *, age: float = 0.0, **more: Any) -> dict[str, Any]:
    name = revision.rpartition("-")[0]
    place = {"workspace": "default", "deployment": name, "revision": revision, "role": "live"}
    return {**place, "age": age, "requests": requests, **more}


def gateway(server: ApiServer) -> httpx.Client:
    return server.http((server.home / "gateway.token").read_text().strip())


def report(server: ApiServer, *clusters: dict[str, Any], name: str = "g1") -> None:
    body = {"observedVersion": 0, "load": {"epoch": "e1", "clusters": list(clusters)}}
    answer = gateway(server).put(f"/api/v1/gateways/{name}", json=body)
    assert answer.status_code == 200, answer.text


def test_rates_latencies_replicas_and_weights(served: ApiServer) -> None:
    fast, slow = [[10.0, 0], [20.0, 160]], [[10.0, 0], [20.0, 10], [30.0, 40]]
    report(
        served,
        counted("churn-00001", 1000, age=10),
        counted("churn-00001", 1160, errors=16, timeMs=2400, buckets=fast),
        counted("churn-00002", 0, age=10),
        counted("churn-00002", 40, refused=4, timeMs=800, buckets=slow),
    )
    report(served, name="g2")
    shown = served.http().get(PATH, params={"window": "20s"}).json()
    assert shown["window"] == 20
    churn, quiet = shown["items"]
    assert (churn["deployment"], churn["phase"], churn["gateways"]) == ("churn", "Progressing", ["g1", "g2"])
    assert churn["requestsPerSecond"] == pytest.approx(10)
    assert churn["errorShare"] == pytest.approx(16 / 200)
    assert churn["refusedShare"] == pytest.approx(4 / 200)
    assert churn["concurrency"] == pytest.approx(3.2 / 20)
    assert (churn["readyReplicas"], churn["wantedReplicas"], churn["scaling"]) == (3, 3, None)
    assert 0 <= churn["reportAge"] < 60
    stable, candidate = churn["revisions"]
    assert [(one["revision"], one["role"], one["version"], one["weight"]) for one in (stable, candidate)] == [
        ("churn-00001", "stable", "1", 80), ("churn-00002", "candidate", "2", 20),
    ]  # fmt: skip
    assert stable["p50"] == pytest.approx(0.015)
    assert candidate["p95"] == pytest.approx(0.020 + 0.010 * 28 / 30)
    assert (quiet["deployment"], quiet["requestsPerSecond"], quiet["p95"]) == ("quiet", 0, None)
    assert quiet["scaling"] == {
        "min": 0, "max": 3, "desired": 0, "reason": "no request for 300 s", "panicking": False,
    }  # fmt: skip


def test_who_ran_until_just_now_is_in_it_and_old_ones_are_not(served: ApiServer) -> None:
    with served.store.write(TESTER) as tx:
        for number in (3, 4):
            tx.create(_bare(revision(number, phase="Idle", wantedReplicas=0)))
    report(served, counted("churn-00004", 0, age=10), counted("churn-00004", 40))
    churn = served.http().get(PATH, params={"window": "20s"}).json()["items"][0]
    assert churn["requestsPerSecond"] == pytest.approx(2)
    assert [(one["revision"], one["role"]) for one in churn["revisions"]] == [
        ("churn-00001", "stable"), ("churn-00002", "candidate"), ("churn-00004", "retiring"),
    ]  # fmt: skip


def test_requests_after_a_quiet_time_wake_who_scales(served: ApiServer) -> None:
    store = served.store
    for lease in store.claim("w", kinds=["Deployment"], limit=9, lease_seconds=60, now=store._now()):
        store.release(lease, None)
    report(served, counted("churn-00001", 1, age=2), counted("churn-00001", 5), counted("quiet-00001", 5))
    assert store.next_due(["Deployment"]) is None, "it does not scale; or it was not quiet"
    report(
        served, counted("quiet-00001", 5, age=2), counted("quiet-00001", 6), counted("gone-00001", 1, age=2)
    )
    (lease,) = store.claim("w", kinds=["Deployment"], limit=9, lease_seconds=60, now=store._now())
    assert lease.name == "quiet"


def test_everybody_sees_their_own_workspaces(served: ApiServer) -> None:
    everything = served.http().get("/api/v1/traffic").json()["items"]
    assert [(one["workspace"], one["deployment"]) for one in everything] == [
        ("default", "churn"), ("default", "quiet"), ("team", "price"),
    ]  # fmt: skip
    team = served.http(served.token("view", "team"))
    assert [one["deployment"] for one in team.get("/api/v1/traffic").json()["items"]] == ["price"]
    assert team.get(PATH).status_code == 403
    assert [one["reportAge"] for one in everything] == [None] * 3


@pytest.mark.parametrize("window", ["0", "4s", "16m", "901", "soon", "-5", "1h"])
def test_a_window_that_makes_no_sense_is_refused(served: ApiServer, window: str) -> None:
    answer = served.http().get(PATH, params={"window": window})
    assert answer.status_code == 422
    assert answer.json()["issues"][0]["field"] == "window"


@pytest.mark.parametrize(
    ("cluster", "field"),
    [
        ({"requests": -1}, "load.clusters[0].requests"),
        ({"role": "a b"}, "load.clusters[0].role"),
        ({"timeMs": "NaN"}, "load.clusters[0].timeMs"),
        ({"buckets": [[5, 3], [4, 9]]}, "load.clusters[0].buckets"),
        ({"buckets": [[5, 3], [6, 2]]}, "load.clusters[0].buckets"),
        ({"age": 1e9}, "load.clusters[0].age"),
    ],
)
def test_counters_that_make_no_sense_are_refused(
    server: ApiServer, cluster: dict[str, Any], field: str
) -> None:
    body = {
        "observedVersion": 0,
        "load": {"epoch": "e1", "clusters": [{**counted("churn-00001", 1), **cluster}]},
    }
    answer = gateway(server).put("/api/v1/gateways/g1", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["issues"][0]["field"].startswith(field)
    assert server.store.load(since=0) == ([], {})
