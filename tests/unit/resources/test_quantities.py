"""Durations and sizes: what is read, what is refused, and that all that is written reads as the same value."""

import datetime
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from podium.resources.quantities import (
    Duration,
    Size,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

YEAR = 365 * 86400
MICROSECONDS = st.integers(0, YEAR * 10**6)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25), ("30s", 30), ("1m30s", 90), ("24h", 86400), ("7d", 604_800), ("1.5h", 5400), ("0s", 0),
        ("365d", YEAR), (90, 90), (0.1, 0.1), ("1000.5s", 1000.5), ("0.000001ms", 0),
    ],
)  # fmt: skip
def test_a_duration_is_read_in_any_unit(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value",
    ["", "30", "30 s", "s", "-1s", "1e3s", "1_0s", "30s\n", "1w", "٣s", True, None, [], b"1s", float("nan")],
    ids=repr,
)
def test_what_is_no_duration_is_refused_with_an_example(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    "value", [-1, -0.001, "365d1ms", YEAR + 1, float("inf"), 10**400], ids=lambda value: str(value)[:9]
)
def test_a_duration_lies_between_nothing_and_a_year(value: object) -> None:
    with pytest.raises(ValueError, match=r"between 0s and 365d"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.25, "250ms"), (1, "1s"), (90, "90s"), (60, "1m"), (3600, "1h"), (86400, "1d"), (1.1, "1100ms"),
        (1000.5, "1000500ms"), (0.000001, "0.001ms"), (2_000_000.5, "2000000.5s"),
    ],
)  # fmt: skip
def test_a_duration_is_written_in_the_largest_unit_that_fits(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(MICROSECONDS)
@example(1_000_500_000)
@example(YEAR * 10**6 - 1)
@example(999_999_999_999)
def test_every_duration_reads_as_it_was_written(microseconds: int) -> None:
    """What is stored is text: one that could not be read again would make its object unreadable."""
    seconds = parse_duration(microseconds / 10**6)
    assert parse_duration(format_duration(seconds)) == seconds
    assert datetime.timedelta(seconds=seconds) == datetime.timedelta(microseconds=microseconds)


@given(st.floats(0, YEAR, allow_nan=False))
def test_any_number_of_seconds_is_kept_to_the_microsecond(seconds: float) -> None:
    kept = parse_duration(seconds)
    assert abs(kept - seconds) <= 1e-6
    assert parse_duration(format_duration(kept)) == kept


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512Mi", 2**29), ("2Gi", 2**31), ("500M", 500_000_000), ("1.5Ki", 1536), ("1.001k", 1001), ("0", 0), (77, 77),
        ("1024Ti", 2**50), ("0.5", 0),
    ],
)  # fmt: skip
def test_a_size_is_read_exactly_in_any_unit(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2GB", "expected a size"), ("2 Gi", "expected a size"), ("-1", "expected a size"), ("", "expected a size"),
        (2.0, "expected a size"), (True, "expected a size"), ("٣Mi", "expected a size"), ("1Mi\n", "expected a size"),
        (-1, "between 0 and 1024Ti"), (2**50 + 1, "between 0 and 1024Ti"), ("1025Ti", "between 0 and 1024Ti"),
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_size(value)


@given(st.one_of(st.integers(0, 2**50), st.integers(0, 2**20).map(lambda n: n * 2**30)))
@example(2**50)
@example(1_100_000_000_000_001)
def test_every_size_reads_as_it_was_written(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_a_size_is_written_in_the_largest_binary_unit_that_fits() -> None:
    assert [format_size(size) for size in (0, 123, 1024, 3 * 2**20, 2**31, 2**50)] == [
        "0", "123", "1Ki", "3Mi", "2Gi", "1024Ti",
    ]  # fmt: skip


@given(MICROSECONDS, st.integers(0, 2**50))
def test_what_is_written_fits_the_published_pattern(microseconds: int, size: int) -> None:
    for kind, value in ((Duration, microseconds / 10**6), (Size, size)):
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        text = adapter.dump_python(adapter.validate_python(value))
        assert re.search(adapter.json_schema()["pattern"], text), text


@pytest.mark.parametrize("kind", [Duration, Size])
def test_the_published_examples_are_read_and_written_as_they_are(kind: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for example_ in adapter.json_schema()["examples"]:
        assert adapter.dump_python(adapter.validate_python(example_)) == example_
