"""Imports from a real MLflow: a store on SQLite, one in files, and a server over HTTP."""

import contextlib
import hashlib
import http.server
import json
import pickle
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from podium.registry.blobs import BlobStore
from podium.registry.checkout import Checkout
from podium.registry.folder import store_folder
from podium.registry.intake import PushHints, draft
from podium.registry.mlflow_source import ImportPolicy, fetch
from podium.registry.push import complete, push_digest
from podium.resources.errors import InvalidInput, NotFound, PodiumError, TooLarge, Unavailable
from podium.resources.requests import ImportRequest, PushRequest
from tests.integration.registry.conftest import Mlflow, train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def artifacts_of(mlflow: Mlflow, form: str) -> dict[str, bytes]:
    """The model's files where MLflow itself keeps them."""
    name = {"cloudpickle": "model.pkl", "skops": "model.skops"}[form]
    (entry,) = mlflow.folder.rglob(name)
    return {
        p.relative_to(entry.parent).as_posix(): p.read_bytes() for p in entry.parent.rglob("*") if p.is_file()
    }


def content_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("store", "uri"),
    [("sqlite", "models:/churn/2"), ("sqlite", "runs:/{skops}/model"), ("server", "models:/churn@champion")],
)
def test_a_version_comes_whole_with_its_lineage(
    request: pytest.FixtureRequest, tmp_path: Path, store: str, uri: str
) -> None:
    mlflow: Mlflow = request.getfixturevalue(f"mlflow_{store}")
    before = content_of(mlflow.folder)
    wanted = ImportRequest(uri=uri.format(**mlflow.runs))
    said: list[str] = []
    found = fetch(wanted, ImportPolicy((mlflow.tracking_uri,)), tmp_path / "in", said.append)
    assert content_of(found.path) == artifacts_of(mlflow, "skops")
    assert found.run_id == mlflow.runs["skops"]
    assert found.metrics == {"auc": 0.99}
    assert found.params == {"C": "1.0", "solver": "lbfgs"}
    assert found.tags["team"] == "churn"
    assert set(found.omitted) == {"broken", "long"}
    assert found.uri == ("models:/churn/2" if uri.startswith("models") else wanted.uri)
    assert ("stage" in found.tags) == uri.startswith("models")
    assert said[0] == "starting MLflow's client"
    lineage = found.lineage()
    assert lineage["runId"] == mlflow.runs["skops"]
    assert lineage["trackingUri"] == mlflow.tracking_uri
    PushRequest.model_validate({"files": [{"path": "x", "size": 0, "sha256": "0" * 64}], "lineage": lineage})
    # An import changes nothing in a store that it opens itself; a server writes its own log.
    assert store == "server" or content_of(mlflow.folder) == before


@pytest.mark.parametrize(("version", "form"), [("1", "cloudpickle"), ("2", "skops")])
def test_an_import_becomes_a_version_that_predicts(
    mlflow_sqlite: Mlflow, tmp_path: Path, version: str, form: str
) -> None:
    """Through the whole registry, and then loaded from the checked-out folder by MLflow itself."""
    blobs = BlobStore(str(tmp_path / "blobs"))

    def bring(into: str) -> tuple[str, Any]:
        request = ImportRequest(uri=f"models:/churn/{version}")
        found = fetch(request, ImportPolicy((mlflow_sqlite.tracking_uri,)), tmp_path / into)
        push = PushRequest(
            files=store_folder(found.path, blobs), metrics=found.metrics, lineage=found.lineage()
        )
        made = draft(push.files, PushHints.of(request, "3.11"), blobs)
        return push_digest(push, made), complete(made, hashlib.sha256(b"").hexdigest(), None, push)

    first, manifest = bring("one")
    if form == "cloudpickle":
        again, _ = bring("two")
        assert first == again
    assert manifest.flavor.options == {"loader": "mlflow.sklearn", "serialization": form}
    assert manifest.python == "3.11"
    assert set(manifest.requirements) >= {"mlflow-skinny==3.17.2", "pandas", "numpy", "scikit-learn==1.9.1"}
    assert manifest.signature is not None
    assert len(manifest.signature.inputs) == 30
    assert (manifest.signature.outputs[0].name, manifest.signature.outputs[0].datatype) == (
        "predict",
        "INT64",
    )
    folder, _ = Checkout(tmp_path / "checkouts", blobs).ensure(manifest)
    assert content_of(folder) == artifacts_of(mlflow_sqlite, form)
    if form == "cloudpickle":
        from sklearn.datasets import load_breast_cancer

        model = pickle.loads((folder / "model.pkl").read_bytes())
        features, _ = load_breast_cancer(return_X_y=True, as_frame=True)
        assert model.predict(features[:20]).tolist() == mlflow_sqlite.predictions


