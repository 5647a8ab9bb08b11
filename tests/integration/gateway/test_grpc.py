"""gRPC through a real Envoy to real replicas of podium-runtime, asked by Triton's own client in its own environment."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.tests.replica import Replica, python_version
from tests.integration.gateway.client_environment import Driver, client_python
from tests.integration.gateway.conftest import HERE, Gateway
from tests.integration.gateway.documents import World, deployment, revision, rollout, route
from tests.integration.gateway.signing import Signer
from tests.integration.gateway.wire_server import WireServer

# The first run builds the client's environment.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ECHO = """
import time

class Model:
    def predict(self, inputs):
        if "fail" in inputs:
            raise ValueError("the model's own words: 100 % grün")
        if "sleep" in inputs:
            time.sleep(float(inputs["sleep"][0]))
        return inputs
"""
FAILING = """
class Model:
    def predict(self, inputs):
        raise ValueError("broken")
"""
X = {"name": "x", "datatype": "INT32", "shape": [2, 2], "data": [1, 2, 3, 4]}


class Site:
    """A gateway with real replicas behind it, known by deployment."""

    def __init__(self, folder: Path, server: WireServer, gateway: Gateway) -> None:
        self.folder, self.server, self.gateway = folder, server, gateway
        self.replicas: list[Replica] = []

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.gateway.port}"

    def replica(
        self, name: str, number: int, workspace: str, source: str, settings: dict[str, Any]
    ) -> Replica:
        label = f"{name}-{number:05d}"
        root = self.folder / f"{workspace}.{label}"
        root.mkdir()
        served = {"name": name, "version": str(number), "workspace": workspace, "revision": label}
        version = python_version(root, source, served=served, warmup={"requests": 0}, **settings)
        self.replicas.append(Replica(version.write()))
        return self.replicas[-1].wait_ready()

    def revision(
        self, name: str, number: int = 1, workspace: str = "default", source: str = ECHO,
        settings: dict[str, Any] | None = None, **spec: Any,
    ) -> dict[str, Any]:  # fmt: skip
        made = self.replica(name, number, workspace, source, settings or {})
        return revision(name, number, [f"unix:{made.address}"], workspace, **spec)

    def deploy(self, name: str, workspace: str = "default", source: str = ECHO, **more: Any) -> int:
        settings = more.pop("settings", None)
        found = self.revision(name, 1, workspace, source, settings, **more)
        return self.server.put(found, deployment(name, workspace, stable=f"{name}-00001", **more))

    def close(self) -> None:
        for replica in self.replicas:
            replica.close()


@pytest.fixture(scope="session")
def triton() -> Iterator[Driver]:
    driver = Driver(client_python("clients-tritonclient"), HERE / "triton_driver.py")
    yield driver
    driver.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`churn` in two workspaces, `quick` with a short timeout, `small` with a small limit, `off` without replicas."""
    server = WireServer()
    server.start()
    gateway = Gateway(server.url)
    made = Site(tmp_path_factory.mktemp("site"), server, gateway)
    try:
        made.deploy("churn")
        made.deploy("churn", "team")
        made.deploy("quick", runtime={"requestTimeout": "0.3s"})
        made.deploy("small", runtime={"maxBody": 2048}, settings={"maxBodyBytes": 2048})
        made.server.put(deployment("off"))
        made.gateway.start_agent()
        made.server.wait_loaded(made.server.version, 30)
        yield made
    finally:
        gateway.close()
        server.stop()
        made.close()


def to(name: str, **more: str) -> dict[str, str]:
    return {"podium-deployment": name, **more}


@pytest.fixture
def ask(triton: Driver, site: Site) -> Callable[..., dict[str, Any]]:
    """A call to the site; to `churn` unless headers say otherwise."""

    def call(method: str, /, **arguments: Any) -> dict[str, Any]:
        return triton(method, **{"url": site.url, "headers": to("churn"), **arguments})

    return call


Ask = Callable[..., dict[str, Any]]


