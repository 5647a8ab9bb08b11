"""Which users meet which variant: places on a line of 10,000, and the place of a user.

Called by `routes` and `route_preview`. A user's place never changes; a variant owns a stretch of the line. While the
variants and their order stay, it only grows where its share grows, so nobody leaves a variant whose share rises. Every
gateway comes to the same place by itself.
"""

from collections.abc import Sequence

import xxhash

from podium.planning.routing import WHOLE
from podium.resources.route import slot_width

Stretch = tuple[int, int, int]
"""(variant, from, to): basis points, `to` not included."""


def place_of(salt: str, key: str) -> int:
    """The user's place, as Envoy computes it: xxHash64 (seed 0) of `SALT:KEY`, modulo the sum of the weights.

    Source: Envoy's HashUtil and its weighted clusters with `use_hash_policy`; a test compares the two. The salt makes
    the places of one Route independent of those of another.
    """
    return int(xxhash.xxh64_intdigest(f"{salt}:{key}".encode())) % WHOLE


def stretches(shares: Sequence[int]) -> list[Stretch]:
    """The line, from 0 to 10,000, for these shares (basis points that sum to 10,000).

    Two variants after the first share a slot: one grows from its start, the next from its end. What they leave is the
    first variant's. Raises ValueError where a pair needs more than its slot (`Rule` refuses it before).
    """
    width = slot_width(len(shares))
    line: list[Stretch] = []
    at = 0
    for low in range(1, len(shares), 2):
        start, end = (low - 1) // 2 * width, (low + 1) // 2 * width
        from_start = shares[low]
        from_end = shares[low + 1] if low + 1 < len(shares) else 0
        if from_start + from_end > width:
            raise ValueError(f"variants {low} and {low + 1}: {from_start + from_end} of {width} basis points")
        line += [
            (0, at, start),
            (low, start, start + from_start),
            (0, start + from_start, end - from_end),
            (low + 1, end - from_end, end),
        ]
        at = end
    line.append((0, at, WHOLE))
    return [part for part in line if part[2] > part[1]]


def moves(before: Sequence[tuple[str, int]], after: Sequence[tuple[str, int]]) -> dict[tuple[str, str], int]:
    """Who meets another variant than before: (from, to) -> basis points of all users. Variants with their shares, in
    their order. A share that stays is no promise: places depend on the number and order of the variants too."""
    old, new = (
        [
            (start, end, variants[number][0])
            for number, start, end in stretches([share for _, share in variants])
        ]
        for variants in (before, after)
    )
    moved: dict[tuple[str, str], int] = {}
    for start, end, was in old:
        for first, last, now in new:
            width = min(end, last) - max(start, first)
            if width > 0 and was != now:
                moved[was, now] = moved.get((was, now), 0) + width
    return moved
