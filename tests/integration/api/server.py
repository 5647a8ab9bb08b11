"""A real API server on loopback, with a real store and real blobs, and what stands behind the API in small.

The publisher makes versions as the app does, but with an empty lock and without loading the model; the logs are what
the test put there.
"""

import contextlib
import datetime
import hashlib
import socket
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from podium.api.bootstrap import bootstrap
from podium.api.create import create_app, end_watches
from podium.api.services import ApiSettings, Services
from podium.api.tokens import Role, TokenAuthority
from podium.registry.blobs import BlobStore
from podium.registry.intake import PushHints, draft
from podium.registry.push import complete, push_digest
from podium.resources.errors import InvalidInput, Issue, NotFound
from podium.resources.kinds import AnyResource, parse_applied
from podium.resources.model import ModelSpec, ModelStatus, ModelVersionSpec, ModelVersionStatus
from podium.resources.profile import Profile, ProfilePoint, ProfileProposal, ProfileRequest
from podium.resources.requests import ImportRequest, PushRequest, ReplicaLog
from podium.resources.shape import Metadata, Resource
from podium.store import Actor, Store, TokenRow
from tests.migrated import migrated

TESTER = Actor("tester", "user")


class Publisher:
    """Looks at the files and commits a version; what it cannot do it refuses."""

    def __init__(self, store: Store, blobs: BlobStore) -> None:
        self._store, self._blobs = store, blobs

    def push(
        self, workspace: str, model: str, request: PushRequest, actor: Actor
    ) -> Iterator[dict[str, Any]]:
        yield {"progress": "looking at the files"}
        found = draft(request.files, PushHints.of(request, "3.11"), self._blobs)
        lock = hashlib.sha256(b"").hexdigest()
        self._blobs.put([], lock)
        manifest, pushed = complete(found, lock, None, request), push_digest(request, found)
        with self._store.write(actor) as tx:
            fields = f"spec.model={model},spec.pushDigest={pushed}"
            known = tx.list("ModelVersion", workspace=workspace, fields=fields).items
            owner = tx.find("Model", workspace, model) or tx.create(
                Resource(
                    kind="Model",
                    metadata=Metadata(name=model, workspace=workspace),
                    spec=ModelSpec(),
                    status=ModelStatus(),
                )
            )
            if known:
                version = known[0]
            else:
                number = owner.status.latest_version + 1
                tx.set_status(owner.uid, owner.status.model_copy(update={"latest_version": number}))
                spec = ModelVersionSpec(
                    model=model, version=str(number), digest=manifest.digest(), push_digest=pushed, manifest=manifest,
                    note=request.note, pushed_by=actor.name,
                )  # fmt: skip
                version = tx.create(
                    Resource(
                        kind="ModelVersion",
                        metadata=Metadata(name=f"{model}.{number}", workspace=workspace),
                        spec=spec,
                        status=ModelVersionStatus(),
                    )
                )
            if request.alias is not None:
                tx.set_alias(workspace, model, request.alias, version.spec.version)
        yield {"version": version.document(), "created": not known}

    def import_(
        self, workspace: str, model: str, request: ImportRequest, actor: Actor
    ) -> Iterator[dict[str, Any]]:
        yield {"progress": f"fetching {request.uri}"}
        raise InvalidInput(Issue("uri", "there is no MLflow here"))