def test_server_and_model_say_what_they_are(ask: Ask) -> None:
    assert ask("live") == {"live": True}
    assert ask("ready") == {"ready": True}
    assert ask("model_ready", name="churn") == {"ready": True}
    assert ask("model_ready", name="churn", version="1") == {"ready": True}
    assert ask("server_metadata")["name"] == "podium-runtime"
    found = ask("model_metadata", name="churn", version="1")
    assert (found["name"], found["versions"], found["platform"]) == ("churn", ["1"], "python")


VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    **{f"INT{bits}": [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": [0, 2**bits - 1] for bits in (8, 16, 32, 64)},
    **{name: [-1.5, 0.25] for name in ("FP16", "BF16", "FP32", "FP64")},
    "BYTES": ["", "grüße"],
}


@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_goes_there_and_back(ask: Ask, datatype: str) -> None:
    given = {"name": "x", "datatype": datatype, "shape": [2, 1], "data": VALUES[datatype]}
    found = ask("infer", name="churn", inputs=[given], request_id="mine")
    assert "code" not in found, found
    # No signature says that this output is BF16, so it leaves as what the model had.
    wanted = "FP32" if datatype == "BF16" else datatype
    assert (found["name"], found["version"], found["id"], found["raw"]) == ("churn", "1", "mine", 1)
    output = found["outputs"]["x"]
    assert (output["datatype"], output["shape"], output["data"]) == (wanted, [2, 1], VALUES[datatype])


def test_typed_contents_are_answered_typed(ask: Ask) -> None:
    inputs = [
        {"name": "a", "datatype": "INT8", "shape": ["3"], "contents": {"int_contents": [-128, 0, 127]}},
        {"name": "b", "datatype": "FP32", "shape": ["1", "2"], "contents": {"fp32_contents": [0.5, -2.0]}},
        {"name": "c", "datatype": "BYTES", "shape": ["1"], "contents": {"bytes_contents": ["Z3L8w58="]}},
        {
            "name": "d",
            "datatype": "UINT64",
            "shape": ["1"],
            "contents": {"uint64_contents": ["18446744073709551615"]},
        },
        {"name": "e", "datatype": "BOOL", "shape": ["2"], "contents": {"bool_contents": [True, False]}},
    ]
    request = {
        "model_name": "churn",
        "id": "7",
        "inputs": inputs,
        "outputs": [{"name": name} for name in "edcba"],
        "parameters": {"a": {"bool_param": True}},
    }
    found = ask("message", request=request)
    assert (found["model_name"], found["model_version"], found["id"]) == ("churn", "1", "7")
    assert found["outputs"] == inputs[::-1]
    assert "raw_output_contents" not in found


def test_only_the_wanted_outputs(ask: Ask) -> None:
    second = X | {"name": "y"}
    assert list(ask("infer", name="churn", inputs=[X, second])["outputs"]) == ["x", "y"]
    assert list(ask("infer", name="churn", inputs=[X, second], outputs=["y"])["outputs"]) == ["y"]


def test_three_megabytes(ask: Ask) -> None:
    found = ask("infer", name="churn", inputs=[ones(750_000)])["outputs"]["x"]
    assert (found["shape"], found["sum"]) == ([750_000], 750_000.0)


def test_deployments_by_header_and_authority(ask: Ask, triton: Driver, site: Site) -> None:
    team = triton("infer", url=site.url, name="churn", inputs=[X], headers=to("team/churn"))
    assert team["outputs"]["x"]["data"] == X["data"]
    for authority in ("churn", "churn.default", "churn.team", "churn.team.models.example.com:8443", "CHURN"):
        assert triton("live", url=site.url, authority=authority) == {"live": True}, authority
    # The header counts, whatever the authority says.
    assert triton("live", url=site.url, authority="nobody", headers=to("churn")) == {"live": True}
    for authority in (None, "localhost", "127.0.0.1:80", "[::1]:80", "_x", "churn..team"):
        found = triton("live", url=site.url, authority=authority)
        assert found["code"] == "INVALID_ARGUMENT", authority
        assert "podium-deployment: [WORKSPACE/]NAME" in found["message"]
    found = triton("live", url=site.url, authority="www.example.com")
    assert found["code"] == "NOT_FOUND"
    assert "podium-deployment: [WORKSPACE/]NAME" in found["message"]
    for header in ("nobody", "team/nobody", "nowhere/churn", "default/nobody"):
        found = triton("live", url=site.url, headers=to(header))
        assert found == {
            "code": "NOT_FOUND",
            "message": "no deployment with this name is served in this workspace",
        }
    for header in (
        "",
        "/churn",
        "churn/",
        "a/b/c",
        "../churn",
        "team/../churn",
        "churn?x",
        "churn%2f",
        "churn churn",
    ):
        found = triton("live", url=site.url, headers=to(header))
        assert found == {
            "code": "INVALID_ARGUMENT",
            "message": "podium-deployment: expected [WORKSPACE/]NAME",
        }, header


FAIL = X | {"name": "fail"}


def ones(count: int) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "ones": [count]}


