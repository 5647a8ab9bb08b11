"""Whole passages of traffic through the three reconcilers, on a real store."""

from dataclasses import replace
from typing import Any

import pytest

from podium.control import deployments
from podium.planning.looks import replay
from podium.planning.routing import RouteEntry, plan_route
from podium.store import SampleRow
from tests.integration.control.conftest import USER

CANARY: dict[str, Any] = {
    "strategy": {"type": "canary", "steps": [{"weight": 50, "requests": 200}], "keepOld": "30s"}
}


def route(plant: Any) -> RouteEntry:
    deployment = plant.get("Deployment", "churn")
    with plant.store.read() as tx:
        revisions = {item.metadata.name: item for item in tx.list("Revision").items}
        name = deployment.status.rollout
        rollout = tx.find("Rollout", "default", name) if name else None
    return plan_route(deployment, revisions, rollout)


def live(plant: Any) -> list[tuple[str, int]]:
    return [(arm.revision, arm.weight) for arm in route(plant).live]


def first(plant: Any, rollout: dict[str, Any] = CANARY, **more: Any) -> None:
    """Version 1 is served; version 2 is pushed."""
    plant.push(1)
    plant.push(2)
    plant.apply(model={"name": "churn", "version": "1"}, rollout=rollout, **more)
    plant.settle()
    assert plant.get("Deployment", "churn").status.phase == "Ready"


def second(plant: Any, rollout: dict[str, Any] = CANARY, **more: Any) -> None:
    plant.apply(model={"name": "churn", "version": "2"}, rollout=rollout, **more)
    plant.settle()


def test_the_first_revision_takes_all_traffic_when_it_is_ready(plant: Any) -> None:
    first(plant)
    assert live(plant) == [("churn-00001", 10_000)]
    assert plant.get("Rollout", "churn-1").status.phase == "Promoted"


def test_no_traffic_holds_and_never_promotes(plant: Any) -> None:
    first(plant)
    second(plant)
    rollout = plant.get("Rollout", "churn-2")
    assert (rollout.status.phase, rollout.status.weight, rollout.status.loaded) == ("Progressing", 50, True)
    assert live(plant) == [("churn-00001", 5000), ("churn-00002", 5000)]


def test_a_candidate_that_fails_is_taken_back_with_evidence_that_replays(plant: Any) -> None:
    first(plant)
    second(plant)
    for _ in range(4):
        plant.traffic("churn-2", (100, 0), (100, 20))
    plant.settle()
    rollout, deployment = plant.get("Rollout", "churn-2"), plant.get("Deployment", "churn")
    assert rollout.status.phase == "RolledBack"
    assert live(plant) == [("churn-00001", 10_000)]
    verdict = next(item for item in rollout.status.decisions if item.decision == "rollback")
    again = replay(verdict.evidence)
    assert (again.decision, again.reason) == ("rollback", verdict.reason)
    assert "error rate" in verdict.reason
    assert deployment.status.rejected.revision == "churn-00002"
    assert deployment.status.phase == "Ready"


def test_a_revision_that_was_taken_back_is_not_tried_again_by_itself(plant: Any) -> None:
    test_a_candidate_that_fails_is_taken_back_with_evidence_that_replays(plant)
    plant.store.wake(plant.get("Deployment", "churn").uid)
    plant.settle()
    assert plant.get("Deployment", "churn").status.rollout_count == 2
    # The same version again under another wish is a new attempt.
    second(plant, runtime={"maxBatch": 8})
    assert plant.get("Deployment", "churn").status.rollout_count == 3


def test_a_good_candidate_is_promoted(plant: Any) -> None:
    first(plant)
    second(plant)
    for _ in range(20):
        plant.traffic("churn-2", (500, 1), (500, 1))
    plant.settle()
    rollout = plant.get("Rollout", "churn-2")
    assert rollout.status.phase == "Promoted", rollout.status.message
    assert live(plant) == [("churn-00002", 10_000)]
    assert "churn-00001" in plant.get("Deployment", "churn").status.retiring
    assert plant.get("Revision", "churn-00001").status.ready_replicas == 1


