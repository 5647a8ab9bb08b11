"""A champion and its shadow for real: two confined replicas behind one Envoy, a store that knows them, and whoever
compares them."""

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import podium_runtime
from podium.control.comparisons import Comparing, comparison_of
from podium.gateway.render.clusters import cluster
from podium.gateway.render.rules import published_routes
from podium.planning.routes import plan_published
from podium.planning.routing import plan_route
from podium.processes import send_signal
from podium.processes.supervision import observe
from podium.resources.comparison import Comparison
from podium.resources.deployment import (
    DeploymentSpec,
    DeploymentStatus,
    ModelReference,
    ResourceLimits,
    RuntimeSettings,
    SandboxSettings,
)
from podium.resources.kinds import AnyResource, Revision, Route
from podium.resources.revision import ReplicaState, RevisionSpec, RevisionStatus
from podium.resources.route import RouteSpec, RouteStatus
from podium.resources.shape import Metadata, OwnerReference, Resource
from podium.store import Actor, Store
from podium.targets.port import ReplicaWish
from podium.targets.process import ProcessTarget
from runtime.tests.replica import python_version
from tests.integration.gateway.conftest import until
from tests.integration.gateway.one_envoy import OneEnvoy, one_envoy
from tests.migrated import migrated

RUNTIME = Path(podium_runtime.__file__).parent.parent
ACTOR = Actor("tester", "user")


class Site:
    """`champion` answers Route `public` and `shadow` gets a copy of each request. `sources`: their models in Python."""

    def __init__(self, place: Path, python: Path, sources: dict[str, str], envoy: OneEnvoy) -> None:
        self.place, self.envoy = place, envoy
        self.database = migrated(place / "podium.db")
        self.store = Store.open(self.database)
        self._short = Path(tempfile.mkdtemp(dir="/tmp", prefix="psh"))
        self.target = ProcessTarget(place / "replicas", self._short / "sockets")
        self.revisions = {name: self._start(name, source, python) for name, source in sources.items()}
        self.route = self._published()

    def comparing(self) -> Comparing:
        """Another server that has just started; `look` is called by the test."""
        return Comparing(self.store, {"process": self.target})

    def comparison(self) -> Comparison:
        found = comparison_of(self.store, "champion-00001", self.revisions["shadow"].uid)
        assert found is not None
        return found

    def ids(self, name: str) -> list[str]:
        """Every request that this replica wrote down, read as the server does."""
        found = []
        for one in self.target.records(self.revisions[name].uid, {}):
            found += [json.loads(line)["id"] for line in one.lines]
        return found

    def _start(self, name: str, source: str, python: Path) -> Revision:
        version = python_version(self.place / name, source)
        config = json.loads(version.write().read_text())
        with self.store.write(ACTOR) as tx:
            deployment = tx.create(self._deployment(name))
            spec = RevisionSpec(
                deployment=name, deployment_uid=deployment.uid, number=1, model=name, version="1",
                manifest_digest=config["manifestDigest"], runtime_wheel="b" * 64, target="process",
                resources=ResourceLimits(memory=2**30), runtime=RuntimeSettings(drain=2),
                sandbox=SandboxSettings(require="none"), idempotent=True, content_hash=name,
            )  # fmt: skip
            owner = OwnerReference(kind="Deployment", name=name, uid=deployment.uid)
            meta = Metadata(name=f"{name}-00001", owner=owner)
            made = tx.create(Resource(kind="Revision", metadata=meta, spec=spec, status=RevisionStatus()))
        replica = f"{name}-00001-1"
        wish = ReplicaWish(
            name=replica, workspace="default", revision=made.metadata.name, revision_uid=made.uid, deployment=name,
            spec=spec, python=python, model_path=Path(config["modelPath"]),
            manifest_path=Path(config["manifestPath"]), extra_read_paths=(RUNTIME,),
        )  # fmt: skip
        self.target.start(wish)
        until(lambda: self.target.observe(made.uid)[0].phase in ("Ready", "Exited"), 60)
        seen = self.target.observe(made.uid)[0]
        assert seen.phase == "Ready", seen.log_tail
        with self.store.write(ACTOR) as tx:
            state = ReplicaState(name=replica, phase="Ready", address=seen.address)
            tx.set_status(made.uid, RevisionStatus(phase="Ready", ready_replicas=1, replicas=[state]))
            tx.set_status(deployment.uid, DeploymentStatus(phase="Ready", stable_revision=made.metadata.name))
            return tx.by_uid(made.uid)

    def _deployment(self, name: str) -> AnyResource:
        spec = DeploymentSpec(model=ModelReference(name=name, version="1"))
        return Resource(kind="Deployment", metadata=Metadata(name=name), spec=spec, status=DeploymentStatus())

    def _published(self) -> Route:
        wish = {"rules": [{"to": "champion", "shadow": [{"deployment": "shadow"}]}]}
        spec = RouteSpec.model_validate(wish)
        with self.store.write(ACTOR) as tx:
            meta = Metadata(name="public")
            made: Route = tx.create(Resource(kind="Route", metadata=meta, spec=spec, status=RouteStatus()))
        entries = {}
        with self.store.read() as tx:
            for name in self.revisions:
                revision = tx.find("Revision", "default", f"{name}-00001")
                deployment = tx.find("Deployment", "default", name)
                entries[name] = plan_route(deployment, {revision.metadata.name: revision}, None)
        plan = plan_published(made, entries)
        arms = (*entries["champion"].live, *plan.own_arms)
        self.envoy.start(
            [json.loads(one) for one in published_routes(plan).published], [cluster(arm) for arm in arms]
        )
        return made

    def close(self) -> None:
        self.target.close()
        self.store.close()
        for folder in (self.place / "replicas").glob("*/*"):
            with suppress(Exception):
                seen = observe(folder)
                if seen is not None and seen.phase != "exited":
                    send_signal(seen.shim, signal.SIGKILL)
        shutil.rmtree(self._short, ignore_errors=True)


@contextmanager
def shadowed(place: Path, python: Path, sources: dict[str, Any]) -> Iterator[Site]:
    """The whole of it, and nothing left of it afterwards."""
    with one_envoy() as envoy:
        site: Site | None = None
        try:
            site = Site(place, python, sources, envoy)
            yield site
        finally:
            if site is not None:
                site.close()
