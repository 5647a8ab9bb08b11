"""Reconcilers on a real store, with replicas and gateways that exist only as what they report."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from podium.control import deployments, loop, revisions, rollouts
from podium.resources.kinds import AnyResource, parse_applied
from podium.resources.manifest import FileEntry, Flavor, LockReference, Manifest
from podium.resources.model import ModelSpec, ModelStatus, ModelVersionSpec, ModelVersionStatus
from podium.resources.shape import Metadata, Resource
from podium.store import Actor, GatewayRow, SampleRow, Store
from podium.targets.port import ReplicaObservation, ReplicaWish
from tests.migrated import migrated

USER = Actor("tester", "user")


@dataclass
class Replicas:
    """A target whose replicas are rows in memory; tests say when they are ready or dead."""

    rows: dict[str, ReplicaObservation] = field(default_factory=dict)
    auto_ready: bool = True
    processors: int = 4
    used: dict[str, float] = field(default_factory=dict)
    """Processor time by replica; one that is not in it cannot be read."""

    def start(self, wish: ReplicaWish) -> ReplicaObservation:
        row = ReplicaObservation(
            name=wish.name,
            revision_uid=wish.revision_uid,
            phase="Dormant" if wish.dormant else "Ready" if self.auto_ready else "Starting",
            address=f"unix:/r/{wish.name}",
            pid=1000 + len(self.rows),
            started_at=loop.now(),
            exit_code=None,
            log_tail=[],
            sandbox="full",
        )
        return self.rows.setdefault(wish.name, row)

    def observe(self, revision_uid: str) -> list[ReplicaObservation]:
        return [row for row in self.rows.values() if row.revision_uid == revision_uid]

    def observe_all(self) -> list[ReplicaObservation]:
        return list(self.rows.values())

    def stop(self, name: str, grace: float, *, revision_uid: str | None = None) -> None:
        self.rows[name] = replace(self.rows[name], phase="Exited", exit_code=0)

    def forget(self, name: str, *, revision_uid: str | None = None) -> None:
        self.rows.pop(name, None)

    def logs(self, name: str, lines: int, *, revision_uid: str | None = None) -> list[str]:
        return []

    def processor_times(self, revision_uid: str) -> dict[str, float]:
        return {one.name: self.used[one.name] for one in self.observe(revision_uid) if one.name in self.used}

    def wake(self, name: str) -> None:
        """As the first request does."""
        phase: Any = "Ready" if self.auto_ready else "Starting"
        self.rows[name] = replace(self.rows[name], phase=phase, woken=True)

    def die(self, name: str, code: int = -9) -> None:
        self.rows[name] = replace(self.rows[name], phase="Exited", exit_code=code, log_tail=["last words"])


@dataclass
class Ready:
    """What `Preparation.prepare` answers."""

    model_path: Path = Path("/m")
    manifest_path: Path = Path("/m.json")
    python: Path | None = Path("/py")
    environment: str = "sha256:env"
    progress: str = ""
    error: str = ""


class Preparation:
    def __init__(self) -> None:
        self.answer = Ready()
        self.distrusted: list[str] = []

    def prepare(self, revision: Any, manifest: Manifest) -> Ready:
        return self.answer

    def distrust(self, manifest: Manifest) -> None:
        self.distrusted.append(manifest.digest())


class Plant:
    """The control plane under test, driven pass by pass."""

    def __init__(self, store: Store) -> None:
        self.store, self.target, self.preparation = store, Replicas(), Preparation()
        self.reconcilers: dict[str, loop.Reconciler] = {
            reconciler.kind: reconciler
            for reconciler in (
                deployments.DeploymentReconciler(
                    store, runtime_wheel="wheel-1", clocks={"process": self.target}
                ),
                revisions.RevisionReconciler(
                    store, targets={"process": self.target}, preparation=self.preparation
                ),
                rollouts.RolloutReconciler(store),
            )
        }
        self.gateway_alive = True
        self.rejected: list[dict[str, Any]] = []
        self._counters: dict[str, dict[str, dict[str, int]]] = {}

    def settle(self, passes: int = 60) -> None:
        """Run every due row until nothing is due; timers up to 2 s are taken as passed. The gateway loads all."""
        for _ in range(passes):
            if self.gateway_alive:
                self.report()
            ahead = loop.now() + datetime.timedelta(seconds=0.6)
            leases = self.store.claim(
                "w", kinds=list(self.reconcilers), limit=10, lease_seconds=30, now=ahead
            )
            if not leases:
                return
            for lease in leases:
                self.reconcilers[lease.kind].reconcile(lease)

    def report(self) -> None:
        row = GatewayRow("gw", loop.now(), self.store.current_version(), self.rejected, {})
        self.store.report_gateway(row)

    def traffic(
        self, rollout: str, stable: tuple[int, int], candidate: tuple[int, int], *, seconds: float = 1
    ) -> None:
        """(requests, failed) of each arm since the sample before."""
        found = self.get("Rollout", rollout)
        arms = self._counters.setdefault(found.uid, {"stable": {}, "candidate": {}, "clock": {"at": 0}})
        for name, (total, bad) in (("stable", stable), ("candidate", candidate)):
            arm = arms[name]
            for key, value in (
                ("upstream_rq_total", total),
                ("upstream_rq_completed", total),
                ("upstream_rq_5xx", bad),
            ):
                arm[key] = arm.get(key, 0) + value
        arms["clock"]["at"] += int(seconds * 1000)
        at = loop.now().timestamp() + arms["clock"]["at"] / 1000
        weight = found.status.weight * 100
        row = SampleRow(found.uid, at, "gw", "e1", weight, dict(arms["stable"]), dict(arms["candidate"]))
        self.store.append_samples(found.uid, [row])
        self.store.wake(found.uid)

    def get(self, kind: str, name: str) -> AnyResource:
        with self.store.read() as tx:
            return tx.get(kind, "default", name)

    def apply(self, **spec: Any) -> None:
        document = {
            "apiVersion": "podium/v1",
            "kind": "Deployment",
            "metadata": {"name": "churn"},
            "spec": spec,
        }
        wish = parse_applied(document)
        with self.store.write(USER) as tx:
            current = tx.find("Deployment", "default", "churn")
            if current is None:
                tx.create(wish)
            else:
                tx.replace(current.uid, spec=wish.spec, expected_version=None)

    def push(self, number: int, flavor: Any = "sklearn") -> None:
        digit = f"{number:x}" * 64
        manifest = Manifest(
            flavor=Flavor(name=flavor, entry="m.pkl"),
            files=[FileEntry(path="m.pkl", size=1, sha256=digit[:64])],
            python="3.11",
            lock=LockReference(sha256="a" * 64),
        )
        with self.store.write(USER) as tx:
            if tx.find("Model", "default", "churn") is None:
                tx.create(
                    Resource(
                        kind="Model", metadata=Metadata(name="churn"), spec=ModelSpec(), status=ModelStatus()
                    )
                )
            spec = ModelVersionSpec(
                model="churn",
                version=str(number),
                digest=manifest.digest(),
                push_digest=manifest.digest(),
                manifest=manifest,
            )
            metadata = Metadata(name=f"churn.{number}")
            tx.create(
                Resource(kind="ModelVersion", metadata=metadata, spec=spec, status=ModelVersionStatus())
            )


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    store = Store.open(migrated(tmp_path / "p.db"))
    yield Plant(store)
    store.close()
