"""A cascade of real models through a real Envoy, against the same models asked without any server: the same requests
are handed on, and every answer is the same number for number."""

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from podium.gateway.render.clusters import cluster
from podium.gateway.render.rules import published_routes
from podium.planning.routes import plan_published
from podium.planning.routing import WHOLE, Arm, RouteEntry
from podium.resources.kinds import Route
from podium.resources.route import RouteSpec, RouteStatus
from podium.resources.shape import Metadata
from runtime.tests.replica import Replica, Version, running
from tests.integration.gateway.one_envoy import OneEnvoy, one_envoy

pytestmark = pytest.mark.integration
THRESHOLD = 0.75
IMAGES, DIGITS = load_digits(return_X_y=True)
IMAGES /= 16
ROWS = IMAGES[1000:1300]
# Eight of the pixels: enough to be sure now and then.
SMALL = LogisticRegression(C=100, max_iter=1000).fit(IMAGES[:1000] * (np.arange(64) % 8 == 4), DIGITS[:1000])
LARGE = RandomForestClassifier(50, random_state=3).fit(IMAGES[:1000], DIGITS[:1000])


@dataclass
class Site:
    envoy: OneEnvoy
    small: Replica
    large: Replica

    def counted(self, cluster: str, name: str) -> int:
        return sum(self.envoy.stats(rf"^cluster\.default_{cluster}\.{name}$").values())


def replica_of(root: Path, name: str, estimator: Any) -> Version:
    flavor = {"name": "sklearn", "entry": "model.pkl", "options": {"format": "pickle"}}
    signature = {
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 64]}],
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [-1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 10]},
        ],
    }
    root.mkdir()
    served = {"name": name, "version": "1", "workspace": "default", "revision": f"{name}-00001"}
    files = {"model.pkl": pickle.dumps(estimator)}
    return Version(root, flavor, files, signature, {"served": served})


def entry_of(name: str, replica: Replica) -> RouteEntry:
    live = Arm("default", f"{name}-00001", "1", "live", WHOLE, (f"unix:{replica.address}",))
    return RouteEntry(
        workspace="default", deployment=name, uid=name, live=(live,), preview=None, preview_header=None, direct=None,
        timeout=30.0, idempotent=True, max_body=16 * 2**20, unavailable="",
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("models")
    wish = {"rules": [{"to": "small", "cascade": {"deployment": "large", "threshold": THRESHOLD}}]}
    route = Route(
        kind="Route",
        metadata=Metadata(name="digits", uid="uid"),
        spec=RouteSpec.model_validate(wish),
        status=RouteStatus(),
    )
    with (
        running(replica_of(root / "small", "small", SMALL).write()) as small,
        running(replica_of(root / "large", "large", LARGE).write()) as large,
        one_envoy() as envoy,
    ):
        entries = {"small": entry_of("small", small), "large": entry_of("large", large)}
        plan = plan_published(route, entries)
        routes = [json.loads(one) for one in published_routes(plan).published]
        arms = [*entries["small"].live, *plan.own_arms]
        yield Site(envoy.start(routes, [cluster(arm) for arm in arms]), small, large)


def infer(rows: np.ndarray, **more: Any) -> dict[str, Any]:
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
    return {"inputs": [tensor], **more}


def outputs(answer: httpx.Response) -> dict[str, np.ndarray]:
    assert answer.status_code == 200, answer.text
    return {one["name"]: np.reshape(one["data"], one["shape"]) for one in answer.json()["outputs"]}


def test_shares_and_answers_are_those_of_an_offline_calculation(site: Site) -> None:
    sure = SMALL.predict_proba(ROWS).max(axis=1) >= THRESHOLD
    wanted = np.where(sure, SMALL.predict(ROWS), LARGE.predict(ROWS))
    assert 0.2 < sure.mean() < 0.8, "the data has to tell the two apart"
    before = (
        site.counted("large-00001_next", "upstream_rq_completed"),
        site.counted("small-00001_live", r"retry\.upstream_rq_completed"),
    )
    by, found = [], []
    for row in ROWS:
        answer = site.envoy.client.post("/v2/models/digits/infer", json=infer(row[None]))
        given = outputs(answer)
        model = SMALL if answer.headers["x-podium-revision"] == "small-00001" else LARGE
        np.testing.assert_array_equal(given["predict_proba"], model.predict_proba(row[None]))
        by.append(model is SMALL)
        found.append(int(given["predict"][0]))
    assert by == sure.tolist()
    assert found == wanted.tolist()
    handed_on = int((~sure).sum())
    assert site.counted("large-00001_next", "upstream_rq_completed") - before[0] == handed_on
    assert site.counted("small-00001_live", r"retry\.upstream_rq_completed") - before[1] == handed_on


def test_a_batch_is_handed_on_as_a_whole(site: Site) -> None:
    sure = SMALL.predict_proba(ROWS).max(axis=1) >= THRESHOLD
    for start in range(0, 60, 6):
        rows = ROWS[start : start + 6]
        model = SMALL if sure[start : start + 6].all() else LARGE
        given = outputs(site.envoy.client.post("/v2/models/digits/infer", json=infer(rows)))
        assert given["predict"].tolist() == model.predict(rows).tolist()
    surest = ROWS[sure][:6]
    given = outputs(site.envoy.client.post("/v2/models/digits/infer", json=infer(surest)))
    np.testing.assert_array_equal(given["predict_proba"], SMALL.predict_proba(surest))


def test_it_holds_for_every_protocol(site: Site) -> None:
    sure = SMALL.predict_proba(ROWS).max(axis=1) >= THRESHOLD
    for row, revision in ((ROWS[sure][0], "small-00001"), (ROWS[~sure][0], "large-00001")):
        raw = row.astype("<f8").tobytes()
        tensor = {
            "name": "x",
            "datatype": "FP64",
            "shape": [1, 64],
            "parameters": {"binary_data_size": len(raw)},
        }
        head = json.dumps({"inputs": [tensor]}).encode()
        binary = {"inference-header-content-length": str(len(head))}
        sent: list[tuple[str, dict[str, Any]]] = [
            ("/v2/models/digits/infer", {"json": infer(row[None], outputs=[{"name": "predict"}])}),
            ("/v2/models/digits/infer", {"content": head + raw, "headers": binary}),
            ("/v2/models/digits/invocations", {"json": {"inputs": [row.tolist()]}}),
            ("/v1/models/digits:predict", {"json": {"inputs": [row.tolist()]}}),
        ]  # fmt: skip
        for path, request in sent:
            answer = site.envoy.client.post(path, **request)
            assert answer.status_code == 200, (path, answer.text)
            assert answer.headers["x-podium-revision"] == revision, path
