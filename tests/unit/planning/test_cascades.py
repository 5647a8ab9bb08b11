"""Cascades that would hand nothing on: what is said of them, by the signature of the served version."""

from typing import Any

import pytest

from podium.planning.cascades import find_troubles, why_never
from podium.planning.route_status import GatewayWord, decide
from podium.resources.kinds import KINDS, AnyResource, Route
from podium.resources.manifest import Signature
from podium.resources.traffic import Cascade
from tests.unit.planning.test_route_status import NOW

OUTPUTS = [
    {"name": "predict", "datatype": "INT64", "shape": [-1]},
    {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 4]},
    {"name": "score", "datatype": "FP32", "shape": [-1]},
    {"name": "logits", "datatype": "BF16", "shape": [-1, 4]},
    {"name": "label", "datatype": "BYTES", "shape": [-1]},
]


def signature(*outputs: dict[str, Any]) -> Signature:
    return Signature.model_validate({"inputs": [], "outputs": list(outputs)})


def cascade(**more: Any) -> Cascade:
    return Cascade.model_validate({"deployment": "large", **more})


@pytest.mark.parametrize(
    ("wish", "field", "words"),
    [
        ({"output": "predict_prob"}, "output", "which has no output predict_prob, so nothing is handed on"),
        ({"output": "zzz"}, "output", "it has predict, predict_proba, score, logits, label"),
        ({"output": "predict"}, "output", "whose predict is INT64, no confidence between 0 and 1"),
        ({"output": "label"}, "output", "whose label is BYTES"),
        ({"threshold": 0.25}, "threshold", "of 4 probabilities is never below 0.25, so nothing is handed on at 0.25"),
    ],
)  # fmt: skip
def test_what_can_never_be_handed_on(wish: dict[str, Any], field: str, words: str) -> None:
    found = why_never(cascade(**wish), signature(*OUTPUTS))
    assert found is not None
    assert found[0] == field
    assert words in found[1]


@pytest.mark.parametrize(
    "wish",
    [{}, {"threshold": 0.26}, {"output": "score", "threshold": 0.1}, {"output": "logits", "threshold": 0.1}],
)
def test_what_is_handed_on_where_it_should_be(wish: dict[str, Any]) -> None:
    assert why_never(cascade(**wish), signature(*OUTPUTS)) is None


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert why_never(cascade(output="zzz"), None) is None
    assert why_never(cascade(output="zzz"), signature()) is None
    assert why_never(cascade(threshold=0.01), signature({**OUTPUTS[1], "shape": [-1, -1]})) is None


class Objects:
    """What the store would answer."""

    def __init__(self, *documents: tuple[str, dict[str, Any]]) -> None:
        self._found: dict[tuple[str, str], AnyResource] = {}
        for kind, document in documents:
            meta = {"uid": f"uid-{kind}-{document['metadata']['name']}", **document["metadata"]}
            made: AnyResource = KINDS[kind].parse({**document, "metadata": meta})
            self._found[kind, made.metadata.name] = made

    def find(self, kind: str, workspace: str, name: str) -> AnyResource | None:
        return self._found.get((kind, name))

    def list(self, kind: str, *, owner_uid: str | None = None) -> Any:
        items = [one for (kept, _), one in self._found.items() if kept == kind]
        return type("Page", (), {"items": items})()


def version(number: str, *outputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    manifest = {
        "flavor": {"name": "sklearn"}, "files": [{"path": "m", "size": 1, "sha256": "0" * 64}], "python": "3.11",
        "lock": {"sha256": "0" * 64}, "signature": {"inputs": [], "outputs": list(outputs)},
    }  # fmt: skip
    digest = "sha256:" + "0" * 64
    spec = {"model": "m", "version": number, "digest": digest, "pushDigest": digest, "manifest": manifest}
    return "ModelVersion", {"metadata": {"name": f"m.{number}"}, "spec": spec}


def revision(number: str, **runtime: Any) -> tuple[str, dict[str, Any]]:
    spec = {
        "deployment": "small", "deploymentUid": "uid-Deployment-small", "number": int(number), "model": "m",
        "version": number, "manifestDigest": "sha256:0", "runtimeWheel": "0", "target": "process",
        "resources": {}, "runtime": runtime, "sandbox": {}, "idempotent": True, "contentHash": "0",
    }  # fmt: skip
    replica = {"name": f"small-0000{number}-0-0", "phase": "Ready", "address": "unix:/s"}
    return "Revision", {
        "metadata": {"name": f"small-0000{number}"},
        "spec": spec,
        "status": {"phase": "Ready", "replicas": [replica]},
    }


def deployment(served: str | None, asked: str = "1", **spec: Any) -> tuple[str, dict[str, Any]]:
    status = {"stableRevision": f"small-0000{served}"} if served else {}
    return "Deployment", {
        "metadata": {"name": "small"},
        "spec": {"model": {"name": "m", "version": asked}, **spec},
        "status": status,
    }


def route(**cascade: Any) -> Route:
    rules = [
        {"name": "free", "match": {"headers": {"x-a": "1"}}, "to": "small"},
        {"name": "asked", "to": "small", "cascade": {"deployment": "large", **cascade}},
    ]
    document = {
        "metadata": {"name": "front", "uid": "u", "generation": 2, "updatedAt": NOW.isoformat()},
        "spec": {"rules": rules},
        "status": {"observedGeneration": 2, "version": 10},
    }
    return KINDS["Route"].parse(document)


MODEL = ("Model", {"metadata": {"name": "m"}, "spec": {}})
VERSIONS = (MODEL, version("1", *OUTPUTS), version("2", OUTPUTS[0]))


def test_the_served_version_counts_not_the_wanted_one() -> None:
    objects = Objects(*VERSIONS, revision("1"), revision("2"), deployment("2", asked="1"))
    found = find_troubles(objects, route())
    assert found == {
        "asked": [
            "rules[1].cascade.output: small-00002 serves m version 2, which has no output predict_proba, so nothing is "
            "handed on; it has predict"
        ]
    }
    assert find_troubles(Objects(*VERSIONS, revision("1"), deployment("1", asked="2")), route()) == {}


def test_of_what_nobody_serves_yet_the_wanted_version_counts() -> None:
    found = find_troubles(Objects(*VERSIONS, deployment(None, asked="2")), route())
    assert "small is to serve m version 2, which has no output" in found["asked"][0]
    assert find_troubles(Objects(*VERSIONS, deployment(None, asked="9")), route()) == {}
    assert find_troubles(Objects(), route()) == {}


def test_another_server_marks_answers_in_its_own_way() -> None:
    runtime = {"command": ["serve"]}
    objects = Objects(*VERSIONS, revision("2", **runtime), deployment("2", runtime=runtime))
    assert find_troubles(objects, route()) == {}
    assert find_troubles(Objects(*VERSIONS, deployment(None, asked="2", runtime=runtime)), route()) == {}


def test_a_route_that_hands_nothing_on_is_degraded_and_says_why() -> None:
    ready = KINDS["Deployment"].parse({**deployment("2")[1], "status": {"phase": "Ready"}})
    named = {"small": ready, "large": ready}
    outcome = decide(route(), named, [GatewayWord("g1", 10, "")], troubles=["rules[1].x"], now=NOW)
    assert (outcome.status.phase, outcome.status.message) == ("Degraded", "rules[1].x")
    assert outcome.events == (("Warning", "Degraded", "rules[1].x"),)
    assert decide(route(), named, [GatewayWord("g1", 10, "")], now=NOW).status.phase == "Ready"
