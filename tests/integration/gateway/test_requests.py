"""What happens to one request: paths, versions, previews, limits, timeouts, headers, counters. A real Envoy answers."""

import socket
from collections.abc import Iterator

import pytest

from tests.integration.gateway.conftest import Gateway, until
from tests.integration.gateway.documents import World, deployment, rollout
from tests.integration.gateway.wire_server import WireServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Gateway, World, WireServer]]:
    """`churn` in two workspaces, `small` with a small body limit, `quick` with a short timeout."""
    server = WireServer()
    server.start()
    gateway = Gateway(server.url)
    try:
        world = World(server, gateway)
        world.deploy("churn")
        world.deploy("churn", "team")
        world.deploy("small", runtime={"maxBody": "2Ki"})
        world.deploy("quick", runtime={"requestTimeout": "0.2s"})
        gateway.start_agent()
        server.wait_loaded(server.version, 30)
        yield gateway, world, server
    finally:
        gateway.close()
        server.stop()


@pytest.fixture
def gate(served: tuple[Gateway, World, WireServer]) -> Gateway:
    return served[0]


def test_paths_reach_the_replica_without_the_workspace(gate: Gateway) -> None:
    for path, revision, target in [
        ("/v2/models/churn", "churn-00001", "/v2/models/churn"),
        ("/v2/models/churn/ready", "churn-00001", "/v2/models/churn/ready"),
        ("/v2/models/churn/infer?a=1&b=/ws/x", "churn-00001", "/v2/models/churn/infer?a=1&b=/ws/x"),
        ("/v2//models///churn/infer", "churn-00001", "/v2/models/churn/infer"),
        ("/ws/team/v2/models/churn/infer?a=1", "team.churn-00001", "/v2/models/churn/infer?a=1"),
        ("/ws/team/v2/models/churn", "team.churn-00001", "/v2/models/churn"),
    ]:
        seen = gate.get(path).json()
        assert (seen["revision"], seen["target"]) == (revision, target)


def test_version_1_of_kserve_s_protocol_reaches_the_deployment_that_it_names(gate: Gateway) -> None:
    for path, revision, target in [
        ("/v1/models/churn:predict", "churn-00001", "/v2/models/churn/v1/models/churn:predict"),
        ("/v1/models/churn?a=/v1/models/x", "churn-00001", "/v2/models/churn/v1/models/churn?a=/v1/models/x"),
        ("/ws/team/v1/models/churn:predict", "team.churn-00001", "/v2/models/churn/v1/models/churn:predict"),
        (
            "/v1/models/churn/versions/1:predict", "churn-00001",
            "/v2/models/churn/versions/1/v1/models/churn:predict",
        ),
        ("/v2/models/churn/v1/models/churn:predict", "churn-00001", "/v2/models/churn/v1/models/churn:predict"),
    ]:  # fmt: skip
        seen = gate.get(path).json()
        assert (seen["revision"], seen["target"]) == (revision, target)
    for path in (
        "/v1/models/nobody:predict",
        "/v1/models/churn/versions/2:predict",
        "/ws/other/v1/models/churn",
    ):
        assert gate.get(path).status_code == 404, path


def test_versions_answer_only_what_is_served(gate: Gateway) -> None:
    seen = gate.get("/v2/models/churn/versions/1/infer").json()
    assert seen["target"] == "/v2/models/churn/versions/1/infer"
    seen = gate.get("/ws/team/v2/models/churn/versions/1").json()
    assert (seen["revision"], seen["target"]) == ("team.churn-00001", "/v2/models/churn/versions/1")
    for path in ("versions/2/infer", "versions/12", "versions", "versions/", "versions/1x", "versions/01"):
        for prefix in ("", "/ws/team"):
            answer = gate.get(f"{prefix}/v2/models/churn/{path}")
            assert answer.status_code == 404, path
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "notFound"


