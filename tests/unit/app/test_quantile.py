"""Quantiles as benchmarks tell them."""

from benchmarks.runtime import client


def test_the_nearest_rank() -> None:
    """The worked example of the method in Wikipedia's article on percentiles, and one percent of a hundred each."""
    ordered = [15.0, 20.0, 35.0, 40.0, 50.0]
    assert [client.quantile(ordered, share) for share in (0.05, 0.3, 0.4, 0.5, 1.0)] == [
        15.0,
        20.0,
        20.0,
        35.0,
        50.0,
    ]
    hundred = [float(number) for number in range(1, 101)]
    assert [client.quantile(hundred, share / 100) for share in range(1, 101)] == hundred
    assert client.quantile([1.0, 2.0], 0.0) == 1.0
    assert client.quantile([], 0.5) == 0.0
