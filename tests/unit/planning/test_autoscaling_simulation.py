"""The decision in a loop with replicas and a queue, as the benchmark plays it: it does not swing, and it gets there."""

import numpy as np
import pytest

from benchmarks.autoscaling.shapes import SHAPES, constant, noisy, recorded, step
from benchmarks.autoscaling.simulation import Conditions, autoscaled, oracle
from podium.resources.scaling import Scaling

CONDITIONS = Conditions()


def scaling(**target: object) -> Scaling:
    return Scaling.model_validate({"max": 12, "target": target or {"concurrency": 1}})


@pytest.mark.parametrize("target", [{"concurrency": 1}, {"requestsPerSecond": 6}, {"cpu": 60}])
def test_a_constant_load_is_met_once_and_left_alone(target: dict[str, object]) -> None:
    played = autoscaled(constant()[:2400], scaling(**target), CONDITIONS)
    assert played.turns <= 2, played.wanted[::15]
    assert 4 <= played.wanted[-1] <= 8
    assert played.too_slow(CONDITIONS.limit) < 0.05


def test_noise_of_half_the_mean_turns_it_a_few_times_at_most() -> None:
    played = autoscaled(noisy()[:2400], scaling(), CONDITIONS)
    assert played.turns <= 6, played.wanted[::15]
    assert played.too_slow(CONDITIONS.limit) < 0.05


def test_a_step_is_followed_up_and_down() -> None:
    played = autoscaled(step()[600:3000], scaling(), CONDITIONS)
    high, low = max(played.wanted), played.wanted[-1]
    assert high >= 8 > 3 >= low


def test_by_latency_it_grows_where_a_queue_stands_and_swings_no_more() -> None:
    played = autoscaled(constant()[:1200], scaling(p95="300ms"), CONDITIONS)
    assert played.turns <= 2, played.wanted[::15]
    assert played.wanted[-1] >= 4


def test_the_oracle_is_quick_and_cheap() -> None:
    """Else beating it would mean nothing."""
    rates = recorded()[:1200]
    best, ours = oracle(rates, scaling(), CONDITIONS), autoscaled(rates, scaling(), CONDITIONS)
    assert best.too_slow(CONDITIONS.limit) < 0.01
    assert best.replica_seconds < ours.replica_seconds


def test_shapes_are_whole_minutes_of_requests() -> None:
    for name, shape in SHAPES.items():
        rates = shape()
        assert len(rates) % 60 == 0, name
        assert np.all(rates >= 0), name
        assert 1 < rates.max() < 130, name