@pytest.mark.parametrize(
    ("store", "uri"),
    [("sqlite", "models:/churn/99"), ("sqlite", "runs:/{skops}/nothing"), ("server", "models:/churn@nobody")],
)
def test_what_is_not_there_is_said(
    request: pytest.FixtureRequest, tmp_path: Path, store: str, uri: str
) -> None:
    mlflow: Mlflow = request.getfixturevalue(f"mlflow_{store}")
    with pytest.raises((NotFound, InvalidInput), match=r"not found|no MLflow model"):
        fetch(
            ImportRequest(uri=uri.format(**mlflow.runs)),
            ImportPolicy((mlflow.tracking_uri,)),
            tmp_path / "in",
        )
    assert not (tmp_path / "in").exists()


def test_a_store_in_files_works_too(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    mlflow = train(f"file://{folder}/mlruns", folder, "", forms="skops")
    found = fetch(
        ImportRequest(uri="models:/churn@champion"), ImportPolicy((mlflow.tracking_uri,)), tmp_path / "in"
    )
    assert content_of(found.path) == artifacts_of(mlflow, "skops")


def test_a_database_that_is_not_mlflows_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "podium.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE resources (uid TEXT)")
    before = path.read_bytes()
    policy = ImportPolicy(allow_any=True)
    for uri, words in [
        (f"sqlite:///{path}", "no MLflow database"),
        (f"sqlite:///{tmp_path}/missing.db", "no such file"),
        (f"file://{tmp_path}/missing", "no such folder"),
        (f"sqlite:///{tmp_path}", "no such file"),
    ]:
        with pytest.raises(InvalidInput, match=words) as error:
            fetch(ImportRequest(uri="models:/a/1", tracking_uri=uri), policy, tmp_path / "in")
        assert error.value.issues[0].field == "trackingUri"
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["podium.db"]


