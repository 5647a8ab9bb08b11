"""Pure decisions about a rollout: is the candidate worse, and is it certainly good enough?

Called by the control plane, which scrapes the gateways and stores what this package returns. No input or output,
no clock: the same evidence gives the same verdict. docs/canary-statistics.md says which tests are used and what
they guarantee.
"""

from podium.analysis.bets import fewest_errors, log_e_above, log_e_share, tolerated_share
from podium.analysis.counters import ENVOY_COUNTERS, Counters, arm_counters, threshold_edge
from podium.analysis.evidence import ArmCounts, Buckets, Evidence, Liveness, Window
from podium.analysis.findings import Finding
from podium.analysis.margins import Stretch, log_e_within, more_requests, upper_bound
from podium.analysis.quantiles import QuantileBounds, quantile_bounds, quantile_estimate
from podium.analysis.settings import (
    THRESHOLD_METRICS,
    AnalysisSettings,
    Assignment,
    LatencyMetric,
    PlainThreshold,
    QuantileMetric,
    RateMetric,
)
from podium.analysis.verdict import Decision, Verdict, judge, judge_evidence, replay
from podium.analysis.windows import (
    INCIDENT_SECONDS,
    Memory,
    Snapshot,
    compact,
    observe,
    windows_from_snapshots,
)

__all__ = [
    "ENVOY_COUNTERS",
    "INCIDENT_SECONDS",
    "THRESHOLD_METRICS",
    "AnalysisSettings",
    "ArmCounts",
    "Assignment",
    "Buckets",
    "Counters",
    "Decision",
    "Evidence",
    "Finding",
    "LatencyMetric",
    "Liveness",
    "Memory",
    "PlainThreshold",
    "QuantileBounds",
    "QuantileMetric",
    "RateMetric",
    "Snapshot",
    "Stretch",
    "Verdict",
    "Window",
    "arm_counters",
    "compact",
    "fewest_errors",
    "judge",
    "judge_evidence",
    "log_e_above",
    "log_e_share",
    "log_e_within",
    "more_requests",
    "observe",
    "quantile_bounds",
    "quantile_estimate",
    "replay",
    "threshold_edge",
    "tolerated_share",
    "upper_bound",
    "windows_from_snapshots",
]
