"""What is measured next of a version, and what follows from the figures."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.planning import profiles
from podium.planning.profiles import Budget, Measured
from podium.resources.deployment import DeploymentSpec
from podium.resources.kinds import parse_applied
from podium.resources.profile import ProfilePoint

MIB = 2**20


def point(**changes: Any) -> ProfilePoint:
    p50 = changes.get("p50_ms", 2.0)
    base: dict[str, Any] = {
        "rows": 1, "connections": 1, "requests": 1000, "failed": 0, "seconds": 2.0, "per_second": 500.0,
        "p50_ms": p50, "p99_ms": 2 * p50, "max_ms": 3 * p50, "memory": 100 * MIB,
    }  # fmt: skip
    return ProfilePoint(**{**base, **changes})


def batch(rows: int, p50_ms: float, **changes: Any) -> ProfilePoint:
    return point(rows=rows, p50_ms=p50_ms, per_second=1000 / p50_ms, **changes)


def check(rate: float, p99_ms: float, **changes: Any) -> ProfilePoint:
    return point(**{"rate": rate, "per_second": rate, "p99_ms": p99_ms, "requests": int(10 * rate), "seconds": 10.0,
                    **changes})  # fmt: skip


def measured(**changes: Any) -> Measured:
    base: dict[str, Any] = {
        "model": "churn", "version": "3", "cpus": 1, "batches": [batch(1, 2), batch(2, 2.1), batch(4, 2.3)],
        "load": [point(), point(connections=2, per_second=800), point(connections=4, per_second=1000, p99_ms=12)],
        "checks": [check(700, 9)], "memory_peak": 300 * MIB, "start_seconds": 3.0, "cores": 8,
    }  # fmt: skip
    return Measured(**{**base, **changes})


def test_batches_go_on_while_they_pay() -> None:
    points: list[ProfilePoint] = []
    asked = []
    while (rows := profiles.next_rows(points, None, 2.0)) is not None:
        asked.append(rows)
        # Up to 16 rows cost nothing, from there on each costs as much as the others.
        points.append(batch(rows, 2.0 * max(1, rows / 16)))
    assert asked == [1, 2, 4, 8, 16, 32, 64]
    assert profiles.choose_batch(points, None)[0] == 16


def test_a_batch_must_fit_twice_into_the_wished_latency() -> None:
    points = [batch(1, 4), batch(2, 4.5), batch(4, 6), batch(8, 9), batch(16, 15)]
    assert profiles.choose_batch(points, None)[0] == 16
    rows, words = profiles.choose_batch(points, 25.0)
    assert rows == 4
    assert "wished latency" in words
    assert profiles.next_rows(points[:4], 25.0, 2.0) is None, "eight rows were too slow already"
    assert profiles.choose_batch(points, 9.0)[0] == 1, "one row stays, whatever it takes"


def test_where_batches_do_not_pay_the_batch_is_one() -> None:
    points = [batch(rows, 2.0 * rows) for rows in (1, 2, 4)]
    assert profiles.choose_batch(points, None) == (
        1,
        "batches of one row: larger ones give no more rows per second",
    )
    assert profiles.next_rows(points, None, 2.0) is None


def test_batches_that_failed_are_not_proposed() -> None:
    points = [batch(1, 2), batch(2, 2), batch(4, 2, failed=3)]
    assert profiles.choose_batch(points, None)[0] == 2
    assert profiles.next_rows(points, None, 2.0) is None


def test_connections_go_on_until_nothing_is_gained_or_the_latency_is_far_past() -> None:
    points: list[ProfilePoint] = []
    asked = []
    while (count := profiles.next_connections(points, None, 2.0)) is not None:
        asked.append(count)
        points.append(point(connections=count, per_second=min(count * 300.0, 1200.0)))
    assert asked == [1, 2, 4, 8, 16]
    assert profiles.next_connections([point(p99_ms=90.0)], 40.0, 2.0) is None
    assert profiles.next_connections([point(p99_ms=70.0)], 40.0, 2.0) == 2
    assert profiles.next_connections([point(p50_ms=400.0)], None, 2.0) is None, "too few answers would fit"


def test_capacity_keeps_the_latency_and_counts_no_failures() -> None:
    points = [
        point(per_second=500, p99_ms=5), point(per_second=900, p99_ms=30), point(per_second=1200, p99_ms=80),
        point(per_second=2000, p99_ms=10, failed=1),
    ]  # fmt: skip
    assert profiles.capacity(points, None) == points[2]
    assert profiles.capacity(points, 50.0) == points[1]
    assert profiles.capacity(points, 1.0) is None


def test_a_check_that_does_not_hold_is_tried_lower_and_twice_at_most() -> None:
    load = [point(per_second=1000.0, p99_ms=10)]
    checks: list[ProfilePoint] = []
    rates = []
    while (rate := profiles.next_check(checks, load, 20.0)) is not None:
        rates.append(rate)
        checks.append(check(rate, 50.0))
    assert rates == pytest.approx([700.0, 490.0, 343.0])
    assert profiles.next_check([check(700, 15.0)], load, 20.0) is None
    assert profiles.next_check([], load, 5.0) is None, "without capacity there is nothing to try"


def test_a_check_holds_only_with_all_answers_in_time() -> None:
    assert profiles.holds(check(100, 10), 20.0)
    assert not profiles.holds(check(100, 25), 20.0)
    assert not profiles.holds(check(100, 10, failed=1), 20.0)
    assert not profiles.holds(check(100, 10, per_second=60.0, requests=600), None), "it fell behind"
    assert not profiles.holds(check(100, 0, per_second=0.0, requests=0), None)
    assert profiles.holds(check(2, 10, per_second=1.6, requests=16), None), (
        "16 of 20 is chance, not falling behind"
    )


@given(st.integers(0, 2**45))
def test_memory_has_room_and_round_steps(peak: int) -> None:
    proposed = profiles.memory_for(peak)
    assert proposed >= 1.3 * peak + 128 * MIB
    assert proposed % (64 * MIB) == 0
    assert proposed < 1.3 * peak + 192 * MIB + 1


def test_the_proposal_is_a_deployment_that_can_be_applied() -> None:
    proposal = profiles.propose(measured(), 2000.0, 20.0)
    assert (proposal.replicas, proposal.max_batch, proposal.memory) == (3, 4, 576 * MIB)
    assert any("3 replicas for 2,000 requests/s" in words for words in proposal.reasons)
    spec = parse_applied(proposal.deployment).spec
    assert isinstance(spec, DeploymentSpec)
    assert (spec.replicas, spec.runtime.max_batch, spec.resources.memory) == (3, 4, 576 * MIB)
    assert (spec.model.name, spec.model.version) == ("churn", "3")


def test_without_a_rate_one_replica_and_what_it_carries() -> None:
    proposal = profiles.propose(measured(), None, None)
    assert (proposal.replicas, proposal.sustained) == (1, 700)


@given(st.floats(0.1, 1e6), st.floats(1, 1e4))
def test_replicas_carry_the_rate(rate: float, carried: float) -> None:
    proposal = profiles.propose(measured(checks=[check(carried, 9, requests=10**7)]), rate, None)
    assert proposal.replicas is not None
    assert proposal.replicas * carried >= rate * (1 - 1e-9)
    assert proposal.replicas == 1 or (proposal.replicas - 1) * carried < rate


def test_what_stands_in_the_way_is_said() -> None:
    slow = profiles.propose(measured(load=[point(p99_ms=80)], checks=[]), 100.0, 50.0)
    assert slow.replicas is None
    assert slow.deployment == {}
    assert "more than the wished 50 ms: no number of replicas mends that" in slow.reasons[-1]
    busy = profiles.propose(measured(checks=[check(343, 90)]), 100.0, 50.0)
    assert "not even 343 requests/s" in busy.reasons[-1]
    silent = profiles.propose(measured(load=[], checks=[]), None, None)
    assert "raise the budget" in silent.reasons[-1]
    failing = profiles.propose(measured(load=[point(failed=5)], checks=[]), None, None)
    assert "requests failed" in failing.reasons[-1]


def test_more_processors_than_there_are_and_slow_starts_are_seen() -> None:
    proposal = profiles.propose(measured(cores=2, start_seconds=90.0), 2000.0, 20.0)
    assert any("they need 3 processors; this machine has 2" in words for words in proposal.reasons)
    assert parse_applied(proposal.deployment).spec.runtime.startup_timeout == 180


@given(st.floats(2, 3600))
def test_the_series_fit_into_the_budget(seconds: float) -> None:
    budget = Budget(seconds)
    planned = len(profiles.ROWS) * budget.batch + len(profiles.CONNECTIONS) * budget.load + budget.reserved
    assert planned <= seconds
    left = seconds - planned + budget.reserved
    for done in range(profiles.CHECKS):
        left -= budget.check(left, done)
    assert left == pytest.approx(0.0, abs=1e-6)