def test_a_dead_candidate_does_not_wait_for_statistics(plant: Any) -> None:
    first(plant)
    second(plant)
    plant.target.auto_ready = False
    plant.target.die("churn-00002-1")
    plant.store.wake(plant.get("Revision", "churn-00002").uid)
    plant.settle()
    rollout = plant.get("Rollout", "churn-2")
    assert rollout.status.phase == "RolledBack"
    assert "liveness" in rollout.status.message
    assert live(plant) == [("churn-00001", 10_000)]


def test_a_step_waits_for_the_gateway_and_a_rollback_does_not_wait_for_a_silent_one(plant: Any) -> None:
    first(plant)
    plant.gateway_alive = False
    plant.store.forget_gateway("gw", USER)
    second(plant)
    rollout = plant.get("Rollout", "churn-2")
    assert not rollout.status.loaded
    assert "no gateway reports" in rollout.status.message
    act(plant, requested="abort")
    assert plant.get("Rollout", "churn-2").status.phase == "RolledBack"


def test_what_envoy_refuses_fails_the_step_with_its_words(plant: Any) -> None:
    first(plant)
    version = plant.store.current_version() + 1000
    plant.rejected = [
        {
            "workspace": "default",
            "deployment": "churn",
            "version": version,
            "error": "Proto constraint validation failed",
        }
    ]
    second(plant)
    rollout = plant.get("Rollout", "churn-2")
    assert rollout.status.phase == "RolledBack"
    assert "Proto constraint validation failed" in rollout.status.message
    assert live(plant) == [("churn-00001", 10_000)]


def act(plant: Any, name: str = "churn-2", **wish: Any) -> None:
    rollout = plant.get("Rollout", name)
    with plant.store.write(USER) as tx:
        tx.replace(rollout.uid, spec=rollout.spec.model_copy(update=wish), expected_version=None)
    plant.settle()


def test_pause_stays_but_still_takes_a_bad_candidate_back(plant: Any) -> None:
    first(plant)
    second(plant)
    act(plant, paused=True)
    for _ in range(20):
        plant.traffic("churn-2", (500, 1), (500, 1))
    plant.settle()
    assert plant.get("Rollout", "churn-2").status.phase == "Paused"
    for _ in range(4):
        plant.traffic("churn-2", (100, 0), (100, 90))
    plant.settle()
    assert plant.get("Rollout", "churn-2").status.phase == "RolledBack"


@pytest.mark.parametrize(
    ("wish", "phase", "winner"), [("promote", "Promoted", 2), ("abort", "RolledBack", 1)]
)
def test_a_person_may_end_it(plant: Any, wish: str, phase: str, winner: int) -> None:
    first(plant)
    second(plant)
    act(plant, requested=wish, requested_by="ann")
    rollout = plant.get("Rollout", "churn-2")
    assert rollout.status.phase == phase
    assert "ann" in rollout.status.decisions[-1].reason
    assert live(plant) == [(f"churn-0000{winner}", 10_000)]


def test_a_new_wish_supersedes_the_rollout_under_way(plant: Any) -> None:
    plant.push(3)
    first_versions(plant)
    plant.apply(model={"name": "churn", "version": "3"}, rollout=CANARY)
    plant.settle()
    assert plant.get("Rollout", "churn-2").status.phase == "Superseded"
    rollout = plant.get("Rollout", "churn-3")
    assert (rollout.spec.stable_revision, rollout.spec.candidate_revision) == ("churn-00001", "churn-00003")
    assert live(plant) == [("churn-00001", 5000), ("churn-00003", 5000)]


def first_versions(plant: Any) -> None:
    first(plant)
    second(plant)


def test_going_back_to_the_stable_version_supersedes_and_opens_nothing(plant: Any) -> None:
    first_versions(plant)
    plant.apply(model={"name": "churn", "version": "1"}, rollout=CANARY)
    plant.settle()
    assert plant.get("Rollout", "churn-2").status.phase == "Superseded"
    assert plant.get("Deployment", "churn").status.rollout is None
    assert live(plant) == [("churn-00001", 10_000)]


