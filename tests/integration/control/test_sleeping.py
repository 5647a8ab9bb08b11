"""What the Revision reconciler does for one that is to sleep: prepare, start, tell its owner. Wishes are set here."""

from typing import Any

import pytest

from podium.control import loop
from podium.resources.revision import RevisionStatus
from tests.integration.control.conftest import USER, Plant

pytestmark = pytest.mark.integration
NAME = "churn-00001"


@pytest.fixture
def served(plant: Plant) -> Plant:
    """One replica is ready; from here on nobody but the test says how many are wanted."""
    plant.push(1)
    plant.apply(model={"name": "churn", "version": 1})
    plant.settle()
    for kind in ("Deployment", "Rollout"):
        plant.reconcilers.pop(kind)
    return plant


def wish(plant: Plant, **fields: Any) -> None:
    found = plant.get("Revision", NAME)
    with plant.store.write(USER) as tx:
        tx.set_status(found.uid, found.status.model_copy(update=fields))
        tx.wake(found.uid)
    plant.settle()


def status(plant: Plant) -> RevisionStatus:
    found = plant.get("Revision", NAME).status
    assert isinstance(found, RevisionStatus)
    return found


def phases(plant: Plant) -> dict[str, str]:
    return {state.name.rpartition("-")[2]: state.phase for state in status(plant).replicas}


def due_owners(plant: Plant) -> set[str]:
    """Deployments that somebody has woken since the last call."""
    leases = plant.store.claim("w", kinds=["Deployment"], limit=10, lease_seconds=30, now=loop.now())
    for lease in leases:
        plant.store.release(lease, None)
    return {lease.uid for lease in leases}


def test_nobody_leaves_before_the_environment_is_there_and_one_listens(served: Plant) -> None:
    served.preparation.answer.python, served.preparation.answer.progress = None, "resolving"
    wish(served, wanted_replicas=0, sleeping=True)
    assert (phases(served), status(served).message) == ({"1": "Ready"}, "resolving")
    served.preparation.answer.python = served.preparation.answer.model_path
    wish(served)
    assert phases(served) == {"2": "Dormant"}
    assert status(served).environment == "sha256:env"


def test_a_gateway_that_is_behind_keeps_the_running_ones(served: Plant) -> None:
    served.gateway_alive = False
    wish(served, wanted_replicas=0, sleeping=True)
    assert phases(served) == {"1": "Ready", "2": "Dormant"}
    served.gateway_alive = True
    wish(served)
    assert phases(served) == {"2": "Dormant"}


def test_a_wake_is_told_to_the_owner_and_its_wish_is_kept(served: Plant) -> None:
    wish(served, wanted_replicas=0, sleeping=True, warm_replicas=0)
    owner = served.get("Deployment", "churn").uid
    due_owners(served)
    assert owner not in due_owners(served)
    served.target.wake(f"{NAME}-2")
    wish(served)
    found = status(served)
    assert (found.woken, found.ready_replicas, found.sleeping, phases(served)) == (
        True,
        1,
        True,
        {"2": "Ready"},
    )
    assert owner in due_owners(served)
    wish(served, wanted_replicas=1, sleeping=False, warm_replicas=1)
    found = status(served)
    assert (found.woken, found.warm_replicas, phases(served)) == (False, 1, {"2": "Ready", "3": "Warm"})


def test_files_that_were_found_damaged_by_a_wake_are_made_anew(served: Plant) -> None:
    wish(served, wanted_replicas=0, sleeping=True)
    served.target.wake(f"{NAME}-2")
    served.target.die(f"{NAME}-2", code=3)
    wish(served)
    assert served.preparation.distrusted == [served.get("Revision", NAME).spec.manifest_digest]
    assert status(served).woken