def sleep(seconds: float) -> dict[str, Any]:
    return {"name": "sleep", "datatype": "FP32", "shape": [1], "data": [seconds]}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ({"name": "churn", "inputs": [FAIL]}, "INTERNAL", "ValueError: the model's own words: 100 % grün"),
        ({"name": "other", "inputs": [X]}, "NOT_FOUND", "it serves churn"),
        ({"name": "churn", "inputs": [X], "version": "2"}, "NOT_FOUND", "does not serve this version"),
        ({"name": "churn", "inputs": [X], "version": "../../x"}, "NOT_FOUND", "served in version 1"),
        ({"name": "churn", "inputs": []}, "INVALID_ARGUMENT", "inputs: expected at least one tensor"),
        ({"name": "churn", "inputs": [X, X]}, "INVALID_ARGUMENT", "inputs[1].name"),
        ({"name": "churn", "inputs": [X], "compression_algorithm": "gzip"}, "UNIMPLEMENTED", "compressed"),
        ({"name": "quick", "inputs": [sleep(2)], "headers": to("quick")}, "DEADLINE_EXCEEDED", ""),
        ({"name": "churn", "inputs": [sleep(1)], "client_timeout": 0.2}, "DEADLINE_EXCEEDED", ""),
        ({"name": "small", "inputs": [ones(9000)], "headers": to("small")}, "RESOURCE_EXHAUSTED", "deployment's limit"),
        # HTTP/2 may bring a whole frame (16 KiB) at once, which Envoy does not count: the replica does.
        ({"name": "small", "inputs": [ones(600)], "headers": to("small")}, "RESOURCE_EXHAUSTED", "limit of 2048 bytes"),
        ({"name": "off", "inputs": [X], "headers": to("off")}, "UNAVAILABLE", "no replica of the deployment is ready"),
    ],
)  # fmt: skip
def test_errors_have_grpcs_codes(ask: Ask, arguments: dict[str, Any], code: str, words: str) -> None:
    found = ask("infer", **arguments)
    assert (found["code"], words in found["message"]) == (code, True), found


def test_a_refusal_names_the_field(ask: Ask) -> None:
    tensor = {"name": "x", "datatype": "INT8", "shape": ["1"], "contents": {"int_contents": [128]}}
    found = ask("message", request={"model_name": "churn", "inputs": [tensor]})
    assert found["code"] == "INVALID_ARGUMENT"
    assert found["message"].startswith(
        "inputs[0].contents.int_contents[0]: expected a whole number from -128 to 127"
    )


def test_what_is_not_served_says_so(ask: Ask) -> None:
    found = ask("stream", name="churn")
    assert found["code"] == "UNIMPLEMENTED"
    assert "call ModelInfer" in found["message"]
    for rpc in ("statistics", "repository", "load", "config"):
        found = ask("other", rpc=rpc)
        assert found["code"] == "UNIMPLEMENTED", rpc
        assert "known are ModelInfer, ModelMetadata" in found["message"]
    for method in (
        "/grpc.health.v1.Health/Check",
        "/inference.GRPCInferenceService/",
        "/v2/models/churn/infer",
    ):
        found = ask("octets", method=method, body="")
        assert found["code"] == "UNIMPLEMENTED"
        assert "inference.GRPCInferenceService" in found["message"]


