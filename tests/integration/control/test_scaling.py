"""The autoscaler in the reconcilers: from rows of counters to replicas that are wanted, on a real store."""

import datetime
from typing import Any

import pytest

from podium.control import deployments, loop
from podium.resources.scaling import ScalingStatus
from podium.store import LoadRow, ProcessorTimeRow, Store
from tests.integration.control.conftest import USER

WISH: dict[str, Any] = {"max": 8, "target": {"concurrency": 2}, "stableWindow": "20s", "panicWindow": "5s"}
MODEL = {"name": "churn", "version": "1"}


def count(plant: Any, active: int, *, revision: str = "churn-00001", seconds: int = 60) -> None:
    """`active` requests under way for so long, and none answered, as the gateway tells it; in the place of what it told
    before."""
    plant.report()
    if revision == "churn-00001":
        plant.store.forget_gateway("gw", USER)
        plant.report()
    now = loop.now().timestamp()
    rows = [
        LoadRow(now - ago, "gw", "e1", "default", "churn", revision, "live", 0, 0, 0, active, 0.0, [])
        for ago in range(seconds, -1, -2)
    ]
    plant.store.record_load("gw", now, rows)


def look(plant: Any) -> None:
    """The autoscaler's timer, and all that follows from it."""
    deployment = plant.get("Deployment", "churn")
    plant.store.wake(deployment.uid)
    plant.settle()


def watched(plant: Any, **more: Any) -> None:
    """As if the present load had been seen for ten minutes."""
    deployment = plant.get("Deployment", "churn")
    long_ago = loop.now() - datetime.timedelta(minutes=10)
    known = deployment.status.scaling or ScalingStatus()
    update = {"watched_since": long_ago, "seen_at": loop.now(), "peaks": [], "last_active_at": long_ago}
    update |= {"last_scaled_at": long_ago}
    scaling = known.model_copy(update=update | more)
    with plant.store.write(USER) as tx:
        tx.set_status(deployment.uid, deployment.status.model_copy(update={"scaling": scaling}))


def serve(plant: Any, **scaling: Any) -> None:
    plant.push(1)
    plant.push(2)
    plant.apply(model=MODEL, scaling=WISH | scaling, rollout={"strategy": {"type": "recreate"}})
    count(plant, 0)
    plant.settle()
    deployment = plant.get("Deployment", "churn")
    assert (deployment.status.phase, deployment.status.stable_revision) == ("Ready", "churn-00001")


def wanted(plant: Any, revision: str = "churn-00001") -> int:
    number: int = plant.get("Revision", revision).status.wanted_replicas
    return number


def scaled(plant: Any) -> list[str]:
    with plant.store.read() as tx:
        return [event.message for event in reversed(tx.events(kind="Deployment")) if event.reason == "Scaled"]


def test_replicas_follow_what_the_gateways_count(plant: Any) -> None:
    serve(plant)
    assert wanted(plant) == 1
    count(plant, 7)
    look(plant)
    deployment = plant.get("Deployment", "churn")
    assert (wanted(plant), deployment.status.ready_replicas, deployment.status.phase) == (4, 4, "Ready")
    assert deployment.status.scaling.desired == 4
    assert scaled(plant) == ["1 -> 4: surge: 7 requests under way in 5 s, 2 per replica"]
    watched(plant, panic_since=None)
    count(plant, 2)
    look(plant)
    assert wanted(plant) == 2


def test_looks_that_change_nothing_commit_nothing(plant: Any) -> None:
    serve(plant)
    count(plant, 2)
    look(plant)
    version = plant.store.current_version()
    for _ in range(10):
        now = loop.now().timestamp()
        row = LoadRow(now, "gw", "e1", "default", "churn", "churn-00001", "live", 0, 0, 0, 2, 0.0, [])
        plant.store.record_load("gw", now, [row])
        look(plant)
    assert plant.store.current_version() == version


def test_a_look_that_changes_nothing_reads_the_whole_world_only_when_something_is_new(plant: Any) -> None:
    serve(plant)
    for _ in range(3):
        look(plant)
    reconciler = plant.reconcilers["Deployment"]
    uid = plant.get("Deployment", "churn").uid
    known = reconciler._passed[uid]
    look(plant)
    assert reconciler._passed[uid] is known
    with plant.store.write(USER) as tx:
        tx.set_alias("default", "churn", "champion", "2")
    look(plant)
    assert reconciler._passed.get(uid) is not known, "an alias of its model has moved"
    count(plant, 7)
    look(plant)
    assert wanted(plant) == 4
    plant.apply(model={"name": "churn", "version": "2"}, scaling=WISH)
    plant.settle()
    assert plant.get("Deployment", "churn").status.rollout == "churn-2"


