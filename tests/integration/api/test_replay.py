"""`GET .../rollouts/{name}/replay`: stored evidence, judged again by the server."""

from typing import Any

from podium.analysis import ArmCounts, Window
from podium.planning.looks import Trial, look_at
from podium.resources.deployment import RolloutSettings
from podium.resources.kinds import Rollout
from podium.resources.rollout import Decision, RolloutSpec, RolloutStatus
from podium.resources.shape import Metadata, Resource
from podium.store import Actor


def rollout_with_a_verdict() -> Rollout:
    arms = {
        "stable": ArmCounts(started=900, total=900),
        "candidate": ArmCounts(started=100, total=100, bad=30),
    }
    window = Window(start=0.0, end=10.0, gateway="g", rho=0.1, **arms)
    spec = RolloutSpec(
        deployment="d", deployment_uid="u", generation=1, stable_revision="d-00001", candidate_revision="d-00002",
        settings=RolloutSettings(),
    )  # fmt: skip
    status = RolloutStatus(phase="RollingBack", step=0, weight=10)
    rollout: Rollout = Resource(kind="Rollout", metadata=Metadata(name="d-2"), spec=spec, status=status)
    look = look_at(rollout, Trial((window,), 1, 1), last=False, complete=False, capped=False)
    assert look.decision == "rollback"
    decision = Decision(
        at="2026-01-01T00:00:00Z",
        step=0,
        weight=10,
        decision="rollback",
        reason=look.reason,
        evidence=look.evidence,
    )
    return rollout.model_copy(update={"status": status.model_copy(update={"decisions": [decision]})})


def test_the_same_evidence_gives_the_same_verdict_and_changed_evidence_is_noticed(server: Any) -> None:
    made = rollout_with_a_verdict()
    with server.store.write(Actor("tester", "user")) as tx:
        uid = tx.create(made).uid
    items = server.http().get("/api/v1/workspaces/default/rollouts/d-2/replay").json()["items"]
    assert [(item["decision"], item["same"], item["verdict"]) for item in items] == [(0, True, "rollback")]

    decision = made.status.decisions[0]
    evidence = dict(decision.evidence or {})
    evidence["verdict"] = {**evidence["verdict"], "decision": "promote"}
    forged = made.status.model_copy(
        update={"decisions": [decision.model_copy(update={"evidence": evidence})]}
    )
    with server.store.write(Actor("tester", "user")) as tx:
        tx.set_status(uid, forged)
    items = server.http().get("/api/v1/workspaces/default/rollouts/d-2/replay").json()["items"]
    assert [item["same"] for item in items] == [False]