class Profiler:
    """Says that it measures, for as long as nobody tells it to end; keeps the smallest profile there is."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.finish, self.ended = threading.Event(), threading.Event()

    def profile(
        self, workspace: str, name: str, request: ProfileRequest, actor: Actor
    ) -> Generator[dict[str, Any], None, None]:
        with self._store.read() as tx:
            version = tx.get("ModelVersion", workspace, name)
        try:
            yield {"progress": f"measuring for {request.budget:g} s"}
            while not self.finish.wait(0.05):
                yield {"progress": "measuring"}
            with self._store.write(actor) as tx:
                status = version.status.model_copy(update={"profile": smallest_profile(request)})
                after = tx.set_status(version.uid, status)
            yield {"version": after.document()}
        finally:
            self.ended.set()


def smallest_profile(request: ProfileRequest) -> Profile:
    """One point of each series."""
    point = ProfilePoint(
        rows=1, connections=1, requests=100, failed=0, seconds=1, per_second=100, p50_ms=1, p99_ms=2, max_ms=3,
        memory=2**26,
    )  # fmt: skip
    proposal = ProfileProposal(replicas=1, cpus=1, memory=2**28, max_batch=1, sustained=70, p99_ms=2)
    return Profile(
        measured_at=datetime.datetime.now(datetime.UTC), seconds=request.budget, start_seconds=1, inputs="given",
        batches=[point], load=[point], checks=[point], memory_idle=2**25, memory_peak=2**26, proposal=proposal,
        podium="0", runtime_wheel="0" * 64, python="3.11", cores=1, cpus=1, machine="test", sandbox="none",
    )  # fmt: skip


class Logs:
    """Replicas by deployment, as the test set them."""

    def __init__(self) -> None:
        self.written: dict[tuple[str, str], dict[str, list[str]]] = {}

    def logs(self, workspace: str, deployment: str, replica: str | None, lines: int) -> list[ReplicaLog]:
        found = self.written.get((workspace, deployment), {})
        if replica is not None and replica not in found:
            raise NotFound(f"there is no replica {replica}")
        return [
            ReplicaLog(replica=name, lines=text[-lines:])
            for name, text in found.items()
            if replica in (None, name)
        ]


@dataclass
class ApiServer:
    """What a test needs of a running server."""

    url: str
    app: FastAPI
    store: Store
    tokens: TokenAuthority
    blobs: BlobStore
    logs: Logs
    profiler: Profiler
    home: Path
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    @property
    def admin_token(self) -> str:
        return (self.home / "admin.token").read_text().strip()

    def token(self, role: Role, *workspaces: str, lifetime: float = 3600, name: str = "someone") -> str:
        """A token on record."""
        now = datetime.datetime.now(datetime.UTC)
        token, claims = self.tokens.issue(name, role, workspaces, datetime.timedelta(seconds=lifetime), now)
        row = TokenRow(
            id=claims.id, name=name, role=role, workspaces=list(workspaces), created_at=now, created_by="test",
            expires_at=claims.expires_at,
        )  # fmt: skip
        with self.store.write(TESTER) as tx:
            tx.add_token(row)
        return token

    def http(self, token: str | None = None) -> httpx.Client:
        """A plain HTTP client with a token (the admin's); one per token, since a client is slow to make."""
        return self._client({"authorization": f"Bearer {token or self.admin_token}"})

    def bare(self) -> httpx.Client:
        """A plain HTTP client without a token."""
        return self._client({})

    def _client(self, headers: dict[str, str]) -> httpx.Client:
        key = headers.get("authorization", "")
        if key not in self.clients:
            self.clients[key] = httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30)
        return self.clients[key]

    def create(self, document: dict[str, Any]) -> AnyResource:
        """An object, past the API."""
        with self.store.write(TESTER) as tx:
            return tx.create(parse_applied(document))


@contextlib.contextmanager
def serving(
    home: Path, *, database: str | None = None, settings: ApiSettings | None = None
) -> Iterator[ApiServer]:
    """Runs a server in a thread until the block ends."""
    store = Store.open(database or migrated(home / "podium.db"))
    if database is not None:
        store.migrate()
    tokens = bootstrap(
        store,
        key_file=home / "key.pem",
        admin_token_file=home / "admin.token",
        gateway_token_file=home / "gateway.token",
    )
    blobs = BlobStore(str(home / "blobs"))
    logs, profiler = Logs(), Profiler(store)
    services = Services(
        store=store, tokens=tokens, blobs=blobs, publisher=Publisher(store, blobs), profiler=profiler, logs=logs,
        settings=settings or ApiSettings(), version="0.0-test", runtime_wheel="0" * 64,
    )  # fmt: skip
    app = create_app(services)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=3, lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    made = ApiServer(url, app, store, tokens, blobs, logs, profiler, home)
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        yield made
    finally:
        for client in made.clients.values():
            client.close()
        end_watches(app)
        server.should_exit = True
        thread.join(15)
        listener.close()
        store.close()
    assert not thread.is_alive(), "the server did not stop"


def deployment(name: str, *, workspace: str = "default", **spec: Any) -> dict[str, Any]:
    """A document to apply."""
    return {
        "apiVersion": "podium/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "workspace": workspace},
        "spec": {"model": {"name": "churn", "version": "1"}, "replicas": 0, **spec},
    }


def model(name: str = "churn", *, workspace: str = "default") -> dict[str, Any]:
    """A document to apply."""
    return {
        "apiVersion": "podium/v1",
        "kind": "Model",
        "metadata": {"name": name, "workspace": workspace},
        "spec": {},
    }


def workspace(name: str) -> dict[str, Any]:
    """A document to apply."""
    return {"apiVersion": "podium/v1", "kind": "Workspace", "metadata": {"name": name}, "spec": {}}