def test_blue_green_previews_then_flips_and_keeps_the_old_warm(plant: Any) -> None:
    strategy = {"strategy": {"type": "blueGreen", "autoPromote": False, "observe": "0s", "keepOld": "5m"}}
    first(plant, strategy)
    second(plant, strategy)
    entry = route(plant)
    assert live(plant) == [("churn-00001", 10_000)]
    assert entry.preview is not None
    assert entry.preview.revision == "churn-00002"
    act(plant, requested="promote", requested_by="ann")
    assert live(plant) == [("churn-00002", 10_000)]
    assert plant.get("Revision", "churn-00001").status.ready_replicas == 1


def test_recreate_moves_at_once(plant: Any) -> None:
    strategy = {"strategy": {"type": "recreate"}}
    first(plant, strategy)
    second(plant, strategy)
    assert live(plant) == [("churn-00002", 10_000)]


def test_scaling_down_stops_a_replica_only_after_every_gateway_has_loaded_the_routes(plant: Any) -> None:
    first(plant, replicas=2)
    plant.gateway_alive = False
    plant.apply(model={"name": "churn", "version": "1"}, rollout=CANARY, replicas=1)
    plant.settle()
    phases = sorted(state.phase for state in plant.get("Revision", "churn-00001").status.replicas)
    assert phases == ["Draining", "Ready"]
    assert len(route(plant).live[0].endpoints) == 1
    assert {row.phase for row in plant.target.rows.values()} == {"Ready"}
    plant.gateway_alive = True
    plant.settle()
    assert len(plant.target.rows) == 1


def test_deletion_drains_and_leaves_nothing(plant: Any) -> None:
    first_versions(plant)
    with plant.store.write(USER) as tx:
        tx.request_deletion(plant.get("Deployment", "churn").uid)
    assert live(plant) == []
    plant.settle()
    with plant.store.read() as tx:
        assert [tx.list(kind).items for kind in ("Deployment", "Revision", "Rollout")] == [[], [], []]
    assert plant.target.rows == {}


def test_an_unresolvable_environment_shows_the_resolvers_words(plant: Any) -> None:
    plant.push(1)
    plant.preparation.answer.python = None
    plant.preparation.answer.error = "No solution found: nope==9 is not there"
    plant.apply(model={"name": "churn", "version": "1"})
    plant.settle()
    deployment = plant.get("Deployment", "churn")
    assert deployment.status.phase == "Failed"
    assert "nope==9" in deployment.status.message


def test_a_crash_loop_is_said_with_the_last_lines(plant: Any) -> None:
    plant.push(1)
    plant.target.auto_ready = False
    plant.apply(model={"name": "churn", "version": "1"})
    for _ in range(5):
        plant.settle()
        for name, row in list(plant.target.rows.items()):
            if row.phase != "Exited":
                plant.target.die(name)
        plant.settle()
        revision = plant.get("Revision", "churn-00001")
        with plant.store.write(USER) as tx:
            tx.set_status(revision.uid, revision.status.model_copy(update={"retry_at": None}))
            tx.wake(revision.uid)
    deployment, rollout = plant.get("Deployment", "churn"), plant.get("Rollout", "churn-1")
    assert (deployment.status.phase, rollout.status.phase) == ("Failed", "RolledBack")
    assert "3 replicas in a row ended" in deployment.status.message
    assert "last words" in deployment.status.message


def test_a_thousand_counts_later_every_stored_verdict_is_the_same(plant: Any) -> None:
    first(plant)
    second(plant)
    for _ in range(20):
        plant.traffic("churn-2", (500, 1), (500, 1))
        plant.settle()
    judged = [item for item in plant.get("Rollout", "churn-2").status.decisions if item.evidence]
    assert judged
    for item in judged:
        again = replay(item.evidence)
        assert again.evidence is not None
        assert again.evidence["verdict"] == item.evidence["verdict"]


def test_files_that_a_replica_found_damaged_are_checked_out_anew(plant: Any) -> None:
    first(plant)
    plant.target.die("churn-00001-1", code=3)
    plant.store.wake(plant.get("Revision", "churn-00001").uid)
    plant.settle()
    assert plant.preparation.distrusted == [plant.get("Revision", "churn-00001").spec.manifest_digest]


