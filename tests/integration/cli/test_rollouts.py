"""Rollouts from the command line: real API, real reconcilers, replicas and traffic that exist as what they report."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.api.server import ApiServer, deployment
from tests.integration.cli.conftest import Podium
from tests.integration.control.conftest import Plant

CANARY: dict[str, Any] = {
    "strategy": {
        "type": "canary",
        "steps": [{"weight": 20, "requests": 100}, {"weight": 50, "requests": 200}],
        "keepOld": "30s",
    }
}
Traffic = Callable[[Plant], None]


def wish(version: int, **rollout: Any) -> str:
    return json.dumps(
        deployment(
            "churn",
            model={"name": "churn", "version": str(version)},
            replicas=1,
            rollout={**CANARY, **rollout},
        )
    )


@pytest.fixture
def plant(server: ApiServer) -> Plant:
    """Version 1 of `churn` is served, version 2 is pushed."""
    made = Plant(server.store)
    made.push(1)
    made.push(2)
    return made


@pytest.fixture
def served(plant: Plant, podium: Podium) -> Plant:
    podium("apply", "-f", "-", stdin=wish(1))
    plant.settle()
    assert plant.get("Deployment", "churn").status.phase == "Ready"
    return plant


@contextlib.contextmanager
def running(plant: Plant, traffic: Traffic | None = None) -> Iterator[None]:
    """The control plane works in a thread, with this traffic while a rollout moves."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            plant.settle(3)
            name = plant.get("Deployment", "churn").status.rollout
            if traffic and name and plant.get("Rollout", name).status.phase == "Progressing":
                traffic(plant)
            stop.wait(0.02)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def bad(plant: Plant) -> None:
    plant.traffic("churn-2", (160, 0), (40, 30))


def good(plant: Plant) -> None:
    weight = plant.get("Rollout", "churn-2").status.weight
    plant.traffic("churn-2", (10 * (100 - weight), 0), (10 * weight, 0))


def test_wait_for_the_first_revision(podium: Podium, plant: Plant) -> None:
    podium("apply", "-f", "-", stdin=wish(1))
    with running(plant):
        told = podium("apply", "-f", "-", "--wait", "--timeout", "20s", stdin=wish(1))
    assert "churn promoted: churn-00001 serves version 1" in told.out
    assert "there was nothing to compare it with" in podium("rollout", "explain", "churn").out


def test_wait_ends_with_10_when_it_is_rolled_back(podium: Podium, served: Plant) -> None:
    with running(served, bad):
        told = podium("apply", "-f", "-", "--wait", "--timeout", "30s", stdin=wish(2), code=10)
    assert "churn rolled back: " in told.out
    assert "podium rollout explain churn" in told.out
    # The same wish again: it was judged already.
    with running(served):
        again = podium("apply", "-f", "-", "--wait", "-o", "json", stdin=wish(2), code=10)
    assert again.json()["items"][0]["outcome"]["outcome"] == "rolledBack"
    assert podium("rollout", "watch", "churn", code=10).out.count("RolledBack") == 1


def test_explain_tells_steps_decisions_and_evidence(podium: Podium, served: Plant) -> None:
    podium("apply", "-f", "-", stdin=wish(2))
    with running(served, bad):
        podium("rollout", "status", "churn-2", "--wait", "--timeout", "30s", code=10)
    told = podium("rollout", "explain", "churn").out
    assert "churn: traffic from churn-00001 to churn-00002, strategy canary" in told
    assert "step 1, 20 % for 100 requests: took" in told
    assert "rollback: " in told
    assert "errors: worse; E-value " in told
    assert " of 40 needed; difference below " in told
    assert "candidate requests failed, against 0 of" in told
    assert "churn-00002 was taken back" in told
    document = podium("rollout", "explain", "churn-2", "-o", "json").json()
    assert document["steps"][0]["candidate"]["failed"] > 0
    assert document["steps"][0]["stable"]["failed"] == 0
    assert document["decisions"][-1]["evidence"]["verdict"]["decision"] == "rollback"
    judged = len(document["replay"])
    assert judged >= 1
    assert all(item["same"] for item in document["replay"])
    assert f"judged again, the stored evidence gives the same verdict ({judged} of {judged})" in told


