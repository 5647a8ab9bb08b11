"""Bodies, paths and specs that were made to break things: no 5xx, the field is named, nothing changes."""

import json
import socket
import string
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podium.api.services import ApiSettings, Limits
from tests.integration.api.conftest import push_versions
from tests.integration.api.server import ApiServer, deployment, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    limits = Limits(document=64 * 1024, push=128 * 1024, report=64 * 1024, blob=1024 * 1024)
    with serving(tmp_path_factory.mktemp("api"), settings=ApiSettings(limits=limits)) as running:
        push_versions(running)
        yield running


def post(server: ApiServer, body: bytes, path: str = "/api/v1/apply") -> httpx.Response:
    return server.http().post(path, content=body, headers={"content-type": "application/json"})


def fields_of(answer: httpx.Response, status: int = 422) -> list[str]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return [issue["field"] for issue in answer.json()["issues"]]


GOOD = json.dumps(deployment("h"))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b'"x"', "body"),
        (b"null", "body"),
        (b"\xff\xfe{}", "body"),
        (b"\xef\xbb\xbf{}", "body"),
        (b'{"a": NaN}', "body"),
        (b'{"a": Infinity}', "body"),
        (b'{"a": 1e999}', "body"),
        (b'{"a": ' + b"9" * 5000 + b"}", "body"),
        (b'{"a": ' + b"9" * 30 + b"}", "a"),
        (b'{"kind": "Model", "kind": "Workspace"}', "body"),
        (b"[" * 50_000, "body"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "body"),
        (b'{"metadata": {"name": "\\ud800"}}', "metadata.name"),
        (b'{"metadata": {"\\ud800": 1}}', "metadata"),
        (b'{"metadata": {"name": "a\\u0000b"}}', "metadata.name"),
        (GOOD.replace('"h"', '"../h"').encode(), "metadata.name"),
        (GOOD.replace('"h"', '"H"').encode(), "metadata.name"),
        (GOOD.replace('"h"', '"h", "resourceVersion": "1"').encode(), "metadata.resourceVersion"),
        (GOOD.replace('"h"', '"h", "resourceVersion": true').encode(), "metadata.resourceVersion"),
        (GOOD.replace('"h"', '"h", "labels": {"a b": "c"}').encode(), "metadata.labels"),
        (GOOD.replace('"replicas": 0', '"replicas": "3"').encode(), "spec.replicas"),
        (GOOD.replace('"replicas": 0', '"replicas": -1').encode(), "spec.replicas"),
        (GOOD.replace('"replicas": 0', '"replicas": 1.5').encode(), "spec.replicas"),
        (GOOD.replace('"replicas": 0', '"replicaz": 0').encode(), "spec.replicaz"),
        (GOOD.replace('"version": "1"', '"version": "9"').encode(), "spec.model.version"),
        (GOOD.replace('"version": "1"', '"alias": "nope"').encode(), "spec.model.alias"),
        (GOOD.replace('"churn"', '"nope"').encode(), "spec.model.name"),
        (GOOD.replace('"default"', '"nowhere"').encode(), "metadata.workspace"),
        (GOOD.replace("Deployment", "Revision").encode(), "kind"),
        (GOOD.replace("Deployment", "Widget").encode(), "kind"),
        (GOOD.replace("podium/v1", "v9").encode(), "apiVersion"),
    ],
)
def test_bodies(server: ApiServer, body: bytes, field: str) -> None:
    before = server.store.current_version()
    assert field in fields_of(post(server, body))
    assert server.store.current_version() == before


def test_known_names_are_listed(server: ApiServer) -> None:
    answer = post(server, GOOD.replace('"version": "1"', '"version": "9"').encode())
    assert "known: 2, 1" in answer.json()["detail"]
    answer = post(server, GOOD.replace('"version": "1"', '"alias": "nope"').encode())
    assert "known: champion" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/api/v1/apply", "/api/v1/tokens"])
def test_bodies_over_the_limit(server: ApiServer, path: str) -> None:
    assert fields_of(post(server, b" " * 70_000, path), 413) == ["body"]

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    answer = server.http().post(path, content=pieces())
    assert fields_of(answer, 413) == ["body"]


def test_a_blob_over_the_limit_leaves_nothing(server: ApiServer) -> None:
    sha = "ab" * 32

    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 100_000

    answer = server.http().put(f"/api/v1/blobs/{sha}", content=pieces())
    assert fields_of(answer, 413) == ["body"]
    answer = server.http().put(f"/api/v1/blobs/{sha}", content=b"something else")
    assert fields_of(answer) == ["sha256"]
    assert server.http().head(f"/api/v1/blobs/{sha}").status_code == 404
    assert not [file for file in server.home.joinpath("blobs").rglob("*") if sha in file.name]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/workspaces/default/models/%2e%2e%2fx", 404),
        ("/api/v1/workspaces/default/models/..%5cx", 422),
        ("/api/v1/workspaces/default/models/a%00b", 422),
        ("/api/v1/workspaces/default/models/%ff", 422),
        ("/api/v1/workspaces/%00/models", 422),
        ("/api/v1/blobs/../../etc/passwd", 404),
        ("/api/v1/blobs/%2e%2e", 422),
        ("/api/v1//models", 404),
        ("/api/v1/models/", 404),
        ("/API/V1/models", 404),
        ("/api/v1/models?limit=0", 422),
        ("/api/v1/models?limit=99999999999999999999", 422),
        ("/api/v1/models?limit=1&limit=2", 422),
        ("/api/v1/models?labelSelektor=a", 422),
        ("/api/v1/models?labelSelector=%00", 422),
        ("/api/v1/models?labelSelector=" + "a," * 3000, 422),
        ("/api/v1/models?fieldSelector=spec.nope=1", 422),
        ("/api/v1/models?continue=xyz", 422),
        ("/api/v1/audit?before=-1", 422),
        ("/api/v1/schemas/Nope", 404),
    ],
)
def test_paths_and_parameters(server: ApiServer, path: str, status: int) -> None:
    answer = server.http().get(path)
    assert answer.status_code == status, answer.text
    if status == 422:
        assert fields_of(answer)