def test_limits_hold(mlflow_sqlite: Mlflow, tmp_path: Path) -> None:
    request = ImportRequest(uri="models:/churn/1")
    with pytest.raises(TooLarge, match="more than the 3 files"):
        fetch(request, ImportPolicy((mlflow_sqlite.tracking_uri,), max_files=3), tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_links_in_a_local_store_are_not_followed(mlflow_sqlite: Mlflow, tmp_path: Path) -> None:
    """Somebody who may write into the store's artifacts must not get the server's files out."""
    copied = tmp_path / "store"
    shutil.copytree(mlflow_sqlite.folder, copied)
    with sqlite3.connect(copied / "mlflow.db") as database:
        database.execute(
            "UPDATE logged_models SET artifact_location = replace(artifact_location, ?, ?)",
            (str(mlflow_sqlite.folder), str(copied)),
        )
        database.execute(
            "UPDATE model_versions SET storage_location = replace(storage_location, ?, ?)",
            (str(mlflow_sqlite.folder), str(copied)),
        )
    (entry,) = copied.rglob("model.pkl")
    (entry.parent / "stolen").symlink_to("/etc/passwd")
    policy = ImportPolicy((f"sqlite:///{copied}/mlflow.db",))
    with pytest.raises(InvalidInput, match="not a link") as error:
        fetch(ImportRequest(uri="models:/churn/1"), policy, tmp_path / "in")
    assert error.value.issues[0].field == "files: stolen"


# --- a server that lies --------------------------------------------------------------------------------------------

MLMODEL = b"flavors: {python_function: {loader_module: mlflow.sklearn}}\nmlflow_version: 3.17.2\n"


class Liar(http.server.ThreadingHTTPServer):
    """Speaks as much of MLflow's REST API as an import asks for, and says what a test tells it to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.location = "mlflow-artifacts:/1/models/m-1/artifacts"
        self.files: list[dict[str, Any]] = [{"path": "MLmodel", "is_dir": False, "file_size": len(MLMODEL)}]
        self.redirect_to = ""
        self.go_on = threading.Event()
        self.go_on.set()
        self.asked: list[str] = []
        self.headers: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Liar

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.headers.append(str(self.headers))
        self.server.go_on.wait(60)
        if self.server.redirect_to:
            self.send_response(302)
            self.send_header("Location", self.server.redirect_to)
            self.end_headers()
            return
        if "get-download-uri" in self.path:
            self._json({"artifact_uri": self.server.location})
        elif "registered-models/get" in self.path:
            self._json({"registered_model": {"name": "churn"}})
        elif "model-versions/get" in self.path:
            self._json({"model_version": {"name": "churn", "version": "1", "source": self.server.location}})
        elif self.path.startswith("/api/2.0/mlflow-artifacts/artifacts?"):
            self._json({"files": self.server.files})
        elif "/mlflow-artifacts/artifacts/" in self.path:
            self._send(MLMODEL, "application/octet-stream")
        else:
            self.send_error(404)

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def liar() -> Iterator[Liar]:
    with running(Liar()) as server:
        yield server


@contextlib.contextmanager
def running(server: Liar) -> Iterator[Liar]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(liar: Liar, into: Path, **policy: Any) -> Any:
    return fetch(ImportRequest(uri="models:/churn/1"), ImportPolicy((liar.address,), **policy), into)


@pytest.mark.parametrize("location", ["file:///etc", "http://127.0.0.1:1/x", "models:/churn/1"])
def test_a_server_cannot_send_us_elsewhere(liar: Liar, tmp_path: Path, location: str) -> None:
    """More of them in tests/unit/registry/test_mlflow_policy.py."""
    liar.location = location
    with pytest.raises(InvalidInput, match=r"its artifacts lie in|folder of its own machine|too many steps"):
        ask(liar, tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", "%2e%2e/evil"])
def test_unsafe_artifact_names_are_refused_before_anything_is_written(
    liar: Liar, tmp_path: Path, path: str
) -> None:
    liar.files.append({"path": path, "is_dir": False, "file_size": 1})
    with pytest.raises((InvalidInput, Unavailable)):
        ask(liar, tmp_path / "in")
    assert list(tmp_path.iterdir()) == []
    assert liar.asked
    assert not [asked for asked in liar.asked if "/mlflow-artifacts/artifacts/" in asked]


def test_more_bytes_than_were_listed_are_refused(liar: Liar, tmp_path: Path) -> None:
    liar.files[0]["file_size"] = 1
    with pytest.raises((TooLarge, Unavailable)):
        ask(liar, tmp_path / "in", max_bytes=20)
    assert not (tmp_path / "in").exists()


def test_redirects_are_not_followed(liar: Liar, tmp_path: Path) -> None:
    with running(Liar()) as elsewhere:
        liar.redirect_to = f"{elsewhere.address}/x"
        with pytest.raises(PodiumError):
            ask(liar, tmp_path / "in")
        assert elsewhere.asked == []
    assert liar.asked


def test_credentials_go_to_configured_servers_only(
    liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush-hush")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    found = ask(liar, tmp_path / "trusted")
    # When it does not lie, all is well: the tests above do not pass because it cannot speak.
    assert content_of(found.path) == {"MLmodel": MLMODEL}
    assert all("hush-hush" in headers for headers in liar.headers)
    liar.headers.clear()
    request = ImportRequest(uri="models:/churn/1", tracking_uri=liar.address)
    fetch(request, ImportPolicy(("http://mlflow.example",), allow_any=True), tmp_path / "untrusted")
    assert liar.headers
    assert not any("hush-hush" in headers for headers in liar.headers)


def test_a_server_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with running(Liar()) as server:
        address = server.address
    policy = ImportPolicy((address.replace("http://", "http://me:hush@"),))
    with pytest.raises(Unavailable) as error:
        fetch(ImportRequest(uri="models:/churn/1"), policy, tmp_path / "in")
    assert error.value.retryable
    assert "hush" not in str(error.value)


def test_no_process_stays(liar: Liar, tmp_path: Path) -> None:
    """The time limit ends the client, wherever it is: starting, or waiting for a server that does not answer."""
    liar.go_on.clear()
    try:
        with pytest.raises(Unavailable, match="did not finish within 6 s"):
            ask(liar, tmp_path / "in", timeout_seconds=6)
    finally:
        liar.go_on.set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            assert "podium.registry.mlflow_source" not in child.cmdline()
