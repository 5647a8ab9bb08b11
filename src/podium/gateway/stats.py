"""Counters of the two arms of each rollout under way, as Envoy has them: cumulative since its start.

Called by `agent` once per heartbeat and after each shift of weights. Calls `admin`, asking for the clusters of rollouts
under way only, so that the answer stays small with thousands of Deployments. What the counters mean is
`podium.analysis`'s to know.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from podium.gateway.admin import Admin

COUNTERS = (
    "upstream_rq_total",
    "upstream_rq_completed",
    "upstream_rq_active",
    "upstream_rq_retry",
    "upstream_rq_retry_success",
    "upstream_rq_5xx",
    "upstream_rq_4xx",
    "upstream_rq_timeout",
    "upstream_rq_pending_failure_eject",
    "upstream_rq_pending_overflow",
    "upstream_rq_cancelled",
    "upstream_cx_none_healthy",
    "upstream_cx_connect_fail",
    "upstream_cx_destroy_remote_with_active_rq",
    "retry.upstream_rq_2xx",
)
"""What `podium.analysis` reads; a test compares the two. It is not imported, because the numerical libraries behind it
would triple the time that an agent takes to be back."""
_LATENCY = "upstream_rq_time"
_CLUSTERS_PER_QUERY = 100
_NAME = re.compile(r"cluster\.(?P<cluster>[^.]+)\.(?P<stat>.+)")


async def read_counters(admin: Admin, clusters: Iterable[str]) -> dict[str, dict[str, Any]]:
    """cluster -> counter name -> value, and `buckets`: [[upper edge in ms, requests up to it], ...], ascending.

    Every cluster asked for is in the answer: one that has had no request counts 0 everywhere and has no buckets.
    Raises Unavailable while Envoy does not answer.
    """
    wanted = sorted(set(clusters))
    found: dict[str, dict[str, Any]] = {
        name: {**dict.fromkeys(COUNTERS, 0), "buckets": []} for name in wanted
    }
    stats = "|".join((*COUNTERS, _LATENCY))
    for start in range(0, len(wanted), _CLUSTERS_PER_QUERY):
        names = "|".join(re.escape(name) for name in wanted[start : start + _CLUSTERS_PER_QUERY])
        for stat in await admin.statistics(rf"^cluster\.({names})\.({stats})$"):
            if "histograms" in stat:
                _take_histograms(found, stat["histograms"])
            else:
                _take_value(found, stat)
    return found


def _take_value(found: Mapping[str, dict[str, Any]], stat: Mapping[str, Any]) -> None:
    parts = _NAME.fullmatch(stat["name"])
    if parts is not None and parts["cluster"] in found and parts["stat"] in COUNTERS:
        found[parts["cluster"]][parts["stat"]] = int(stat["value"])


def _take_histograms(found: Mapping[str, dict[str, Any]], histograms: Iterable[Mapping[str, Any]]) -> None:
    for histogram in histograms:
        parts = _NAME.fullmatch(histogram["name"])
        if parts is not None and parts["cluster"] in found and parts["stat"] == _LATENCY:
            found[parts["cluster"]]["buckets"] = [
                [float(bucket["upper_bound"]), int(bucket["cumulative"])] for bucket in histogram["buckets"]
            ]