def test_garbage_is_refused_and_harms_nothing(ask: Ask) -> None:
    codes = ask("garbage", count=400)
    assert set(codes) <= {"INVALID_ARGUMENT", "NOT_FOUND", "OK"}, codes
    assert codes["INVALID_ARGUMENT"] > 200
    assert ask("live") == {"live": True}


def test_a_call_must_look_like_one(site: Site) -> None:
    """Over HTTP/1.1 and without gRPC's content type it is no call, and the paths of calls lead nowhere."""
    path = "/inference.GRPCInferenceService/ServerLive"
    plain = site.gateway.client.post(path, headers=to("churn"), content=b"")
    assert plain.status_code == 404
    assert plain.json()["code"] == "notFound"
    forged = site.gateway.client.get("/v2/models/churn", headers={"x-grpc-status": "0", "grpc-status": "0"})
    assert forged.json()["name"] == "churn"
    for broken in (b"", b"\0\0"):
        headers = to("churn", **{"content-type": "application/grpc"})
        answer = site.gateway.client.post(path, headers=headers, content=broken)
        assert answer.status_code == 200
        assert answer.headers.get("grpc-status") in (None, "3")
        assert b"live" not in answer.content


def test_other_workspaces_get_their_paths_as_before(site: Site) -> None:
    found = site.gateway.client.post("/ws/team/v2/models/churn/versions/1/infer", json={"inputs": [X]})
    assert found.json()["outputs"][0]["data"] == X["data"]
    assert site.gateway.get("/ws/team/v2/models/churn/ready").json()["ready"] is True


def test_a_replica_that_is_gone(ask: Ask, site: Site) -> None:
    site.deploy("gone")
    site.server.wait_loaded(site.server.version)
    assert ask("live", headers=to("gone")) == {"live": True}
    site.replicas[-1].process.kill()
    site.replicas[-1].wait_end()
    found = ask("infer", name="gone", inputs=[X], headers=to("gone"))
    assert found["code"] == "UNAVAILABLE"
    assert "could not be reached" in found["message"]


def test_a_full_queue(ask: Ask, site: Site) -> None:
    site.deploy("busy", settings={"queue": {"maxLength": 1}})
    site.server.wait_loaded(site.server.version)
    seen = ask("many", name="busy", inputs=[sleep(0.3)], count=6, threads=6, headers=to("busy"))["seen"]
    assert set(seen) == {"1", "RESOURCE_EXHAUSTED"}


def counts(site: Site, name: str, arm: str, done: int) -> dict[str, Any]:
    """An arm's counters, once `done` requests are in them."""

    def of(report: dict[str, Any]) -> dict[str, Any]:
        return next((s[arm] for s in report["samples"] if s["rolloutUid"] == f"uid-default-{name}-1"), {})

    return of(site.server.wait_report(lambda report: of(report).get("upstream_rq_completed") == done))


def test_a_canary_splits_calls_and_counts_them_as_requests(ask: Ask, site: Site) -> None:
    """Weights, pinned versions and counters are those of REST: a failure of the model is a 5xx, a refusal a 4xx."""
    site.deploy("split")
    docs = [
        site.revision("split", 2, source=FAILING),
        deployment("split", stable="split-00001", rollout="split-1"),
        rollout("split", "split-00001", "split-00002", 30),
    ]
    site.server.wait_loaded(site.server.put(*docs))
    seen = ask("many", name="split", inputs=[X], count=200, threads=4, headers=to("split"))["seen"]
    assert seen["1"] + seen["INTERNAL"] == 200
    # 30 %, give or take four standard deviations.
    assert 34 <= seen["INTERNAL"] <= 86
    # The version in the message pins a call; it is not counted with the arms.
    pinned = ask("many", name="split", inputs=[X], count=20, version="1", headers=to("split"))["seen"]
    assert pinned == {"1": 20}
    site.server.wait_loaded(site.server.put(rollout("split", "split-00001", "split-00002", 100)))
    for _ in range(5):
        assert ask("infer", name="split", inputs=[], headers=to("split"))["code"] == "INVALID_ARGUMENT"
    candidate = counts(site, "split", "candidate", seen["INTERNAL"] + 5)
    assert (candidate["upstream_rq_5xx"], candidate["upstream_rq_4xx"]) == (seen["INTERNAL"], 5)
    stable = counts(site, "split", "stable", seen["1"])
    assert (stable["upstream_rq_5xx"], stable["upstream_rq_4xx"]) == (0, 0)


