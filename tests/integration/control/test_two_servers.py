"""Two control loops on one PostgreSQL: every step is taken once, whoever takes it."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from podium.control import deployments, loop, revisions, rollouts
from podium.resources.kinds import parse_applied
from podium.resources.rollout import FINAL_PHASES
from podium.store import GatewayRow, Store
from tests.integration.control.conftest import USER, Plant, Preparation, Replicas
from tests.postgres import postgres_url

__all__ = ["postgres_url"]
DEPLOYMENTS = 25
STEPS = [{"weight": 20, "duration": "100ms"}, {"weight": 60, "duration": "100ms"}]


@pytest.fixture
def stores(postgres_url: str) -> Iterator[list[Store]]:
    opened = [Store.open(postgres_url), Store.open(postgres_url)]
    opened[0].migrate()
    yield opened
    for store in opened:
        store.close()


def server(store: Store, name: str, target: Replicas) -> loop.ControlLoop:
    reconcilers: list[loop.Reconciler] = [
        deployments.DeploymentReconciler(store, runtime_wheel="wheel-1"),
        revisions.RevisionReconciler(store, targets={"process": target}, preparation=Preparation()),
        rollouts.RolloutReconciler(store),
    ]
    return loop.ControlLoop(store, reconcilers, worker=name, threads=3)


def wish(store: Store, number: int, version: int) -> None:
    document = {
        "apiVersion": "podium/v1",
        "kind": "Deployment",
        "metadata": {"name": f"d{number}"},
        "spec": {
            "model": {"name": "churn", "version": str(version)},
            "rollout": {"strategy": {"type": "canary", "steps": STEPS}, "analysis": {"enabled": False}},
        },
    }
    found = parse_applied(document)
    with store.write(USER) as tx:
        current = tx.find("Deployment", "default", f"d{number}")
        if current is None:
            tx.create(found)
        else:
            tx.replace(current.uid, spec=found.spec, expected_version=None)


def until(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the deployments did not settle"
        time.sleep(0.05)


@pytest.mark.integration
@pytest.mark.timeout(180)
def test_no_step_is_taken_twice(stores: list[Store]) -> None:
    store, target = stores[0], Replicas()
    plant = Plant(store)
    plant.push(1)
    plant.push(2)
    stop = threading.Event()

    def report() -> None:
        while not stop.wait(0.05):
            store.report_gateway(GatewayRow("gw", loop.now(), store.current_version(), [], {}))

    reporter = threading.Thread(target=report)
    reporter.start()
    servers = [server(stores[0], "one", target), server(stores[1], "two", target)]
    for each in servers:
        each.start()
    try:
        for version in (1, 2):
            for number in range(DEPLOYMENTS):
                wish(stores[number % 2], number, version)
            until(lambda version=version: _settled(store, version), 120)
    finally:
        for each in servers:
            each.stop()
        stop.set()
        reporter.join()
    assert all(each.passes > 0 for each in servers), "one server did nothing"
    _check(store)


def _settled(store: Store, version: int) -> bool:
    with store.read() as tx:
        items = tx.list("Deployment").items
    return all(
        item.status.stable_revision == f"{item.metadata.name}-{version:05d}" and not item.status.rollout
        for item in items
    )


def _check(store: Store) -> None:
    with store.read() as tx:
        changes = tx.changes(0, kinds=["Rollout"], limit=100_000)
        ended = tx.list("Rollout").items
        made = Counter(
            row.name for row in tx.audit(limit=100_000) if row.verb == "create" and row.kind == "Revision"
        )
    assert len(ended) == 2 * DEPLOYMENTS
    assert all(rollout.status.phase in FINAL_PHASES for rollout in ended)
    assert all(count == 1 for count in made.values())
    weights: dict[str, list[int]] = {}
    for change in changes:
        if change.type == "DELETED":
            continue
        seen = weights.setdefault(change.name, [])
        weight = change.object["status"]["weight"]
        if not seen or seen[-1] != weight:
            seen.append(weight)
    for name, seen in weights.items():
        assert seen == ([0, 100] if name.endswith("-1") else [0, 20, 60, 100]), (name, seen)
    for rollout in ended:
        starts = [item.decision for item in rollout.status.decisions]
        assert starts.count("promote") == 1, (rollout.metadata.name, starts)