def test_a_restarted_server_shrinks_nothing_at_once(plant: Any) -> None:
    serve(plant, scaleDownDelay="0s")
    count(plant, 12)
    look(plant)
    look(plant)
    assert wanted(plant) == 6
    count(plant, 0)
    fresh = deployments.DeploymentReconciler(plant.store, runtime_wheel="wheel-1")
    plant.reconcilers["Deployment"] = fresh
    look(plant)
    assert wanted(plant) == 6


def test_a_silent_gateway_is_named_and_nothing_shrinks(plant: Any) -> None:
    serve(plant, scaleDownDelay="0s")
    count(plant, 6)
    look(plant)
    assert wanted(plant) == 3
    watched(plant, panic_since=None)
    plant.store.forget_gateway("gw", USER)
    look(plant)
    assert wanted(plant) == 3
    look_again = plant.reconcilers["Deployment"]._scaler
    kept = look_again._kept[plant.get("Deployment", "churn").uid].newest
    assert kept.reason == "gateway gw is silent: nothing shrinks on half the knowledge"
    count(plant, 1)
    look(plant)
    assert wanted(plant) == 1


def test_without_requests_the_last_one_sleeps_until_it_is_woken(plant: Any) -> None:
    serve(plant, min=0, scaleToZeroAfter="60s")
    count(plant, 0)
    watched(plant)
    plant.reconcilers.pop("Revision")
    look(plant)
    revision, deployment = plant.get("Revision", "churn-00001"), plant.get("Deployment", "churn")
    assert (revision.status.wanted_replicas, revision.status.sleeping) == (0, True)
    assert deployment.status.phase == "Ready"
    assert deployment.status.message == "asleep: no request for 60 s; a request wakes it"
    with plant.store.write(USER) as tx:
        tx.set_status(revision.uid, revision.status.model_copy(update={"woken": True}))
    look(plant)
    revision = plant.get("Revision", "churn-00001")
    assert (revision.status.wanted_replicas, revision.status.sleeping) == (1, False)
    assert scaled(plant)[-2:] == ["1 -> 0: no request for 60 s", "0 -> 1: woken by a request"]


def test_a_rollout_wakes_who_sleeps_and_both_have_enough(plant: Any) -> None:
    serve(plant, min=0, scaleToZeroAfter="60s", warm=1)
    assert plant.get("Revision", "churn-00001").status.warm_replicas == 1
    watched(plant)
    plant.reconcilers.pop("Revision")
    look(plant)
    assert wanted(plant) == 0
    assert plant.get("Revision", "churn-00001").status.warm_replicas == 0
    plant.apply(
        model={"name": "churn", "version": "2"},
        scaling=WISH | {"min": 0, "warm": 1, "scaleToZeroAfter": "60s"},
    )
    plant.settle()
    assert plant.get("Deployment", "churn").status.rollout == "churn-2"
    assert (wanted(plant, "churn-00001"), wanted(plant, "churn-00002")) == (1, 1)
    assert not plant.get("Revision", "churn-00001").status.sleeping
    for number in (1, 2):
        count(plant, 4, revision=f"churn-{number:05d}")
    look(plant)
    assert (wanted(plant, "churn-00001"), wanted(plant, "churn-00002")) == (4, 4)


def busy(plant: Any, shares: dict[str, float], *, revision: str = "churn-00001") -> None:
    """For a minute until now each replica has used so much of its processor, after loading for 500 s."""
    now = loop.now().timestamp()
    rows = [
        ProcessorTimeRow(now - ago, "default", "churn", revision, replica, 500 + share * (60 - ago), 1)
        for replica, share in shares.items()
        for ago in range(60, 0, -2)
    ]
    plant.store.record_processor_times(now, rows)
    plant.target.used |= {replica: 500 + share * 60 for replica, share in shares.items()}


