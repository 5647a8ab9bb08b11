"""What gateways count, and what the API makes of it."""

import datetime
from typing import Any

import httpx
import pytest

from podium.resources.deployment import DeploymentStatus
from podium.resources.kinds import AnyResource
from podium.resources.model import Quota
from podium.resources.scaling import ScalingStatus
from podium.resources.shape import Metadata
from podium.store import ProcessorTimeRow
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


def published(name: str, *, workspace: str = "default") -> dict[str, Any]:
    to = [{"deployment": "churn", "weight": 90}, {"deployment": "quiet", "weight": 10}]
    rules = [
        {"name": "gold", "match": {"headers": {"x-tier": {"exact": "gold"}}}, "to": "quiet"},
        {"to": to, "shadow": [{"deployment": "late", "percent": 25}]},
    ]
    return {
        "apiVersion": "podium/v1", "kind": "Route", "metadata": {"name": name, "workspace": workspace},
        "spec": {"rules": rules},
    }  # fmt: skip


def came(route: str, requests: int, *, age: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"workspace": "default", "route": route, "age": age, "requests": requests, **more}


def report_routes(server: ApiServer, *routes: dict[str, Any], clusters: Any = ()) -> httpx.Response:
    body = {"observedVersion": 0, "load": {"epoch": "e1", "clusters": list(clusters), "routes": list(routes)}}
    return gateway(server).put("/api/v1/gateways/g1", json=body)


def test_what_came_to_a_route_and_where_it_goes(served: ApiServer) -> None:
    served.create(published("front"))
    served.create(published("silent"))
    copies = [counted("churn-00001", 0, age=10, role="shadow"), counted("churn-00001", 60, role="shadow")]
    answer = report_routes(
        served, came("front", 100, age=10), came("front", 300, errors=10, refused=50, limited=40),
        came("gone", 100, age=10), came("gone", 300), clusters=copies,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    shown = served.http().get(PATH, params={"window": "20s"}).json()
    front, silent = shown["routes"]
    assert (front["route"], front["requestsPerSecond"]) == ("front", pytest.approx(10))
    assert (front["errorShare"], front["refusedShare"]) == (pytest.approx(0.05), pytest.approx(0.25))
    assert front["limitedPerSecond"] == pytest.approx(2)
    assert front["rules"] == [
        {"rule": "gold", "variants": [{"deployment": "quiet", "weight": 100}], "shadows": []},
        {
            "rule": "1", "shadows": [{"deployment": "late", "weight": 25}],
            "variants": [{"deployment": "churn", "weight": 90}, {"deployment": "quiet", "weight": 10}],
        },
    ]  # fmt: skip
    assert (silent["requestsPerSecond"], silent["errorShare"], silent["limitedPerSecond"]) == (0, None, 0)
    churn = shown["items"][0]
    assert (churn["requestsPerSecond"], churn["copiesPerSecond"]) == (0, pytest.approx(3))
    served.store.forget_gateway("g1", TESTER)
    assert served.http().get(PATH).json()["routes"][0]["requestsPerSecond"] == 0


def test_a_forgotten_gateways_counters_of_routes_are_gone(served: ApiServer) -> None:
    report_routes(served, came("front", 1, age=10), came("front", 3))
    assert len(served.store.route_load(since=0)) == 2
    served.store.forget_gateway("g1", TESTER)
    assert served.store.route_load(since=0) == []


def test_processor_time_per_replica_where_replicas_follow_it(served: ApiServer) -> None:
    served.create(deployment("busy", replicas=1, scaling={"max": 3, "target": {"cpu": 70}}))
    now = datetime.datetime.now(datetime.UTC).timestamp()
    times = [
        ProcessorTimeRow(now - ago, "default", name, f"{name}-00001", f"{name}-00001-{n}", 100 + n * (20 - ago) / 4, 1)
        for ago in (20, 10, 0)
        for n in (1, 2)
        for name in ("busy", "quiet")
    ]  # fmt: skip
    served.store.record_processor_times(now, times)
    found = served.http().get(PATH, params={"window": "20s"}).json()["items"]
    cpu = {one["deployment"]: one["cpu"] for one in found}
    assert cpu == {"busy": pytest.approx(37.5), "churn": None, "quiet": None}


def test_quotas_are_those_of_workspaces_that_the_caller_may_enter(served: ApiServer) -> None:
    with served.store.write(TESTER) as tx:
        for name, quota in (("default", Quota(replicas=7)), ("team", Quota(memory=2**34, rules=40))):
            found = tx.get("Workspace", "default", name)
            wish = found.spec.model_copy(update={"quota": quota})
            tx.replace(found.uid, spec=wish, expected_version=None)
    shown = served.http().get("/api/v1/traffic").json()["quotas"]
    assert shown == [
        {"workspace": "default", "replicas": 5, "replicaLimit": 7, "memory": "10Gi", "memoryLimit": None,
         "rules": 0, "ruleLimit": 1000},
        {"workspace": "team", "replicas": 0, "replicaLimit": None, "memory": "0", "memoryLimit": "16Gi",
         "rules": 0, "ruleLimit": 40},
    ]  # fmt: skip
    team = served.http(served.token("view", "team"))
    assert [one["workspace"] for one in team.get("/api/v1/traffic").json()["quotas"]] == ["team"]
    assert team.get("/api/v1/traffic").json()["routes"] == []


@pytest.mark.parametrize("route", [{"requests": -1}, {"route": "a b"}, {"limited": "many"}])
def test_counters_of_routes_that_make_no_sense_are_refused(server: ApiServer, route: dict[str, Any]) -> None:
    answer = report_routes(server, {**came("front", 1), **route})
    assert answer.status_code == 422, answer.text
    assert answer.json()["issues"][0]["field"].startswith("load.routes[0].")
