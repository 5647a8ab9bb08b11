"""The SDK, blocking and asyncio, against a real server."""

import asyncio
import hashlib
import inspect
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from podium.client import AsyncClient, Client, Progress
from podium.resources.errors import (
    Conflict,
    Forbidden,
    IntegrityError,
    InvalidInput,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
)
from tests.integration.api.server import TESTER, ApiServer, deployment, model, workspace


class Waiting:
    """An AsyncClient with the face of a Client: every method runs to its end in a loop of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *arguments, **options: self._loop.run_until_complete(found(*arguments, **options))

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


@pytest.fixture(params=[Client, Waiting])
def client(request: pytest.FixtureRequest, churn: ApiServer) -> Any:
    made = request.param(churn.url, churn.admin_token)
    yield made
    made.close()


def test_both_clients_have_the_same_methods() -> None:
    def public(of: type) -> dict[str, Any]:
        methods = {name: found for name, found in vars(of).items() if not name.startswith("_")}
        return {name: inspect.signature(found).parameters for name, found in methods.items()}

    assert public(Client) == public(AsyncClient)
    for name, found in vars(AsyncClient).items():
        if not name.startswith("_"):
            assert inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found), name


def test_apply_reads_and_replaces_unless_a_version_is_named(client: Any, churn: ApiServer) -> None:
    assert client.apply(deployment("a")).action == "created"
    assert client.apply(deployment("a")).action == "unchanged"
    result = client.apply(deployment("a", replicas=2))
    assert result.action == "updated"
    assert [(change.path, change.before, change.after) for change in result.changes] == [
        ("spec.replicas", 0, 2)
    ]
    old = deployment("a", replicas=3)
    old["metadata"]["resourceVersion"] = 1
    with pytest.raises(Conflict) as caught:
        client.apply(old)
    present = client.get("Deployment", "a").metadata.resource_version
    assert caught.value.details["resourceVersion"] == present
    old["metadata"]["resourceVersion"] = present
    assert client.apply(old).object["spec"]["replicas"] == 3


def test_many_appliers_without_a_version_all_get_through(churn: ApiServer) -> None:
    churn.create(deployment("busy"))
    done: list[str] = []

    def run(number: int) -> None:
        with Client(churn.url, churn.admin_token) as podium:
            done.append(podium.apply(deployment("busy", replicas=number + 1)).action)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == ["updated"] * 8
    with churn.store.read() as tx:
        assert tx.get("Deployment", "default", "busy").metadata.generation == 9


def test_dry_run_changes_nothing(client: Any, churn: ApiServer) -> None:
    before = churn.store.current_version()
    result = client.apply(deployment("dry", replicas=1), dry_run=True)
    assert (result.action, result.dry_run) == ("created", True)
    assert any("first" in sentence for sentence in result.plan), result.plan
    assert churn.store.current_version() == before
    with pytest.raises(NotFound):
        client.get("Deployment", "dry")


def test_lists_pages_selectors_and_workspaces(client: Any, churn: ApiServer) -> None:
    client.apply(workspace("team"))
    churn.create(model(workspace="team"))
    for number in range(3):
        document = deployment(f"d{number}")
        document["metadata"]["labels"] = {"tier": "gold" if number else "silver"}
        client.apply(document)
    assert [item.metadata.name for item in client.list("Deployment")] == ["d0", "d1", "d2"]
    assert [item.metadata.name for item in client.list("d", labels="tier=gold")] == ["d1", "d2"]
    assert len(client.list("Model", all_workspaces=True)) == 2
    assert {item.metadata.name for item in client.list("Workspace")} == {"default", "team"}
    with pytest.raises(InvalidInput) as caught:
        client.list("Deployment", labels="tier=(")
    assert caught.value.issues[0].field == "labelSelector"
    with pytest.raises(InvalidInput, match="known: Workspace"):
        client.list("Widget")


def test_delete_says_what_stands_in_the_way(client: Any, churn: ApiServer) -> None:
    client.apply(deployment("d"))
    with pytest.raises(Refused, match="alias champion, Deployment d"):
        client.delete("ModelVersion", "churn.1")
    with pytest.raises(Refused, match="version"):
        client.delete("Model", "churn")
    assert client.delete("ModelVersion", "churn.2").removed
    with pytest.raises(Conflict):
        client.delete("Deployment", "d", resource_version=1)
    assert not client.delete("Deployment", "d").removed
    assert client.get("Deployment", "d").metadata.deletion_requested_at is not None
    with pytest.raises(Refused, match="being deleted"):
        client.apply(deployment("d", replicas=5))
    with pytest.raises(Refused, match="no other is named"):
        client.delete("Workspace", "default")


def test_push_sends_what_is_missing_and_pull_gives_it_back(
    client: Any, churn: ApiServer, tmp_path: Path
) -> None:
    folder = tmp_path / "my model"
    (folder / "sub").mkdir(parents=True)
    (folder / "podium.yaml").write_text("class: model:Model\n")
    (folder / "model.py").write_bytes(b"import math\n" * 200_000)
    (folder / "sub" / "data.bin").write_bytes(bytes(range(256)) * 10)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "junk.pyc").write_bytes(b"junk")
    data = tmp_path / "train.csv"
    data.write_text("a,b\n1,2\n")
    told: list[Progress] = []
    pushed = client.push(
        "fraud",
        folder,
        alias="champion",
        metrics={"auc": 0.9},
        datasets=[data],
        note="first",
        progress=told.append,
    )
    assert pushed.created
    assert pushed.version.metadata.name == "fraud.1"
    assert [entry.path for entry in pushed.version.spec.manifest.files] == [
        "model.py",
        "podium.yaml",
        "sub/data.bin",
    ]
    assert pushed.version.spec.manifest.datasets[0].sha256 == hashlib.sha256(data.read_bytes()).hexdigest()
    assert {item.stage for item in told} == {"hashing", "uploading", "server"}
    assert told[-1].stage == "server"
    again = client.push(
        "fraud", folder, alias="champion", metrics={"auc": 0.9}, datasets=[data], note="again"
    )
    assert not again.created
    assert again.version.metadata.uid == pushed.version.metadata.uid

    into = tmp_path / "out" / "pulled"
    client.pull("fraud", "@champion", into)
    found = {
        path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()
    }
    assert found == {
        name: (folder / name).read_bytes() for name in ("model.py", "podium.yaml", "sub/data.bin")
    }
    with pytest.raises(Refused, match="not an empty folder"):
        client.pull("fraud", "1", into)
    assert client.verify("fraud", "1")["intact"] is True


def test_a_flipped_bit_is_found(client: Any, churn: ApiServer, tmp_path: Path) -> None:
    entry = client.get("ModelVersion", "churn.1").spec.manifest.files[0]
    stored = next(churn.home.joinpath("blobs").rglob(entry.sha256))
    stored.chmod(0o600)
    stored.write_bytes(bytes([stored.read_bytes()[0] ^ 1]) + stored.read_bytes()[1:])
    found = client.verify("churn", "1")
    assert found["intact"] is False
    assert [item["path"] for item in found["findings"]] == [entry.path]
    assert client.get("ModelVersion", "churn.1").status.intact is False
    with pytest.raises((IntegrityError, Unavailable)):
        client.pull("churn", "1", tmp_path / "x")
    assert list(tmp_path.glob("*x*")) == []


def test_links_and_odd_names_are_not_pushed(client: Any, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "podium.yaml").write_text("class: model:Model\n")
    (folder / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="not a link"):
        client.push("fraud", folder)
    with pytest.raises(InvalidInput, match="does not exist"):
        client.push("fraud", tmp_path / "nothing")


def test_aliases_tokens_records_and_logs(client: Any, churn: ApiServer) -> None:
    client.apply(deployment("follower", model={"name": "churn", "alias": "champion"}))
    assert client.set_alias("churn", "champion", "2").status.aliases == {"champion": "2"}
    history = client.alias_history("churn")
    assert [(move["version"], move["previous"]) for move in history["history"]] == [("2", "1"), ("1", None)]
    with pytest.raises(NotFound):
        client.set_alias("churn", "champion", "77")
    client.set_alias("churn", "champion", None)
    issued = client.create_token("ci", "view", workspaces=["default"], lifetime="1h")
    with Client(churn.url, issued.token) as reader:
        assert reader.list("Deployment")
        with pytest.raises(Forbidden):
            reader.apply(deployment("no"))
        client.revoke_token(issued.info.id)
        with pytest.raises(Unauthenticated, match="revoked"):
            reader.list("Deployment")
    assert {row["verb"] for row in client.audit(limit=500)} >= {"create", "alias", "revoke"}
    assert len(client.audit(limit=3)) == 3
    churn.logs.written[("default", "follower")] = {"follower-1": ["one", "two", "three"]}
    assert client.logs("follower", lines=2)[0].lines == ["two", "three"]
    with pytest.raises(NotFound):
        client.logs("follower", replica="other")


def test_a_blocking_watch_resumes_where_it_was(churn: ApiServer) -> None:
    with Client(churn.url, churn.admin_token) as podium:
        after = churn.store.current_version()
        for number in range(3):
            podium.apply(deployment(f"w{number}"))
        events = podium.watch(["Deployment"], after=after)
        names = [next(events).object["metadata"]["name"] for _ in range(2)]
        # The connection is cut under the client; what was not given yet comes by the next one.
        for pooled in podium._http._transport._pool.connections:  # type: ignore[attr-defined]
            pooled._connection._network_stream._sock.shutdown(2)
        names.append(next(events).object["metadata"]["name"])
        podium.apply(deployment("w3"))
        names.append(next(events).object["metadata"]["name"])
        events.close()
    assert names == ["w0", "w1", "w2", "w3"]


def test_an_async_watch(churn: ApiServer) -> None:
    async def run() -> list[str]:
        async with AsyncClient(churn.url, churn.admin_token) as podium:
            names = []
            await podium.apply(deployment("w0"))
            async for event in podium.watch(["Deployment"], after=0):
                names.append(event.object["metadata"]["name"])
                if len(names) == 3:
                    return names
                await podium.apply(deployment(f"w{len(names)}"))
        return []

    assert asyncio.run(asyncio.wait_for(run(), 30)) == ["w0", "w1", "w2"]


def test_wait_tells_how_it_came_out(client: Any, churn: ApiServer) -> None:
    result = client.apply(deployment("d"))
    generation = result.object["metadata"]["generation"]
    assert client.wait("d", generation=generation, timeout=0.3).outcome == "timedOut"
    uid = result.object["metadata"]["uid"]

    def set_status(**changes: Any) -> None:
        with churn.store.write(TESTER) as tx:
            current = tx.by_uid(uid)
            assert current is not None
            tx.set_status(
                uid, type(current.status).model_validate({**current.status.model_dump(), **changes})
            )

    served = {
        "observed_generation": 1,
        "stable_revision": "d-00001",
        "latest_revision": "d-00001",
        "phase": "Ready",
    }
    set_status(**served)
    assert client.wait("d", generation=generation, timeout=30).outcome == "promoted"
    rejected = {"revision": "d-00002", "generation": 1, "rollout": "d-2", "reason": "too many errors"}
    set_status(rejected=rejected)
    outcome = client.wait("d", generation=generation, timeout=30)
    assert (outcome.outcome, outcome.message) == ("rolledBack", "too many errors")
    set_status(rejected=None, phase="Failed", message="no such alias", stable_revision=None)
    assert client.wait("d", timeout=30).outcome == "failed"


def test_no_server_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PODIUM_URL", "PODIUM_TOKEN", "PODIUM_GATEWAY_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PODIUM_HOME", str(tmp_path))
    with pytest.raises(Refused, match="no server is known"):
        Client()
    with Client("http://127.0.0.1:9", "x") as podium, pytest.raises(Unavailable, match="does not answer"):
        podium.list("Deployment")


def test_the_home_folder_gives_address_and_token(churn: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PODIUM_URL", "PODIUM_TOKEN", "PODIUM_GATEWAY_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PODIUM_HOME", str(churn.home))
    (churn.home / "connection.json").write_text(
        json.dumps({"url": churn.url, "gateway": "http://127.0.0.1:1"})
    )
    with Client() as podium:
        assert podium.ready()["status"] == "ok"
        assert podium.list("Model")
        assert podium.connection.gateway == "http://127.0.0.1:1"
        assert podium.connection.token not in repr(podium.connection)
    # Another server than the folder's does not get the folder's token.
    assert Client("http://127.0.0.1:9").connection.token is None
    (churn.home / "admin.token").chmod(0o644)
    with pytest.raises(Refused, match="read by others"):
        Client()
