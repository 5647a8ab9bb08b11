"""Twenty seconds of steady load on one replica, then SIGTERM under it; `make bench-soak` does ten minutes."""

import signal

import pytest

from benchmarks.runtime.soak import GROWTH, soak

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
