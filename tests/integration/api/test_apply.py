"""Optimistic concurrency, references, steering of rollouts, gateways' reports: over HTTP, on the real store."""

import threading
import time
from typing import Any

import httpx
import pytest

from podium.resources.deployment import DeploymentStatus, RejectedRevision, RolloutSettings
from podium.resources.kinds import AnyResource, Deployment
from podium.resources.revision import RevisionSpec, RevisionStatus
from podium.resources.rollout import RolloutSpec, RolloutStatus
from podium.resources.shape import Metadata, OwnerReference, Resource
from tests.integration.api.server import TESTER, ApiServer, deployment, model, workspace

HERE = "/api/v1/workspaces/default/deployments/churn"


def test_of_fifty_writers_exactly_one_wins_each_version(churn: ApiServer) -> None:
    """Each round, 50 writers name the same version: one is taken, 49 are told the version that there is now."""
    token = churn.admin_token
    churn.create(deployment("busy"))
    outcomes: list[tuple[int, int]] = []
    for _ in range(2):
        with churn.store.read() as tx:
            version = tx.get("Deployment", "default", "busy").metadata.resource_version
        together = threading.Barrier(50)

        def write(number: int, version: int | None = version, together: threading.Barrier = together) -> None:
            document = deployment("busy", replicas=number + 1 + 100 * len(outcomes))
            document["metadata"]["resourceVersion"] = version
            together.wait(30)
            answer = httpx.post(
                f"{churn.url}/api/v1/apply", json=document, headers={"authorization": f"Bearer {token}"},
                trust_env=False, timeout=60,
            )  # fmt: skip
            outcomes.append((answer.status_code, answer.json().get("resourceVersion", 0)))

        outcomes.clear()
        threads = [threading.Thread(target=write, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert sorted(status for status, _ in outcomes) == [200] + [409] * 49
        assert {seen for status, seen in outcomes if status == 409} == {(version or 0) + 1}


def test_an_update_without_a_version_is_told_the_one_there_is(churn: ApiServer) -> None:
    http = churn.http()
    created = http.post("/api/v1/apply", json=deployment("d"))
    assert created.status_code == 201
    refused = http.post("/api/v1/apply", json=deployment("d", replicas=1))
    assert refused.status_code == 409
    problem = refused.json()
    assert problem["code"] == "conflict"
    assert problem["issues"][0]["field"] == "metadata.resourceVersion"
    assert problem["resourceVersion"] == created.json()["object"]["metadata"]["resourceVersion"]
    gone = deployment("never")
    gone["metadata"]["resourceVersion"] = 3
    assert http.post("/api/v1/apply", json=gone).status_code == 409


def test_what_get_prints_can_be_applied_again(churn: ApiServer) -> None:
    http = churn.http()
    created = http.post("/api/v1/apply", json=deployment("d", replicas=2)).json()["object"]
    again = http.post("/api/v1/apply", json=http.get("/api/v1/workspaces/default/deployments/d").json())
    assert (again.status_code, again.json()["action"]) == (200, "unchanged")
    assert again.json()["object"]["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


def test_workspaces_are_made_filled_and_emptied(churn: ApiServer) -> None:
    http = churn.http()
    assert http.post("/api/v1/apply", json=workspace("team")).status_code == 201
    assert http.post("/api/v1/apply?workspace=team", json=model(workspace="team")).status_code == 201
    wrong = http.post("/api/v1/apply?workspace=team", json=model("x"))
    assert wrong.json()["issues"][0]["field"] == "metadata.workspace"
    refused = http.delete("/api/v1/workspaces/team")
    assert (refused.status_code, refused.json()["code"]) == (409, "refused")
    assert "Model churn" in refused.json()["detail"]
    assert http.delete("/api/v1/workspaces/team/models/churn").status_code == 200
    assert http.delete("/api/v1/workspaces/team").status_code == 200
    assert http.get("/api/v1/workspaces/team").status_code == 404


def test_podiums_own_objects_are_not_deleted_by_hand(served: ApiServer) -> None:
    http = served.http()
    answer = http.delete("/api/v1/workspaces/default/revisions/churn-00001")
    assert (answer.status_code, answer.json()["nextStep"]) == (409, "delete Deployment churn instead")
    version = http.delete("/api/v1/workspaces/default/modelversions/churn.1")
    assert "Revision churn-00001" in version.json()["detail"]


# Rollouts


def _owned(owner: Deployment, kind: str, name: str, spec: Any, status: Any) -> AnyResource:
    reference = OwnerReference(kind="Deployment", name=owner.metadata.name, uid=owner.uid)
    return Resource(kind=kind, metadata=Metadata(name=name, owner=reference), spec=spec, status=status)


def _revision(owner: Deployment, number: int) -> AnyResource:
    spec = RevisionSpec(
        deployment="churn", deployment_uid=owner.uid, number=number, model="churn", version=str(number),
        manifest_digest="sha256:" + "0" * 64, runtime_wheel="0" * 64, target="process", resources=owner.spec.resources,
        runtime=owner.spec.runtime, sandbox=owner.spec.sandbox, idempotent=True, content_hash=str(number),
    )  # fmt: skip
    return _owned(owner, "Revision", f"churn-{number:05d}", spec, RevisionStatus())


def _rollout(
    owner: Deployment, number: int, stable: str | None, candidate: str, **status: Any
) -> AnyResource:
    spec = RolloutSpec(
        deployment="churn", deployment_uid=owner.uid, generation=number, stable_revision=stable,
        candidate_revision=candidate, settings=RolloutSettings(),
    )  # fmt: skip
    return _owned(owner, "Rollout", f"churn-{number}", spec, RolloutStatus(**status))


@pytest.fixture
def served(churn: ApiServer) -> ApiServer:
    """`churn` serves its first revision; the second one has 20 percent of the traffic."""
    owner = churn.create(deployment("churn", replicas=1, model={"name": "churn", "version": "2"}))
    with churn.store.write(TESTER) as tx:
        for number in (1, 2):
            tx.create(_revision(owner, number))
        tx.create(_rollout(owner, 1, None, "churn-00001", phase="Promoted"))
        tx.create(_rollout(owner, 2, "churn-00001", "churn-00002", phase="Progressing", weight=20))
        status = DeploymentStatus(
            phase="Progressing",
            stable_revision="churn-00001",
            latest_revision="churn-00002",
            rollout="churn-2",
        )
        tx.set_status(owner.uid, status)
    return churn


def steer(server: ApiServer, action: str) -> httpx.Response:
    return server.http().post(f"{HERE}/rollout", json={"action": action})


def wish(server: ApiServer) -> RolloutSpec:
    with server.store.read() as tx:
        spec: RolloutSpec = tx.get("Rollout", "default", "churn-2").spec
    return spec


def test_actions_write_wishes_with_who_asked(served: ApiServer) -> None:
    assert steer(served, "pause").json()["message"] == "churn-2 stays at 20 %"
    assert wish(served).paused
    before = served.store.current_version()
    assert steer(served, "pause").json()["message"].startswith("nothing to do")
    assert served.store.current_version() == before
    assert steer(served, "resume").status_code == 200
    assert not wish(served).paused
    assert steer(served, "promote").status_code == 200
    assert (wish(served).requested, wish(served).requested_by) == ("promote", "admin")
    assert steer(served, "pause").status_code == 409
    assert steer(served, "abort").status_code == 200
    assert wish(served).requested == "abort"
    assert steer(served, "promote").status_code == 409
    verbs = [row["verb"] for row in served.http().get("/api/v1/audit?kind=Rollout").json()["items"]]
    assert [verb for verb in verbs if verb.startswith("rollout.")] == [
        "rollout.abort", "rollout.promote", "rollout.resume", "rollout.pause",
    ]  # fmt: skip


def test_nothing_to_act_on_is_said_in_words(churn: ApiServer) -> None:
    churn.create(deployment("churn"))
    for action in ("pause", "resume", "promote", "abort", "retry"):
        answer = steer(churn, action)
        assert (answer.status_code, answer.json()["code"]) == (409, "refused"), action
    assert "is under way" in steer(churn, "pause").json()["detail"]
    assert (
        churn.http().post(f"{HERE}/rollout", json={"action": "stop"}).json()["issues"][0]["field"] == "action"
    )
    assert churn.http().post(f"{HERE}x/rollout", json={"action": "pause"}).status_code == 404


def test_a_rollback_during_a_rollout_aborts_it(served: ApiServer) -> None:
    assert served.http().post(f"{HERE}/rollback", json={}).status_code == 200
    assert wish(served).requested == "abort"


def _finish(server: ApiServer, phase: str, stable: str) -> None:
    with server.store.write(TESTER) as tx:
        rollout = tx.get("Rollout", "default", "churn-2")
        tx.set_status(rollout.uid, rollout.status.model_copy(update={"phase": phase}))
        owner = tx.get("Deployment", "default", "churn")
        tx.set_status(owner.uid, owner.status.model_copy(update={"rollout": None, "stable_revision": stable}))


def test_a_rollback_after_a_promotion_serves_the_one_before(served: ApiServer) -> None:
    _finish(served, "Promoted", "churn-00002")
    answer = served.http().post(f"{HERE}/rollback", content=b"")
    assert answer.status_code == 200, answer.text
    written = answer.json()["object"]
    assert written["spec"]["model"] == {"name": "churn", "version": "1", "alias": None}
    assert written["metadata"]["annotations"] == {"podium/rollback-to": "churn-00001@2"}
    assert written["metadata"]["generation"] == 2
    assert "rollback" in [row["verb"] for row in served.http().get("/api/v1/audit").json()["items"]]


def test_a_rollback_to_what_is_not_there_lists_what_is(served: ApiServer) -> None:
    _finish(served, "Promoted", "churn-00002")
    answer = served.http().post(f"{HERE}/rollback", json={"revision": "churn-00009"})
    assert answer.status_code == 409
    assert "churn-00001, churn-00002" in answer.json()["detail"]
    with served.store.write(TESTER) as tx:
        tx.request_deletion(tx.get("ModelVersion", "default", "churn.1").uid)
    answer = served.http().post(f"{HERE}/rollback", json={"revision": "churn-00001"})
    assert "was deleted" in answer.json()["detail"]


def test_without_an_earlier_stable_revision_a_rollback_says_so(served: ApiServer) -> None:
    _finish(served, "RolledBack", "churn-00001")
    answer = served.http().post(f"{HERE}/rollback", json={"revision": None})
    assert "no earlier revision that was stable" in answer.json()["detail"]


def test_retry_clears_the_rejection_and_wakes(served: ApiServer) -> None:
    rejected = RejectedRevision(revision="churn-00002", generation=1, rollout="churn-2", reason="bad")
    with served.store.write(TESTER) as tx:
        owner = tx.get("Deployment", "default", "churn")
        tx.set_status(owner.uid, owner.status.model_copy(update={"rejected": rejected, "rollout": None}))
    assert steer(served, "retry").json()["object"]["status"]["rejected"] is None
    due = served.store.next_due(["Deployment"])
    assert due is not None
    assert due.timestamp() <= time.time()


def test_an_alias_wakes_the_deployments_that_follow_it(churn: ApiServer) -> None:
    churn.create(deployment("follower", model={"name": "churn", "alias": "champion"}))
    (lease,) = churn.store.claim("w", kinds=["Deployment"], limit=5, lease_seconds=60, now=churn.store._now())
    churn.store.release(lease, None)
    assert churn.store.next_due(["Deployment"]) is None
    answer = churn.http().put(
        "/api/v1/workspaces/default/models/churn/aliases/champion", json={"version": "2"}
    )
    assert answer.json()["status"]["aliases"] == {"champion": "2"}
    assert churn.store.next_due(["Deployment"]) is not None


# Gateways


def test_a_report_is_kept_and_wakes_what_waits_for_it(served: ApiServer) -> None:
    store = served.store
    with store.read() as tx:
        rollout = tx.get("Rollout", "default", "churn-2")
    for lease in store.claim("w", kinds=["Rollout"], limit=5, lease_seconds=60, now=store._now()):
        store.release(lease, None)
    assert store.next_due(["Rollout"]) is None
    version = store.current_version()
    sample = {
        "rolloutUid": rollout.uid, "gateway": "g1", "at": 1700000000.5, "epoch": "e1", "weightBp": 2000,
        "latencyEdgeMs": 250.0, "stable": {"upstream_rq_total": 80}, "candidate": {"upstream_rq_total": 20},
    }  # fmt: skip
    lost = {**sample, "rolloutUid": "gone"}
    report = {
        "observedVersion": version,
        "rejected": [
            {"workspace": "default", "deployment": "churn", "error": "no such cluster", "version": 3}
        ],
        "envoy": {"version": "1.40.0"},
        "samples": [sample, lost],
    }
    http = served.http((served.home / "gateway.token").read_text().strip())
    answer = http.put("/api/v1/gateways/g1", json=report)
    assert answer.json() == {"samples": 1, "version": version}, "a report is no version of its own"
    assert store.next_due(["Rollout"]) is not None
    assert http.put("/api/v1/gateways/g1", json=report).json()["samples"] == 0
    rows = served.http().get("/api/v1/workspaces/default/rollouts/churn-2/samples").json()["items"]
    assert [(row["gateway"], row["weightBp"], row["candidate"]) for row in rows] == [
        ("g1", 2000, {"upstream_rq_total": 20})
    ]
    (gateway,) = served.http().get("/api/v1/gateways").json()["items"]
    assert (gateway["name"], gateway["observedVersion"]) == ("g1", version)
    assert gateway["rejected"][0]["error"] == "no such cluster"
    assert (
        http.put("/api/v1/gateways/g1", json={"observedVersion": -1}).json()["issues"][0]["field"]
        == "observedVersion"
    )


def test_a_gateway_that_leaves_is_known_no_longer(served: ApiServer) -> None:
    http = served.http((served.home / "gateway.token").read_text().strip())
    one = {"home": "h1", "start": "s1", "host": "here", "pid": 7}
    report = {"observedVersion": 1, "instance": one}
    assert http.put("/api/v1/gateways/leaving", json=report).status_code == 200

    def known() -> list[str]:
        return [item["name"] for item in served.http().get("/api/v1/gateways").json()["items"]]

    assert "leaving" in known()
    stranger = {"observedVersion": 1, "instance": {**one, "home": "h2", "start": "s2"}, "leaving": True}
    assert http.put("/api/v1/gateways/leaving", json=stranger).status_code == 409
    assert "leaving" in known()
    assert http.put("/api/v1/gateways/leaving", json=report | {"leaving": True}).status_code == 200
    assert "leaving" not in known()


def test_a_report_of_a_newer_agent_is_taken(served: ApiServer) -> None:
    http = served.http((served.home / "gateway.token").read_text().strip())
    # What only the server says of a gateway cannot be said by one.
    envoy = {"instance": "x", "formerStarts": 7, "version": "1.99.0"}
    one = {"home": "h1", "start": "s1", "host": "here", "pid": 7, "kernel": "9"}
    report = {"observedVersion": 1, "envoy": envoy, "instance": one, "weather": "fine"}
    for _ in range(2):
        assert http.put("/api/v1/gateways/newer", json=report).status_code == 200
    (row,) = [
        item for item in served.http().get("/api/v1/gateways").json()["items"] if item["name"] == "newer"
    ]
    assert row["envoy"] == {"version": "1.99.0"}
    assert row["instance"] == {"home": "h1", "start": "s1", "host": "here", "pid": 7}


def test_a_workspace_s_quota_says_which_and_by_how_much(churn: ApiServer) -> None:
    http = churn.http()

    def quota(**given: Any) -> None:
        wish = workspace("default")
        wish["spec"]["quota"] = given
        with churn.store.read() as tx:
            wish["metadata"]["resourceVersion"] = tx.get(
                "Workspace", "default", "default"
            ).metadata.resource_version
        assert http.post("/api/v1/apply", json=wish).status_code == httpx.codes.OK

    def ask(name: str, replicas: int) -> httpx.Response:
        wish = deployment(name, replicas=replicas)
        with churn.store.read() as tx:
            found = tx.find("Deployment", "default", name)
        if found is not None:
            wish["metadata"]["resourceVersion"] = found.metadata.resource_version
        return http.post("/api/v1/apply", json=wish)

    quota(replicas=5)
    assert ask("a", 3).status_code == httpx.codes.CREATED
    refused = ask("b", 3)
    assert refused.status_code == httpx.codes.CONFLICT
    problem = refused.json()
    assert problem["code"] == "refused"
    assert "quota of replicas: 3 asked for, 3 taken by others (a 3)" in problem["detail"]
    assert problem["detail"].endswith("so this is 1 over")
    assert problem["issues"][0]["field"] == "spec.replicas"
    assert "spec.quota of Workspace default" in problem["nextStep"]
    assert http.get("/api/v1/workspaces/default/deployments/b").status_code == httpx.codes.NOT_FOUND
    assert http.post("/api/v1/apply?dryRun=true", json=deployment("b", replicas=3)).status_code == 409
    assert ask("b", 2).status_code == httpx.codes.CREATED
    assert http.get("/api/v1/workspaces/default").json()["status"]["used"] == {
        "replicas": 5, "memory": "10Gi", "rules": 0, "deployments": 2, "readyReplicas": 0,
    }  # fmt: skip
    quota(replicas=2, memory="1Gi")
    (listed,) = http.get("/api/v1/workspaces").json()["items"]
    assert (listed["status"]["used"]["replicas"], listed["spec"]["quota"]["replicas"]) == (5, 2)
    assert ask("a", 2).status_code == httpx.codes.OK, "over the lowered quota, and shrinking"
    assert ask("a", 3).status_code == httpx.codes.CONFLICT
    # Of two that each would take the last place, one gets it.
    quota(replicas=5)
    together, answers = threading.Barrier(2), []

    def take(name: str) -> None:
        together.wait(30)
        answers.append(
            httpx.post(
                f"{churn.url}/api/v1/apply", json=deployment(name, replicas=1), trust_env=False, timeout=60,
                headers={"authorization": f"Bearer {churn.admin_token}"},
            ).status_code
        )  # fmt: skip

    threads = [threading.Thread(target=take, args=(name,)) for name in ("x", "y")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert sorted(answers) == [201, 409]


def test_a_workspace_s_rules_are_bounded_without_a_quota_too(churn: ApiServer) -> None:
    http = churn.http()
    assert http.post("/api/v1/apply", json=deployment("d")).status_code == httpx.codes.CREATED

    def ask(name: str, rules: int) -> httpx.Response:
        chosen = [{"match": {"path": f"/{place}"}, "to": [{"deployment": "d"}]} for place in range(rules)]
        metadata: dict[str, Any] = {"name": name, "workspace": "default"}
        with churn.store.read() as tx:
            found = tx.find("Route", "default", name)
        if found is not None:
            metadata["resourceVersion"] = found.metadata.resource_version
        wish = {"apiVersion": "podium/v1", "kind": "Route", "metadata": metadata, "spec": {"rules": chosen}}
        return http.post("/api/v1/apply", json=wish)

    for number in range(15):
        assert ask(f"r{number}", 64).status_code == httpx.codes.CREATED
    refused = ask("over", 41)
    assert refused.status_code == httpx.codes.CONFLICT
    problem = refused.json()
    assert problem["code"] == "refused"
    assert "quota of rules: 41 asked for, 960 taken by others" in problem["detail"]
    assert problem["detail"].endswith("the workspace may have 1000, so this is 1 over")
    assert problem["issues"][0]["field"] == "spec.rules"
    assert "spec.quota.rules of Workspace default" in problem["nextStep"]
    assert http.get("/api/v1/workspaces/default/routes/over").status_code == httpx.codes.NOT_FOUND
    assert ask("over", 40).status_code == httpx.codes.CREATED
    # An admin's word counts, and what is over it can shrink.
    wish = workspace("default")
    wish["spec"]["quota"] = {"rules": 10}
    with churn.store.read() as tx:
        wish["metadata"]["resourceVersion"] = tx.get(
            "Workspace", "default", "default"
        ).metadata.resource_version
    assert http.post("/api/v1/apply", json=wish).status_code == httpx.codes.OK
    assert http.get("/api/v1/workspaces/default").json()["status"]["used"]["rules"] == 1000
    assert [ask("over", 39).status_code, ask("over", 40).status_code] == [200, 409]
    assert http.delete("/api/v1/workspaces/default/routes/r0").status_code == httpx.codes.OK
    assert http.get("/api/v1/workspaces/default").json()["status"]["used"]["rules"] == 935


def test_a_ceiling_that_the_minimum_alone_is_beyond_is_refused(churn: ApiServer) -> None:
    def ask(**scaling: Any) -> httpx.Response:
        wish = deployment("d", replicas=1, scaling={"max": 8, **scaling})
        return churn.http().post("/api/v1/apply?dryRun=true", json=wish)

    refused = ask(min=4, maxReplicaHoursPerDay=24)
    assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    (issue,) = refused.json()["issues"]
    assert issue["field"] == "spec.scaling.maxReplicaHoursPerDay"
    assert issue["message"] == "expected at least 96, got 24: min 4 outranks it and takes 96 in a day"
    assert "lower spec.scaling.min" in refused.json()["nextStep"]
    for fits in (
        {"min": 4, "maxReplicaHoursPerDay": 96},
        {"min": 4},
        {"min": 0, "maxReplicaHoursPerDay": 0.5},
    ):
        assert ask(**fits).status_code == httpx.codes.OK, fits
    assert ask(maxReplicaHoursPerDay=23.9).status_code == httpx.codes.UNPROCESSABLE_ENTITY
