"""MLServer from the package index as a Deployment's server: pushed, served from the environment that Podium makes,
asked through the gateway, and passed by canary from one version to the next.

Needs a package index, as `make setup` does; what was downloaded once comes from uv's cache.
"""

import collections
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import joblib
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from podium.demo.installation import Installation
from podium.processes.shim import landlock

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

REQUIREMENTS = [
    "mlserver==1.7.1",
    "mlserver-sklearn==1.7.1",
    f"scikit-learn=={version('scikit-learn')}",
    f"numpy=={version('numpy')}",
    # MLServer 1.7.1 asks uvloop for a loop that newer ones don't make by themselves.
    "uvloop<0.22",
]
RUNTIME = {
    "command": "mlserver start {model}",
    "protocol": "oip",
    "modelName": "forest",
    "requestTimeout": "30s",
    "env": {
        "MLSERVER_HOST": "{host}",
        "MLSERVER_HTTP_PORT": "{port}",
        "MLSERVER_GRPC_PORT": "{port.grpc}",
        "MLSERVER_METRICS_PORT": "{port.metrics}",
        # Its worker processes need /dev/shm, which the sandbox keeps shut; replicas are Podium's.
        "MLSERVER_PARALLEL_WORKERS": "0",
    },
}
INPUTS, CLASSES = load_iris(return_X_y=True)


def folder(place: Path, model: Any) -> Path:
    """What MLServer wants: a model and its settings, and a podium.yaml with MLServer itself."""
    place.mkdir()
    joblib.dump(model, place / "model.joblib")
    settings = {
        "name": "forest",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib"},
    }
    (place / "model-settings.json").write_text(json.dumps(settings))
    (place / "podium.yaml").write_text(f"flavor: custom\nrequirements: {json.dumps(REQUIREMENTS)}\n")
    return place


def deployment(number: int) -> dict[str, Any]:
    canary = {"type": "canary", "steps": [{"weight": 50, "requests": 60}], "keepOld": "1s"}
    return {
        "apiVersion": "podium/v1",
        "kind": "Deployment",
        "metadata": {"name": "iris"},
        "spec": {
            "model": {"name": "iris", "version": number},
            "resources": {"memory": "1Gi"},
            "sandbox": {"require": "files"},
            "runtime": RUNTIME,
            "rollout": {"strategy": canary, "analysis": {"enabled": False}},
        },
    }


@pytest.fixture
def installation() -> Iterator[Installation]:
    place = Path(tempfile.mkdtemp(prefix="podium-e2e-"))
    try:
        with Installation(place / "home") as running:
            yield running
    finally:
        shutil.rmtree(place, ignore_errors=True)


class Traffic:
    """Asks for one row after the other until it is told to end; counts answers by revision."""

    def __init__(self, running: Installation, expected: dict[str, Any]) -> None:
        self.answers: collections.Counter[tuple[str, int]] = collections.Counter()
        self.wrong: list[str] = []
        self._expected = expected
        self._client = httpx.Client(
            base_url=running.gateway, headers={"Authorization": f"Bearer {running.token}"}, timeout=60
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(90)
        self._client.close()

    def _run(self) -> None:
        row = 0
        while not self._over.is_set():
            row = (row + 1) % len(INPUTS)
            tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": INPUTS[row].tolist()}
            answer = self._client.post("/v2/models/iris/infer", json={"inputs": [tensor]})
            revision = answer.headers.get("x-podium-revision", "")
            self.answers[revision, answer.status_code] += 1
            if answer.status_code != 200:
                self.wrong.append(answer.text[:500])
            elif answer.json()["outputs"][0]["data"] != [int(self._expected[revision][row])]:
                self.wrong.append(f"row {row} of {revision}: {answer.text[:500]}")


def test_mlserver_serves_and_passes_from_one_version_to_the_next(
    installation: Installation, tmp_path: Path
) -> None:
    first = LogisticRegression(max_iter=500).fit(INPUTS, CLASSES)
    second = RandomForestClassifier(20, random_state=0).fit(INPUTS, CLASSES)
    expected = {"iris-00001": first.predict(INPUTS), "iris-00002": second.predict(INPUTS)}
    assert (expected["iris-00001"] != expected["iris-00002"]).any(), "else nobody could tell them apart"
    client = installation.client
    words: list[str] = []
    pushed = client.push(
        "iris", folder(tmp_path / "one", first), progress=lambda told: words.append(str(told))
    )
    assert pushed.version.spec.manifest.flavor.name == "custom"
    assert not any("loading the model" in word for word in words), words
    client.push("iris", folder(tmp_path / "two", second))

    client.apply(deployment(1))
    outcome = client.wait("iris", timeout=240)
    assert outcome.outcome == "promoted", f"{outcome.message}\n{_why(installation)}"
    whole = {"name": "x", "shape": [150, 4], "datatype": "FP64", "data": INPUTS.ravel().tolist()}
    answer = httpx.post(
        f"{installation.gateway}/v2/models/iris/infer",
        headers=_token(installation),
        json={"inputs": [whole]},
        timeout=60,
    ).json()
    assert answer["model_name"] == "forest"
    assert answer["outputs"][0]["data"] == expected["iris-00001"].tolist()
    about = httpx.get(f"{installation.gateway}/v2/models/iris", headers=_token(installation))
    assert about.json()["name"] == "forest"
    hidden = httpx.post(f"{installation.gateway}/v2/repository/index", headers=_token(installation), json={})
    assert hidden.status_code == 404

    with Traffic(installation, expected) as traffic:
        client.apply(deployment(2))
        outcome = client.wait("iris", timeout=240)
    assert outcome.outcome == "promoted", f"{outcome.message}\n{_why(installation)}"
    assert traffic.wrong == []
    assert {status for _, status in traffic.answers} == {200}
    assert traffic.answers["iris-00002", 200] >= 60
    assert traffic.answers["iris-00001", 200] > 0
    last = httpx.get(f"{installation.gateway}/v2/models/iris/versions/2", headers=_token(installation))
    assert (last.status_code, last.headers["x-podium-revision"]) == (200, "iris-00002")
    (replica,) = client.get("Revision", "iris-00002").status.replicas
    assert replica.address.startswith("http://127.0.0.1:")
    assert replica.sandbox == ("full" if landlock.abi() >= 4 else "files")


def _token(running: Installation) -> dict[str, str]:
    return {"Authorization": f"Bearer {running.token}"}


def _why(running: Installation) -> str:
    revisions = [one.status.model_dump_json(indent=1) for one in running.client.list("Revision")]
    return "\n".join([*revisions, running.last_words()])