def test_replicas_follow_their_processor_time(plant: Any) -> None:
    plant.target.used["churn-00001-1"] = 500.0
    serve(plant, target={"cpu": 50}, scaleDownDelay="0s")
    assert wanted(plant) == 1
    count(plant, 1)
    watched(plant)
    busy(plant, {"churn-00001-1": 0.8})
    plant.reconcilers.pop("Revision")
    look(plant)
    assert wanted(plant) == 2, scaled(plant)
    (event,) = scaled(plant)
    assert event.startswith("1 -> 2: 8") or event.startswith("1 -> 2: 7"), event
    assert event.endswith(" % of a replica's processor time, 50 % per replica")


def test_processor_time_that_cannot_be_read_shrinks_nothing(plant: Any) -> None:
    serve(plant, target={"cpu": 50}, min=1, scaleDownDelay="0s")
    plant.apply(model=MODEL, scaling=WISH | {"target": {"cpu": 50}, "min": 3, "scaleDownDelay": "0s"})
    plant.settle()
    assert plant.get("Deployment", "churn").status.ready_replicas == 3
    plant.apply(model=MODEL, scaling=WISH | {"target": {"cpu": 50}, "min": 1, "scaleDownDelay": "0s"})
    count(plant, 0)
    watched(plant, panic_since=None)
    plant.target.used |= {"churn-00001-1": 1.0, "churn-00001-2": 1.0}
    look(plant)
    assert wanted(plant) == 3
    kept = plant.reconcilers["Deployment"]._scaler._kept[plant.get("Deployment", "churn").uid].newest
    assert kept.reason == (
        "the processor time of replica churn-00001-3 is not known: nothing shrinks on half the knowledge"
    )
    plant.target.used["churn-00001-3"] = 1.0
    look(plant)
    assert wanted(plant) < 3


def test_a_candidate_that_gets_only_copies_asks_for_no_replicas_of_its_own(plant: Any) -> None:
    """The requests that it has are the stable revision's too."""
    plant.target.used["churn-00001-1"] = 500.0
    serve(plant, target={"cpu": 50})
    shadow = {"strategy": {"type": "shadow", "percent": 100}}
    plant.apply(
        model={"name": "churn", "version": "2"}, scaling=WISH | {"target": {"cpu": 50}}, rollout=shadow
    )
    plant.target.used["churn-00002-2"] = plant.target.used["churn-00002-1"] = 500.0
    plant.settle()
    assert plant.get("Deployment", "churn").status.rollout == "churn-2"
    count(plant, 1)
    now = loop.now().timestamp()
    copies = [
        LoadRow(now - ago, "gw", "e1", "default", "churn", "churn-00002", "shadow", 0, 0, 0, 1, 0.0, [])
        for ago in range(60, -1, -2)
    ]
    plant.store.record_load("gw", now, copies)
    watched(plant)
    busy(plant, {"churn-00001-1": 0.2})
    busy(plant, {"churn-00002-1": 0.9}, revision="churn-00002")
    look(plant)
    assert wanted(plant) == 1


def test_scaling_that_is_taken_away_leaves_the_number_that_is_written(plant: Any) -> None:
    serve(plant)
    count(plant, 7)
    look(plant)
    plant.apply(model=MODEL, replicas=2, rollout={"strategy": {"type": "recreate"}})
    plant.settle()
    deployment = plant.get("Deployment", "churn")
    assert (wanted(plant), deployment.status.scaling, deployment.status.rollout) == (2, None, None)


def test_two_servers_take_turns(plant: Any, tmp_path: Any) -> None:
    """What one wrote the other goes on from, though each keeps looks of its own."""
    serve(plant)
    other_store = Store.open(f"sqlite:///{tmp_path / 'p.db'}")
    try:
        servers = [
            plant.reconcilers["Deployment"],
            deployments.DeploymentReconciler(other_store, runtime_wheel="wheel-1"),
        ]
        for turn, active in enumerate((3, 5, 7, 9)):
            plant.reconcilers["Deployment"] = servers[turn % 2]
            count(plant, active)
            look(plant)
            assert wanted(plant) == -(-active // 2)
        assert len(scaled(plant)) == 4
    finally:
        other_store.close()


@pytest.mark.parametrize("version", [1, 2])
def test_deletion_takes_the_autoscalers_wishes_along(plant: Any, version: int) -> None:
    serve(plant, warm=version)
    with plant.store.write(USER) as tx:
        tx.request_deletion(plant.get("Deployment", "churn").uid)
    plant.settle()
    with plant.store.read() as tx:
        assert tx.list("Revision").items == []
        assert tx.find("Deployment", "default", "churn") is None
