"""Twenty seconds of steady load on one replica, then SIGTERM under it; `make bench-soak` does ten minutes."""

import signal
from typing import Any

import pytest

from benchmarks.runtime.soak import GROWTH, Soak, soak

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def test_no_request_is_lost_and_memory_stays() -> None:
    found = soak(20.0, 10, lambda _: None)
    answered = sum(window["requests"] for window in found.stream["windows"])
    assert answered > 10 * found.rate, found
    assert found.stream["gone"], found
    assert found.lost == [], found
    assert found.stream["failed"] == 0, found
    assert found.exit_code == 0, found
    assert found.growth <= GROWTH, found.memory


def test_a_killed_replica_loses_requests() -> None:
    """The judge can tell: what is under way when the process dies is found to be lost."""
    found = soak(4.0, 2, lambda _: None, ending=signal.SIGKILL)
    assert found.lost, found
    assert found.exit_code == -signal.SIGKILL
    assert not all(goal["met"] for goal in found.goals())


GOOD: dict[str, Any] = {
    "p99": [1.0, 1.1, 1.0],
    "lost": [],
    "failed": 0,
    "exit_code": 0,
    "memory": [2**20] * 20,
}
LATE = {"opened": 11.0, "partly": False}
EARLY = {"opened": 9.0, "partly": False}


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, None),
        ({"memory": [2**25] * 19 + [2**20]}, None),
        ({"memory": [2**20] * 19 + [2**25]}, "memory grows by, MiB"),
        ({"p99": [1.0, 1.9, 1.0]}, None),
        ({"p99": [1.0, 2.1, 1.0]}, "worst window's p99, ms"),
        ({"p99": [10.0, 14.9, 10.0]}, None),
        ({"p99": [10.0, 15.1, 10.0]}, "worst window's p99, ms"),
        ({"failed": 1}, "failed or unanswered requests"),
        ({"lost": [EARLY]}, "failed or unanswered requests"),
        ({"lost": [LATE]}, "connections never taken after SIGTERM"),
        ({"exit_code": -9}, "exit status after SIGTERM"),
        ({"exit_code": None}, "exit status after SIGTERM"),
        ({"exit_code": 5}, "exit status after SIGTERM"),
    ],
)
def test_each_goal_can_be_missed(change: dict[str, Any], missed: str | None) -> None:
    run = GOOD | change
    stream = {
        "windows": [{"p99_ms": value} for value in run["p99"]], "lost": run["lost"], "failed": run["failed"],
    }  # fmt: skip
    found = Soak(1000.0, 700.0, stream, 10.0, run["exit_code"], run["memory"])
    assert [goal["goal"] for goal in found.goals() if not goal["met"]] == ([missed] if missed else [])