def test_unknown_paths_are_problems(gate: Gateway) -> None:
    for path in (
        "/v2/models/nobody/infer", "/v2/models/churn2", "/v2/models/chur", "/ws/other/v2/models/churn", "/", "/metrics",
        "/v2/models", "/ws/team", "/ws/team/v2", "/stats", "/config_dump", "/v2/models/CHURN",
    ):  # fmt: skip
        answer = gate.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == 404


def test_the_default_workspace_has_one_address(gate: Gateway) -> None:
    answer = gate.get("/ws/default/v2/models/churn/infer?a=1")
    assert answer.status_code == 308
    assert answer.headers["location"].endswith("/v2/models/churn/infer?a=1")
    assert gate.get("/ws/default/v2/models/churn/infer?a=1", follow_redirects=True).status_code == 200


def test_body_limits(gate: Gateway) -> None:
    assert gate.client.post("/v2/models/small/infer", content=b"x" * 2000).json()["bytes"] == 2000
    answer = gate.client.post("/v2/models/small/infer", content=b"x" * 3000)
    assert answer.status_code == 413
    assert answer.json()["code"] == "tooLarge"
    assert gate.client.post("/v2/models/churn/infer", content=b"x" * 15 * 2**20).json()["bytes"] == 15 * 2**20
    assert gate.client.post("/v2/models/churn/infer", content=b"x" * 17 * 2**20).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield b"y" * 100

    assert gate.client.post("/v2/models/small/infer", content=chunks()).status_code == 413


def test_timeout_is_a_problem(gate: Gateway) -> None:
    answer = gate.get("/v2/models/quick/infer?sleep=2")
    assert answer.status_code == 504
    assert answer.json()["code"] == "timeout"
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_client_cannot_steer_the_gateway(gate: Gateway) -> None:
    """Envoy obeys such headers from addresses that it takes for internal; none is."""
    hostile = {
        "x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-max-retries": "100", "x-envoy-retry-on": "5xx",
        "x-envoy-upstream-rq-per-try-timeout-ms": "1", "x-forwarded-for": "127.0.0.1",
        "x-envoy-decorator-operation": "x",
    }  # fmt: skip
    answer = gate.get("/v2/models/churn/infer?sleep=0.1", headers=hostile)
    assert answer.status_code == 200
    seen = answer.json()["headers"]
    assert "x-envoy-max-retries" not in seen
    assert seen["x-envoy-expected-rq-timeout-ms"] == "30000"


def test_request_id_is_kept_or_made(gate: Gateway) -> None:
    answer = gate.get("/v2/models/churn", headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json()["headers"]["x-request-id"] == "mine-1"
    made = gate.get("/v2/models/churn")
    assert len(made.headers["x-request-id"]) > 20
    assert made.json()["headers"]["x-request-id"] == made.headers["x-request-id"]
    assert gate.get("/nowhere", headers={"x-request-id": "mine-2"}).headers["x-request-id"] == "mine-2"


def test_overload_and_errors_are_passed_on_once(gate: Gateway) -> None:
    overloaded = gate.get("/v2/models/churn/infer?status=429")
    assert overloaded.status_code == 429
    assert overloaded.headers["retry-after"] == "1"
    assert overloaded.json()["revision"] == "churn-00001"
    assert gate.get("/v2/models/churn/infer?status=500").json()["revision"] == "churn-00001"
    assert gate.get("/v2/models/churn/infer?status=503").json()["revision"] == "churn-00001"


def test_headers_have_a_limit(gate: Gateway) -> None:
    assert gate.get("/v2/models/churn", headers={"x-big": "y" * 40_000}).status_code == 431
    many = "".join(f"h{number}: v\r\n" for number in range(150))
    with socket.create_connection(("127.0.0.1", gate.port), timeout=10) as connection:
        connection.sendall(f"GET /v2/models/churn HTTP/1.1\r\nhost: g\r\n{many}\r\n".encode())
        assert connection.recv(100).split(b" ")[1] == b"431"


def test_smuggling_is_refused(gate: Gateway) -> None:
    body = b"0\r\n\r\nGET /v2/models/small HTTP/1.1\r\nhost: g\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gate.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v2/models/churn HTTP/1.1\r\nhost: g\r\ncontent-length: %d\r\ntransfer-encoding: chunked\r\n\r\n"
            % len(body) + body
        )  # fmt: skip
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400")