def test_a_good_one_is_promoted_and_can_be_taken_back_by_hand(podium: Podium, served: Plant) -> None:
    with running(served, good):
        told = podium("apply", "-f", "-", "--wait", "--timeout", "40s", stdin=wish(2))
        assert "churn promoted" in told.out
        explained = podium("rollout", "explain", "churn").out
        assert "step 2, 50 % for 200 requests" in explained
        assert "churn-00002 was promoted" in explained
        back = podium("rollback", "churn", "--wait", "--timeout", "20s")
    assert "back to churn-00001" in back.out
    assert "churn promoted: churn-00001" in back.out
    rows = podium("rollout", "history", "churn", "-o", "json").json()["items"]
    assert [row["spec"]["cause"] for row in rows] == ["first", "apply", "rollback"]
    table = podium("rollout", "history", "churn").out.splitlines()
    assert [line.split()[0] for line in table] == ["NAME", "churn-1", "churn-2", "churn-3"]


def test_steering_says_what_it_did(podium: Podium, served: Plant) -> None:
    podium("apply", "-f", "-", stdin=wish(2))
    served.settle()
    assert podium("rollout", "pause", "churn").out == "churn-2 stays at 20 %\n"
    served.settle()
    shown = podium("rollout", "status", "churn").out
    assert "churn-2: " in shown
    assert "step 1 of 2: 20 % for 100 requests" in shown
    assert podium("rollout", "resume", "churn").out == "churn-2 goes on from 20 %\n"
    waited = podium("rollout", "status", "churn", "--wait", "--timeout", "0.3s", code=12)
    assert waited.out.startswith("churn timed out")
    with running(served):
        # The candidate is to be taken back, and is: that is what was asked for.
        told = podium("rollback", "churn", "--wait", "--timeout", "20s")
    assert "all traffic goes back to churn-00001" in told.out
    refused = podium("rollout", "pause", "churn", code=1)
    assert "no rollout of Deployment churn is under way" in refused.err
    assert "Next: podium rollout history churn" in refused.err
    assert "is tried again" in podium("rollout", "retry", "churn").out


def test_a_preview_that_waits_for_a_person_is_held(podium: Podium, served: Plant) -> None:
    strategy = {"type": "blueGreen", "autoPromote": False, "observe": "0s"}
    with running(served):
        told = podium(
            "apply", "-f", "-", "--wait", "--timeout", "20s", stdin=wish(2, strategy=strategy), code=11
        )
        assert "podium rollout promote churn" in told.out
        podium("rollout", "promote", "churn")
        assert podium("rollout", "status", "churn", "--wait", "--timeout", "20s").code == 0


def test_watch_follows_to_the_end(podium: Podium, served: Plant) -> None:
    podium("apply", "-f", "-", stdin=wish(2))
    with running(served, good):
        lines = [
            json.loads(line) for line in podium("rollout", "watch", "churn", "-o", "json").out.splitlines()
        ]
    weights = [line["status"]["weight"] for line in lines]
    assert lines[-1]["status"]["phase"] == "Promoted"
    assert weights == sorted(weights)
    # It begins with what is when it comes, which on a busy machine is late.
    assert set(weights) <= {0, 20, 50, 100}
    assert weights[-1] == 100


def test_no_rollout_yet_and_no_such_deployment(podium: Podium, plant: Plant) -> None:
    podium("apply", "-f", "-", stdin=wish(1))
    assert "has had no rollout yet" in podium("rollout", "status", "churn", code=1).err
    assert "nosuch" in podium("rollout", "explain", "nosuch", code=1).err
    assert podium("rollout", "history", "churn", "-o", "json").json() == {"items": []}
    wrong = podium("rollout", "status", "churn", "--wait", "--timeout", "soon", code=1)
    assert "--timeout: expected a duration" in wrong.err