def test_a_preview_by_metadata(ask: Ask, site: Site) -> None:
    site.deploy("bg")
    settings = {"strategy": {"type": "blueGreen", "previewHeader": "x-try"}}
    docs = [
        site.revision("bg", 2),
        deployment("bg", stable="bg-00001", rollout="bg-1"),
        rollout("bg", "bg-00001", "bg-00002", 0, preview=True, **settings),
    ]
    site.server.wait_loaded(site.server.put(*docs))
    assert ask("infer", name="bg", inputs=[X], headers=to("bg"))["version"] == "1"
    assert ask("infer", name="bg", inputs=[X], headers=to("bg", **{"x-try": "true"}))["version"] == "2"


def test_a_deployment_whose_own_path_is_closed_is_called_by_its_route(ask: Ask, site: Site) -> None:
    site.deploy("closed", traffic={"ownPath": False})
    site.server.wait_loaded(site.server.put(route("open", {"to": "closed"})))
    for more in ({}, {"version": "1"}):
        refused = ask("infer", name="closed", inputs=[X], headers=to("closed"), **more)
        assert (refused["code"], "Routes only" in refused["message"]) == ("NOT_FOUND", True), refused
    assert ask("infer", name="open", inputs=[X], headers=to("open"))["version"] == "1"


def test_tokens(triton: Driver, server: WireServer, gateway: Gateway, tmp_path: Path) -> None:
    site = Site(tmp_path, server, gateway)
    signer = Signer()
    server.access = signer.access("taken")
    try:
        site.deploy("churn")
        site.deploy("churn", "team")
        gateway.start_agent()
        server.wait_loaded(server.version)

        def status(token: str | None, name: str = "churn", **more: Any) -> tuple[str, str]:
            headers = to(name) if token is None else to(name, authorization=f"Bearer {token}")
            found = triton("infer", url=site.url, name="churn", inputs=[X], headers=headers, **more)
            return found.get("code", "OK"), found.get("message", "")

        assert status(signer.token())[0] == "OK"
        assert status(signer.token(), version="1")[0] == "OK"
        assert status(None) == ("UNAUTHENTICATED", "no token")
        for wrong in ("x.y.z", Signer().token(), signer.token(iss="somebody"), signer.token(exp=1)):
            assert status(wrong)[0] == "UNAUTHENTICATED"
        assert status(signer.token(jti="taken")) == ("UNAUTHENTICATED", "the token has been revoked")
        assert status(signer.token(ws=["team"])) == (
            "PERMISSION_DENIED",
            "the token is not for this workspace",
        )
        for version in ("", "1"):
            assert status(signer.token(), "team/churn", version=version)[0] == "PERMISSION_DENIED"
            assert status(signer.token(ws=["team"]), "team/churn", version=version)[0] == "OK"
        assert status(signer.token(ws=["*"]), "team/churn")[0] == "OK"
        # What the gateway answers without a token over REST, it does not over gRPC: a Deployment answers that.
        assert triton("live", url=site.url, headers=to("churn"))["code"] == "UNAUTHENTICATED"
        assert triton("live", url=site.url, authority="churn.team")["code"] == "UNAUTHENTICATED"
    finally:
        site.close()


def test_what_a_call_costs_the_routes(server: WireServer, gateway: Gateway) -> None:
    """Nothing: a Deployment has the same two routes whether it is asked over REST, over gRPC or both."""
    world = World(server, gateway)
    world.deploy("churn")
    gateway.start_agent()
    server.wait_loaded(server.version)
    table = gateway.settings.layout.document("routes").read_text()
    said = ("/v2/models/churn", "default_churn-00001", "deployment:default/churn")
    assert table.count("churn") == sum(table.count(words) for words in said)
    assert "GRPC" not in table
