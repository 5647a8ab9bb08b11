"""No request fails while a real installation is rolled out, killed, restarted and upgraded under load.

The scenarios are those of benchmarks/availability.py, which runs them at full rate.
"""

import random

import pytest

from benchmarks import disruptions
from benchmarks.availability import SCENARIOS
from benchmarks.disruptions import Disruption
from benchmarks.world import World

RATE = 120.0
OUTAGE = frozenset({"Envoy killed", "Envoy killed, no server"})
ANSWERS_WITHIN = 10.0
"""Seconds; 0.1 on an idle machine, where nothing else competes for two cores."""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in OUTAGE])
def test_no_request_is_lost(installed: World, name: str) -> None:
    disruptions.scale(installed, 2 if "1 of 2" in name else 1)
    seen = disruptions.under_load(installed, SCENARIOS[name], rate=RATE)
    assert seen.requests > 100
    assert not seen.failures, seen.words


@pytest.mark.parametrize("name", sorted(OUTAGE))
def test_envoy_comes_back_by_itself(installed: World, name: str) -> None:
    disruptions.scale(installed, 1)
    note = SCENARIOS[name](installed)
    assert float(note.split()[2]) < ANSWERS_WITHIN, note


def test_a_rollout_survives_the_server_at_any_moment(installed: World) -> None:
    """Five kills at random moments of one rollout: it takes each step once, and no request fails."""
    disruptions.scale(installed, 1)
    moments = random.Random(5)

    def five_times(world: World) -> str:
        return disruptions.server_killed_often(world, [moments.uniform(0, 1.5) for _ in range(5)])

    disruption: Disruption = five_times
    seen = disruptions.under_load(installed, disruption, rate=60.0)
    assert not seen.failures, seen.words
