"""The latencies that Envoy tells apart: its histogram edges, and which edge stands for a threshold.

Called by `bootstrap` and `stats`; the agent names the edge in its samples. Envoy's default edges (10, 25, 50, 100 ms)
cannot show a 20 % change of the 99th percentile.
"""

import bisect

EDGES_MS = (
    0.5, 1, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 100, 125, 150, 200, 250, 300, 400, 500, 750,
    1000, 1500, 2000, 3000, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000,
)  # fmt: skip
"""Upper edges in milliseconds."""


def edge_for(threshold: float) -> float:
    """The edge in seconds that stands for a threshold in seconds: the smallest edge that is not below it.

    Requests counted as slow are those above the edge, so a threshold between two edges is read as the higher one: it
    never calls a request slow that was within the threshold. Above the last edge (1 h), the last edge.
    """
    place = bisect.bisect_left(EDGES_MS, threshold * 1000)
    return EDGES_MS[min(place, len(EDGES_MS) - 1)] / 1000
