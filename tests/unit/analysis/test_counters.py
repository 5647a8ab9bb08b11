"""Envoy's raw counters become counts of client requests.

The rows of `RECORDED` are differences that Envoy 1.40 really showed in a run against replicas that did what the row
says, beside what the client saw.
"""

import math

import pytest

from podium.analysis import Counters, arm_counters, threshold_edge

INF = math.inf
RECORDED = {
    "all answered": (
        {"upstream_rq_total": 100, "upstream_rq_completed": 100},
        Counters(started=100, resolved=100),
    ),
    "40 x 503, each tried three times": (
        {
            "upstream_rq_total": 120,
            "upstream_rq_completed": 40,
            "upstream_rq_retry": 80,
            "upstream_rq_5xx": 40,
        },
        Counters(started=40, resolved=40, bad=40),
    ),
    "every other answer 503: 36 end well, 17 of them after a retry, 4 end in 503": (
        {
            "upstream_rq_total": 71,
            "upstream_rq_completed": 40,
            "upstream_rq_retry": 31,
            "upstream_rq_retry_success": 17,
            "upstream_rq_5xx": 4,
        },
        Counters(started=40, resolved=40, bad=21, saved=17),
    ),
    "refused": (
        {"upstream_rq_total": 40, "upstream_rq_completed": 40, "upstream_rq_4xx": 40},
        Counters(started=40, resolved=40, refused=40),
    ),
    "20 clients gave up": ({"upstream_rq_total": 20}, Counters(started=20, resolved=20, gave_up=20)),
    "20 clients gave up, 3 others are still waiting": (
        {"upstream_rq_total": 23, "upstream_rq_active": 3},
        Counters(started=23, resolved=20, gave_up=20),
    ),
    "30 answers of a small model, 12 of them handed on to a larger one": (
        {"upstream_rq_total": 30, "upstream_rq_completed": 18, "retry.upstream_rq_2xx": 12},
        Counters(started=30, resolved=30),
    ),
    "5 x 500 and 5 without a connection, all answered by a fallback's Deployment": (
        {
            "upstream_rq_total": 5,
            "upstream_rq_pending_failure_eject": 5,
            "upstream_cx_connect_fail": 5,
        },
        Counters(started=10, resolved=10, gave_up=10, connect_failures=5),
    ),
    "route timeout": (
        {
            "upstream_rq_total": 8,
            "upstream_rq_completed": 8,
            "upstream_rq_5xx": 8,
            "upstream_rq_timeout": 8,
        },
        Counters(started=8, resolved=8, bad=8, slow=8),
    ),
    "no healthy host": (
        {"upstream_rq_completed": 20, "upstream_rq_5xx": 20, "upstream_cx_none_healthy": 20},
        Counters(started=20, resolved=20, bad=20, connect_failures=20),
    ),
    "one of two replicas dead: 100 clients all get 200": (
        {
            "upstream_rq_total": 100,
            "upstream_rq_completed": 100,
            "upstream_rq_retry": 56,
            "upstream_rq_retry_success": 56,
            "upstream_rq_pending_failure_eject": 56,
            "upstream_cx_connect_fail": 56,
        },
        Counters(started=100, resolved=100, bad=56, saved=56, connect_failures=56),
    ),
    "both dead, four old connections are cut: 50 clients get 503": (
        {
            "upstream_rq_total": 4,
            "upstream_rq_completed": 50,
            "upstream_rq_retry": 100,
            "upstream_rq_5xx": 50,
            "upstream_rq_pending_failure_eject": 146,
            "upstream_cx_connect_fail": 146,
            "upstream_cx_destroy_remote_with_active_rq": 4,
        },
        Counters(started=50, resolved=50, bad=50, connect_failures=150),
    ),
    "10 clients gave up while the connection was being made": (
        {"upstream_rq_cancelled": 10},
        Counters(started=10, resolved=10, gave_up=10),
    ),
    "circuit breaker full: 9 x 503, one 504": (
        {
            "upstream_rq_pending_overflow": 9,
            "upstream_rq_completed": 10,
            "upstream_rq_retry": 1,
            "upstream_rq_5xx": 10,
            "upstream_rq_timeout": 1,
            "upstream_cx_connect_fail": 2,
            "upstream_rq_cancelled": 1,
            "upstream_rq_pending_failure_eject": 1,
        },
        Counters(started=10, resolved=10, bad=10, slow=1, connect_failures=2),
    ),
}


@pytest.mark.parametrize("case", RECORDED)
def test_what_envoy_showed(case: str) -> None:
    raw, expected = RECORDED[case]
    assert arm_counters(raw, threshold_ms=1000.0) == expected


def test_slow_requests_are_those_above_the_edge_and_the_timeouts() -> None:
    histogram = ((50.0, 60), (100.0, 90), (250.0, 97), (INF, 100))
    raw = {
        "upstream_rq_total": 103,
        "upstream_rq_completed": 103,
        "upstream_rq_5xx": 3,
        "upstream_rq_timeout": 3,
    }
    # 80 ms lies between two edges: above 100 ms are 100 - 90 = 10 requests, and three timed out.
    counted = arm_counters(raw, histogram, threshold_ms=80.0)
    assert (counted.slow, counted.latency_buckets) == (13, ())
    assert arm_counters(raw, histogram, threshold_ms=100.0).slow == 13
    assert arm_counters(raw, histogram, threshold_ms=100.5).slow == 3 + 3
    assert arm_counters(raw, histogram).slow == 0
    kept = arm_counters(raw, histogram, threshold_ms=80.0, keep_buckets=True).latency_buckets
    assert kept == ((50.0, 60), (100.0, 90), (250.0, 97), (INF, 103))


def test_a_threshold_above_all_edges_is_an_error_that_names_the_highest() -> None:
    assert threshold_edge([1.0, 5.0, INF], 2.0) == 5.0
    with pytest.raises(ValueError, match=r"threshold_ms.*highest is 5 ms.*add an edge"):
        threshold_edge([1.0, 5.0, INF], 6.0)


@pytest.mark.parametrize(
    ("raw", "histogram", "words"),
    [
        (
            {"upstream_rq_totals": 1},
            (),
            "unknown Envoy counter 'upstream_rq_totals'; known: upstream_rq_total,",
        ),
        ({"upstream_rq_total": -1}, (), "upstream_rq_total: a counter can't be negative"),
        ({}, ((5.0, 1), (1.0, 1), (INF, 1)), "edges must ascend"),
        ({}, ((5.0, 1),), "end with infinity"),
    ],
)
def test_bad_input_is_named(
    raw: dict[str, int], histogram: tuple[tuple[float, int], ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        arm_counters(raw, histogram)


def test_counters_survive_json() -> None:
    counters = arm_counters(
        {"upstream_rq_total": 3}, ((1.0, 1), (INF, 2)), threshold_ms=1.0, keep_buckets=True
    )
    assert Counters.from_dict(counters.to_dict()) == counters
