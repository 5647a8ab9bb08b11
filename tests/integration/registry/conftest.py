"""A real MLflow: a tracking store on SQLite with models that scikit-learn was trained for, and a server on it.

MLflow keeps its settings in global state, so that each piece runs in a process of its own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_TRAIN = """
import json, sys
import mlflow, mlflow.sklearn
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

tracking, artifacts, forms = sys.argv[1:]
mlflow.set_tracking_uri(tracking)
mlflow.set_experiment(experiment_id=mlflow.create_experiment("churn", artifact_location=artifacts or None))
X, y = load_breast_cancer(return_X_y=True, as_frame=True)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
runs = {}
for form in forms.split():
    with mlflow.start_run(tags={"team": "churn", "long": "x" * 4500}) as run:
        mlflow.log_metrics({"auc": 0.99, "broken": float("nan")})
        mlflow.log_params({"C": 1.0, "solver": "lbfgs"})
        mlflow.sklearn.log_model(
            model, name="model", serialization_format=form, registered_model_name="churn",
            signature=infer_signature(X, model.predict(X)), pip_requirements=["scikit-learn==1.9.1", "skops==0.16.0"],
        )
        runs[form] = run.info.run_id
client = MlflowClient()
client.set_registered_model_alias("churn", "champion", str(len(runs)))
client.set_model_version_tag("churn", str(len(runs)), "stage", "blessed")
print(json.dumps({"runs": runs, "predictions": model.predict(X[:20]).tolist()}))
"""


@dataclass(frozen=True)
class Mlflow:
    """A store that was trained into. `runs`: run id by form of serialisation; version 1 is cloudpickle, 2 is skops."""

    tracking_uri: str
    folder: Path
    runs: dict[str, str]
    predictions: list[int]


def train(tracking_uri: str, folder: Path, artifacts: str, forms: str = "cloudpickle skops") -> Mlflow:
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
    environment |= {"GIT_PYTHON_REFRESH": "quiet", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN, tracking_uri, artifacts, forms],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return Mlflow(tracking_uri, folder, answer["runs"], answer["predictions"])


@pytest.fixture(scope="session")
def mlflow_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Mlflow:
    folder = tmp_path_factory.mktemp("mlflow-sqlite")
    return train(f"sqlite:///{folder}/mlflow.db", folder, f"{folder}/artifacts")


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    """`mlflow server` on a free port, trained into over HTTP."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/health", process, folder / "log")
        yield train(address, folder, "")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            words = log.read_text(errors="replace")[-3000:]
            assert process.poll() is None, words
            assert time.monotonic() < deadline, words
            time.sleep(0.1)