def test_preview_by_header(served: tuple[Gateway, World, WireServer]) -> None:
    gateway, world, server = served
    world.deploy("bg")
    second = world.revision("bg", number=2)
    settings = {"strategy": {"type": "blueGreen", "previewHeader": "x-try"}}
    version = server.put(
        second,
        deployment("bg", stable="bg-00001", rollout="bg-1"),
        rollout("bg", "bg-00001", "bg-00002", 0, preview=True, **settings),
    )
    server.wait_loaded(version)
    assert gateway.get("/v2/models/bg/infer").json()["revision"] == "bg-00001"
    assert gateway.get("/v2/models/bg/infer", headers={"x-try": "true"}).json()["revision"] == "bg-00002"
    assert gateway.get("/v2/models/bg/infer", headers={"x-try": "no"}).json()["revision"] == "bg-00001"
    # Previewed requests are not counted in the arm that is judged.
    uid = "uid-default-bg-1"
    report = server.wait_report(
        lambda report: any(
            s["rolloutUid"] == uid and s["stable"]["upstream_rq_total"] == 2 for s in report["samples"]
        )
    )
    sample = next(sample for sample in report["samples"] if sample["rolloutUid"] == uid)
    assert sample["candidate"]["upstream_rq_total"] == 0


def test_counters_for_known_traffic(served: tuple[Gateway, World, WireServer]) -> None:
    gateway, world, server = served
    spec = {"runtime": {"requestTimeout": "0.3s"}}
    world.deploy("counted", **spec)
    analysis = {"analysis": {"latency": {"threshold": "0.11s"}}}
    server.wait_loaded(world.canary("counted", 100, spec=spec, **analysis))
    path = "/v2/models/counted/infer"
    for query, times in (
        ("", 10),
        ("?status=400", 3),
        ("?status=500", 2),
        ("?sleep=0.2", 4),
        ("?sleep=2", 1),
    ):
        for _ in range(times):
            gateway.get(path + query)
    uid = "uid-default-counted-1"
    report = server.wait_report(
        lambda report: any(
            s["rolloutUid"] == uid and s["candidate"]["upstream_rq_completed"] == 20
            # Histograms follow the counters at Envoy's next flush; the timed-out one is never in them.
            and s["candidate"]["buckets"] and s["candidate"]["buckets"][-1][1] == 19
            for s in report["samples"]
        )
    )  # fmt: skip
    sample = next(sample for sample in report["samples"] if sample["rolloutUid"] == uid)
    counts = sample["candidate"]
    assert sample["weightBp"] == 10_000
    assert sample["latencyEdgeMs"] == 125
    assert counts["upstream_rq_total"] == 20
    assert counts["upstream_rq_4xx"] == 3
    assert counts["upstream_rq_5xx"] == 3
    assert counts["upstream_rq_timeout"] == 1
    assert counts["upstream_rq_active"] == 0
    assert counts["upstream_rq_retry"] == 0
    assert counts["upstream_cx_connect_fail"] == 0
    assert dict(map(tuple, counts["buckets"]))[125.0] == 15
    assert sample["stable"]["upstream_rq_total"] == 0


def test_a_dead_candidate_shows_in_the_counters(served: tuple[Gateway, World, WireServer]) -> None:
    gateway, world, server = served
    world.deploy("dying")
    server.wait_loaded(world.canary("dying", 100))
    gateway.replicas["dying-00002-0"].kill()
    gateway.replicas["dying-00002-0"].wait(10)
    assert gateway.get("/v2/models/dying/infer").status_code == 503
    uid = "uid-default-dying-1"
    server.wait_report(
        lambda report: any(
            s["rolloutUid"] == uid and s["candidate"]["upstream_cx_connect_fail"] > 0
            for s in report["samples"]
        )
    )
    until(lambda: gateway.get("/v2/models/churn/infer").status_code == 200)
