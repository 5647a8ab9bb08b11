"""Replicas by demand, with everything real: Podium as `podium up` starts it, Envoy, model servers, requests.

Whoever asks is answered, whether replicas come, go, or sleep.
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.world import until
from podium.demo.installation import Installation
from podium.demo.load import Load, running
from podium.resources.kinds import Deployment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
MODEL = """
import time


class Model:
    def predict(self, inputs):
        time.sleep(0.05)
        return {"y": inputs["x"]}
"""
BUSY_MODEL = """
import time


def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class Model:
    def load(self, path):
        burn(5)

    def predict(self, inputs):
        burn(0.05)
        return {"y": inputs["x"]}
"""
DESCRIPTION = """
class: model:Model
requirements: ["numpy>=1.26"]
signature:
  inputs: [{name: x, datatype: FP64, shape: [-1]}]
  outputs: [{name: y, datatype: FP64, shape: [-1]}]
"""
BODY = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1.0]}]}'
SECONDS = 90.0


@pytest.fixture(scope="module")
def podium() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="pa-", dir="/tmp"))
    installation = Installation(folder / "home")
    try:
        installation.start()
        (folder / "model").mkdir()
        (folder / "model" / "model.py").write_text(MODEL)
        (folder / "model" / "podium.yaml").write_text(DESCRIPTION)
        installation.client.push("slow", folder / "model")
        (folder / "model" / "model.py").write_text(BUSY_MODEL)
        installation.client.push("busy", folder / "model")
        yield installation
    finally:
        with contextlib.suppress(Exception):
            installation.stop()
        shutil.rmtree(folder, ignore_errors=True)


def apply(podium: Installation, name: str, model: str = "slow", **scaling: Any) -> None:
    wish = {"stableWindow": "6s", "panicWindow": "4s", "scaleDownDelay": "4s", **scaling}
    podium.client.apply(
        {
            "apiVersion": "podium/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"model": {"name": model, "version": 1}, "scaling": wish},
        }
    )  # fmt: skip
    waits(podium, name, lambda found: found.status.phase == "Ready" and found.status.rollout is None)


def get(podium: Installation, name: str) -> Deployment:
    found: Deployment = podium.client.get("Deployment", name)
    return found


def waits(podium: Installation, name: str, condition: Any) -> Deployment:
    def look() -> Deployment | None:
        found = get(podium, name)
        return found if condition(found) else None

    return until(look, SECONDS, lambda: f"{get(podium, name).status}", pause=0.2)


def traffic(podium: Installation, name: str) -> dict[str, Any]:
    answer = httpx.get(
        f"{podium.addresses()['url']}/api/v1/workspaces/default/traffic", params={"window": "10s"}, trust_env=False,
        headers={"authorization": f"Bearer {podium.token}"}, timeout=30,
    )  # fmt: skip
    (found,) = [item for item in answer.json()["items"] if item["deployment"] == name]
    return dict(found)


def load(podium: Installation, name: str, rate: float) -> Any:
    url = f"{podium.gateway}/v2/models/{name}/infer"
    made = Load(url, [BODY], rate=rate, token=podium.token, timeout=60.0)
    return running(made, requests=3, timeout=60.0)


def test_replicas_come_with_the_load_and_go_with_it(podium: Installation) -> None:
    apply(podium, "slow", min=1, max=3, target={"requestsPerSecond": 4})
    assert get(podium, "slow").status.ready_replicas == 1
    with load(podium, "slow", 12) as asked:
        grown = waits(podium, "slow", lambda found: found.status.ready_replicas == 3)
        assert grown.status.scaling is not None
        assert "requests/s" in grown.status.scaling.reason
        until(
            lambda: traffic(podium, "slow")["requestsPerSecond"] > 4,
            SECONDS,
            lambda: str(traffic(podium, "slow")),
        )
        seen = traffic(podium, "slow")
        assert (seen["readyReplicas"], seen["scaling"]["desired"], seen["errorShare"]) == (3, 3, 0)
        assert [part["weight"] for part in seen["revisions"]] == [100]
    waits(podium, "slow", lambda found: found.status.ready_replicas == 1)
    answers = asked.answers.rows
    assert len(answers) > 20
    assert [row for row in answers if row.failed] == []
    events = podium.client.events(kind="Deployment", name="slow")
    reasons = [event["message"] for event in events if event["reason"] == "Scaled"]
    assert any(text.endswith("4 per replica") and "-> " in text for text in reasons), reasons


def test_nobody_runs_without_requests_and_the_first_one_is_answered(podium: Installation) -> None:
    apply(podium, "nap", min=0, max=2, scaleToZeroAfter="5s")
    asleep = waits(podium, "nap", lambda found: found.status.ready_replicas == 0)
    assert asleep.status.phase == "Ready"
    assert asleep.status.message.startswith("asleep: no request for 5 s")
    started = time.time()
    with load(podium, "nap", 2) as asked:
        waits(podium, "nap", lambda found: found.status.ready_replicas >= 1)
        until(lambda: len(asked.answers.since(started)) > 4, SECONDS, lambda: "nothing is answered")
    assert [row for row in asked.answers.rows if row.failed] == []
    waits(podium, "nap", lambda found: found.status.scaling.desired == 0)


def test_replicas_follow_their_processor_time_but_not_that_of_their_start(podium: Installation) -> None:
    """Loading takes five seconds of it, which is half of the window."""
    apply(podium, "busy", "busy", min=1, max=3, target={"cpu": 20}, stableWindow="10s")
    quiet = waits(podium, "busy", lambda found: found.status.scaling.measured is not None)
    assert (quiet.status.scaling.desired, quiet.status.scaling.panic_since) == (1, None)
    with load(podium, "busy", 11) as asked:
        waits(podium, "busy", lambda found: found.status.ready_replicas == 3)
        until(
            lambda: (traffic(podium, "busy")["cpu"] or 0) > 1, SECONDS, lambda: str(traffic(podium, "busy"))
        )
    waits(podium, "busy", lambda found: found.status.ready_replicas == 1)
    assert [row for row in asked.answers.rows if row.failed] == []
    events = podium.client.events(kind="Deployment", name="busy")
    first = [event["message"] for event in events if event["reason"] == "Scaled"][-1]
    assert "% of a replica's processor time" in first
    assert "20 % per replica" in first