def rejected_second(plant: Any) -> None:
    first(plant)
    second(plant)
    for _ in range(4):
        plant.traffic("churn-2", (100, 0), (100, 20))
    plant.settle()
    assert plant.get("Rollout", "churn-2").status.phase == "RolledBack"


@pytest.mark.parametrize("edit", [{"replicas": 2}, {"revisionHistory": 5}])
def test_an_edit_that_changes_no_revision_brings_no_rejected_one_back(
    plant: Any, edit: dict[str, Any]
) -> None:
    rejected_second(plant)
    second(plant, **edit)
    assert plant.get("Deployment", "churn").status.rollout_count == 2
    assert [name for name, _ in live(plant)] == ["churn-00001"]


def test_scaling_to_zero_and_back_makes_no_rejected_revision_stable(plant: Any) -> None:
    rejected_second(plant)
    second(plant, replicas=0)
    second(plant, replicas=1)
    assert plant.get("Deployment", "churn").status.stable_revision == "churn-00001"
    assert live(plant) == [("churn-00001", 10_000)]


def test_scaling_to_zero_during_a_canary_is_no_crash(plant: Any) -> None:
    first(plant)
    second(plant)
    second(plant, replicas=0)
    rollout = plant.get("Rollout", "churn-2")
    assert rollout.status.phase == "Progressing"
    assert "replicas is 0" in rollout.status.message
    assert plant.get("Deployment", "churn").status.rejected is None


def test_a_pause_while_the_candidate_is_prepared_holds_it(plant: Any) -> None:
    first(plant)
    plant.target.auto_ready = False
    second(plant)
    act(plant, paused=True)
    plant.target.rows = {
        name: replace(row, phase="Ready") if row.phase == "Starting" else row
        for name, row in plant.target.rows.items()
    }
    plant.store.wake(plant.get("Revision", "churn-00002").uid)
    plant.settle()
    assert plant.get("Rollout", "churn-2").status.weight == 0
    act(plant, paused=False)
    assert plant.get("Rollout", "churn-2").status.weight == 50


def test_an_upgrade_of_podium_moves_nothing(plant: Any) -> None:
    first(plant)
    second(plant)
    plant.reconcilers["Deployment"] = deployments.DeploymentReconciler(plant.store, runtime_wheel="wheel-2")
    plant.store.wake(plant.get("Deployment", "churn").uid)
    plant.settle()
    assert plant.get("Deployment", "churn").status.rollout == "churn-2", "the rollout under way goes on"
    for _ in range(4):
        plant.traffic("churn-2", (100, 0), (100, 20))
    plant.settle()
    plant.store.wake(plant.get("Deployment", "churn").uid)
    plant.settle()
    status = plant.get("Deployment", "churn").status
    assert (status.rollout_count, status.stable_revision) == (2, "churn-00001"), (
        "what was taken back stays back"
    )


def test_a_preview_whose_candidate_dies_is_not_flipped_to(plant: Any) -> None:
    strategy = {"strategy": {"type": "blueGreen", "previewFor": "1h", "observe": "0s"}}
    first(plant, strategy)
    second(plant, strategy)
    plant.target.auto_ready = False
    plant.target.die("churn-00002-1")
    plant.store.wake(plant.get("Revision", "churn-00002").uid)
    plant.settle()
    assert plant.get("Rollout", "churn-2").status.phase == "RolledBack"
    assert live(plant) == [("churn-00001", 10_000)]


def test_a_sample_that_cannot_be_read_keeps_nobody_from_aborting(plant: Any) -> None:
    first(plant)
    second(plant)
    uid = plant.get("Rollout", "churn-2").uid
    plant.store.append_samples(
        uid, [SampleRow(uid, 1.0, "gw", "e1", 5000, {"upstream_rq_total": "many"}, {})]
    )
    act(plant, requested="abort")
    assert plant.get("Rollout", "churn-2").status.phase == "RolledBack"
