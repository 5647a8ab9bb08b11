"""Many writers, two servers, and an Envoy that refuses: the parts of benchmarks/concurrency.py, small."""

import pytest

from benchmarks import concurrency
from benchmarks.world import World

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]


def silent(text: str) -> None:
    """Nobody watches."""


def test_of_many_writers_exactly_one_wins(installed: World) -> None:
    row = concurrency.writers(installed, 50, 3, silent)
    assert row["right"], row


def test_two_server_processes_on_one_database_take_no_step_twice() -> None:
    row = concurrency.two_servers(15, 2, silent)
    assert row["right"], row
    assert row["server_processes"] == 2, "one server did nothing"


def test_what_envoy_refuses_ends_the_rollout_in_its_words_and_traffic_stays() -> None:
    row = concurrency.refused(60.0, silent)
    assert row["right"], row
    assert row["seconds_to_verdict"] < 5, row
