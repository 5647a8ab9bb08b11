"""Latencies as counts in buckets: 128 to each doubling, so that a quantile is wrong by less than one percent.

The layout is that of HdrHistogram (Gil Tene, https://github.com/HdrHistogram/HdrHistogram): equal buckets up to 256
units, and twice as wide after each doubling. Called by `generator`, and by `driver` to add up processes.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

UNIT = 1e-7
"""Seconds: a tenth of a microsecond."""
_BITS = 7
_LONGEST = 2**53


class Histogram:
    """Counts of latencies in seconds. `least` and `most` are exact."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.count = 0
        self.total = 0.0
        """Seconds."""
        self.least = math.inf
        self.most = 0.0

    def add(self, latencies: Iterable[float]) -> None:
        """Seconds each; less than nothing counts as nothing."""
        values = [max(0.0, value) for value in latencies]
        if not values:
            return
        self.counts.update([_bucket(value) for value in values])
        self.count += len(values)
        self.total += math.fsum(values)
        self.least, self.most = min(self.least, *values), max(self.most, *values)

    def merge(self, other: "Histogram") -> None:
        """Adds what another one counted."""
        self.counts.update(other.counts)
        self.count += other.count
        self.total += other.total
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def quantile(self, share: float) -> float:
        """Seconds that `share` (0 to 1) of all do not exceed, to less than one percent; 0 for none."""
        # Rounded: 0.07 * 100 is a little over 7, and the seventh is meant.
        wanted, seen = max(1, math.ceil(round(share * self.count, 6))), 0
        if wanted >= self.count:
            return self.most
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                low, high = edges(bucket)
                return min(max((low + high) / 2, self.least), self.most)
        return self.most

    def between(self, low: float, high: float) -> int:
        """How many took `low` or longer and less than `high` seconds, to the bucket."""
        return sum(count for bucket, count in self.counts.items() if low <= sum(edges(bucket)) / 2 < high)

    def document(self) -> dict[str, object]:
        """For another process."""
        least = self.least if self.count else 0.0
        return {
            "counts": {str(bucket): count for bucket, count in self.counts.items()},
            "total": self.total,
            "least": least,
            "most": self.most,
        }

    @classmethod
    def parse(cls, document: Mapping[str, object]) -> "Histogram":
        """What `document` made."""
        made, counts = cls(), document["counts"]
        assert isinstance(counts, dict)  # noqa: S101 - our own process made it
        made.counts.update({int(bucket): int(count) for bucket, count in counts.items()})
        made.count = sum(made.counts.values())
        made.total, made.most = float(str(document["total"])), float(str(document["most"]))
        made.least = float(str(document["least"])) if made.count else math.inf
        return made


def _bucket(seconds: float) -> int:
    value = min(int(seconds / UNIT), _LONGEST)
    shift = max(0, value.bit_length() - _BITS - 1)
    return (shift << _BITS) + (value >> shift)


def edges(bucket: int) -> tuple[float, float]:
    """Seconds from which and up to which a bucket counts."""
    shift = max(0, (bucket >> _BITS) - 1)
    first = bucket - (shift << _BITS)
    return (first << shift) * UNIT, ((first + 1) << shift) * UNIT