def test_a_client_that_leaves_in_the_middle_of_a_blob(server: ApiServer) -> None:
    """Nothing stays of it, and the server goes on."""
    sha = "cd" * 32
    head = (
        f"PUT /api/v1/blobs/{sha} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.admin_token}\r\n"
        "content-length: 500000\r\n\r\n"
    )
    place = httpx.URL(server.url)
    with socket.create_connection((place.host, place.port or 80), timeout=10) as connection:
        connection.sendall(head.encode() + b"x" * 300_000)
    deadline = time.monotonic() + 10
    while [file for file in server.home.joinpath("blobs").rglob("*") if sha in file.name]:
        assert time.monotonic() < deadline, "the unfinished upload stays"
        time.sleep(0.02)
    assert server.http().get("/healthz").status_code == 200


# What can stand in a JSON document, with what hurts more often than chance would have it.
_TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "\x00", "\ud800", "a" * 5000, "../../etc", "%00", "{{7*7}}", "' OR 1=1 --", "٣s", "1e5s"]
    ),
    st.text(alphabet=string.ascii_lowercase + "-0123456789", max_size=60),
)
_NUMBERS = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([2**63, -(2**63), 10**40, 0, -0.0]),
)
_JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXTS, inner, max_size=4)),
    max_leaves=12,
)
_FIELDS = st.sampled_from(
    [
        "apiVersion", "kind", "metadata", "metadata.name", "metadata.workspace", "metadata.labels",
        "metadata.annotations",
        "metadata.resourceVersion", "metadata.uid", "metadata.createdAt", "metadata.finalizers", "spec", "spec.model",
        "spec.model.version", "spec.model.alias", "spec.replicas", "spec.resources", "spec.resources.memory",
        "spec.runtime", "spec.runtime.env", "spec.runtime.requestTimeout", "spec.runtime.maxBody",
        "spec.sandbox.connectPorts", "spec.rollout", "spec.rollout.strategy", "spec.rollout.strategy.type",
        "spec.rollout.strategy.steps", "spec.rollout.analysis", "spec.rollout.analysis.alpha",
        "spec.rollout.analysis.thresholds", "spec.rollout.analysis.latency", "spec.revisionHistory", "status", "extra",
    ]
)  # fmt: skip


def put(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        child = document.get(name)
        if not isinstance(child, dict):
            child = document[name] = {}
        document = child
    document[last] = value


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.tuples(_FIELDS, _JUNK), min_size=1, max_size=3))
def test_mangled_specs(server: ApiServer, mangled: list[tuple[str, Any]]) -> None:
    """Taken whole, so that the same again changes nothing; or refused, with the fields named, and nothing changed."""
    document = deployment("fuzz")
    for path, value in mangled:
        put(document, path, value)
    before = server.store.current_version()
    body = json.dumps(document).encode()
    answer = post(server, body)
    if answer.status_code < 300:
        again = post(server, body)
        assert (again.status_code, again.json().get("action")) in ((200, "unchanged"), (409, None)), (
            again.text
        )
        stored = answer.json()["object"]
        back = server.http().post("/api/v1/apply", json=stored)
        assert (back.status_code, back.json()["action"]) == (200, "unchanged"), back.text
    else:
        assert answer.status_code in (409, 422), answer.text
        assert answer.json()["issues"] or answer.status_code == 409, answer.text
        assert server.store.current_version() == before


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_bytes(server: ApiServer, body: bytes) -> None:
    assert fields_of(post(server, body))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(
        [
            "/api/v1/workspaces/default/deployments/x/rollout", "/api/v1/workspaces/default/deployments/x/rollback",
            "/api/v1/workspaces/default/models/churn/versions", "/api/v1/workspaces/default/models/churn/import",
            "/api/v1/tokens",
        ]
    ),
    value=_JUNK,
    name=st.sampled_from(["action", "revision", "files", "uri", "subject", "lineage", "metrics", "lifetime", "x"]),
)  # fmt: skip
def test_other_bodies(server: ApiServer, path: str, value: Any, name: str) -> None:
    answer = post(server, json.dumps({name: value}).encode(), path)
    assert answer.status_code in (200, 404, 409, 413, 422), answer.text
    if answer.status_code == 422:
        assert fields_of(answer)
