"""What a rollout's analysis looks at, and how strictly: the settings of `judge`.

Made by the control plane from a Deployment's analysis block; read by `verdict` and `metrics`. Calls nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, cast, get_args

OnInconclusive = Literal["hold", "promote", "rollback"]
Assignment = Literal["request", "user", "copy"]

# Figures that a plain threshold may name. Rates are shares (0..1) of the candidate's requests in the current
# step; quantiles are milliseconds and need latency buckets in the windows.
THRESHOLD_METRICS = ("error_rate", "refusal_rate", "slow_rate", "p50_ms", "p90_ms", "p95_ms", "p99_ms")


def _in_range(
    name: str, value: object, low: float, high: float, *, above: bool = False, open_ends: bool = False
) -> None:
    """Raise ValueError naming the field unless `value` is a finite number between the two ends.

    above: the lower end itself is excluded. open_ends: both are.
    """
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if (
        low < number < high
        or (number == high and not open_ends)
        or (number == low and not (open_ends or above))
    ):
        return
    bounds = f"between {low:g} and {high:g}"
    if open_ends or above:
        bounds += f" ({'both' if open_ends else f'{low:g}'} excluded)"
    raise ValueError(f"{name}: must be a number {bounds}, not {value!r}")


def _known(cls: type, name: str, values: Mapping[str, Any]) -> None:
    """Raise ValueError for a key that `cls` doesn't have, listing the known ones."""
    names = [item.name for item in fields(cls)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ValueError(f"{name}: unknown field {unknown[0]!r}; known: {', '.join(names)}")


@dataclass(frozen=True)
class RateMetric:
    """A share of requests that is compared between the two arms (errors or refusals).

    relative_margin: how much worse, as a factor minus one, the candidate may be before it is rolled back
        (0 = not at all, 0.2 = a fifth more errors are tolerated).
    absolute_margin: a step is passed only when the candidate's rate minus the stable revision's is proven to be
        below this (a share: 0.01 = one percentage point).
    """

    relative_margin: float = 0.0
    absolute_margin: float = 0.01

    def __post_init__(self) -> None:
        _in_range("relative_margin", self.relative_margin, 0, 100)
        _in_range("absolute_margin", self.absolute_margin, 0, 1, above=True)


@dataclass(frozen=True)
class LatencyMetric:
    """The share of requests slower than `threshold_ms`, compared like a `RateMetric`.

    threshold_ms: milliseconds; requests are counted above the first histogram bucket edge at or over it.
    compared: False = slow requests are counted (for a plain threshold on slow_rate), but the arms not compared.
    """

    threshold_ms: float
    relative_margin: float = 0.0
    absolute_margin: float = 0.01
    compared: bool = True

    def __post_init__(self) -> None:
        _in_range("threshold_ms", self.threshold_ms, 0, 1e9, open_ends=True)
        _in_range("relative_margin", self.relative_margin, 0, 100)
        _in_range("absolute_margin", self.absolute_margin, 0, 1, above=True)


@dataclass(frozen=True)
class QuantileMetric:
    """A latency quantile compared between the arms by confidence sequences on bucket edges.

    quantile: which one (0.99 = p99).
    relative_margin: how much higher the candidate's may be (0.2 = a fifth) before it is rolled back.
    """

    quantile: float = 0.99
    relative_margin: float = 0.2

    def __post_init__(self) -> None:
        _in_range("quantile", self.quantile, 0, 1, open_ends=True)
        _in_range("relative_margin", self.relative_margin, 0, 100)


@dataclass(frozen=True)
class PlainThreshold:
    """A fixed limit on the candidate alone: no statistics, no guarantee against false alarms.

    metric: one of `THRESHOLD_METRICS`. max: the highest value that is still fine (a share, or milliseconds).
    min_requests: candidate requests in the step before the limit is looked at.
    """

    metric: str
    max: float
    min_requests: int = 100

    def __post_init__(self) -> None:
        if self.metric not in THRESHOLD_METRICS:
            known = ", ".join(THRESHOLD_METRICS)
            raise ValueError(f"metric: unknown threshold metric {self.metric!r}; known: {known}")
        _in_range("max", self.max, 0, 1 if self.metric.endswith("_rate") else 1e9)
        _in_range("min_requests", self.min_requests, 1, 1e12)


@dataclass(frozen=True)
class AnalysisSettings:
    """Everything that `judge` is told about how to decide.

    alpha: the chance, over the whole rollout and all metrics, that a candidate that is no worse is rolled back
        by the statistics; also, per metric, the chance that one outside its margin is let pass.
    error_rate, refusal_rate, latency, quantile: the comparisons; None = not compared.
    thresholds: plain limits, on top of the comparisons or instead of them. One on slow_rate needs `latency`, which
        says what slow is; without it that limit stays open and the last step is never passed.
    min_requests: candidate requests needed at the current weight before its step may be passed.
    warmup_seconds: requests in this time after a shift of weight are not counted.
    on_inconclusive: what the verdict becomes when the step's cap is reached without an answer.
    assignment: "request" when each request is sent to an arm by its own random draw; "user" under sticky
        routing, where proxy counters cannot be tested: then only liveness and thresholds judge. "copy" when the
        candidate gets copies of the stable revision's requests: compared as by "request", but the share is no draw.
    """

    alpha: float = 0.05
    error_rate: RateMetric | None = field(default_factory=RateMetric)
    refusal_rate: RateMetric | None = field(default_factory=RateMetric)
    latency: LatencyMetric | None = None
    quantile: QuantileMetric | None = None
    thresholds: tuple[PlainThreshold, ...] = ()
    min_requests: int = 100
    warmup_seconds: float = 0.0
    on_inconclusive: OnInconclusive = "hold"
    assignment: Assignment = "request"

    def __post_init__(self) -> None:
        _in_range("alpha", self.alpha, 0, 0.5, open_ends=True)
        _in_range("min_requests", self.min_requests, 1, 1e12)
        _in_range("warmup_seconds", self.warmup_seconds, 0, 1e7)
        for name, known in (("on_inconclusive", OnInconclusive), ("assignment", Assignment)):
            if getattr(self, name) not in get_args(known):
                choices = ", ".join(get_args(known))
                raise ValueError(f"{name}: must be one of {choices}, not {getattr(self, name)!r}")

    @property
    def comparisons(self) -> int:
        """How many comparisons share alpha (e-Bonferroni)."""
        enabled = (self.error_rate, self.refusal_rate, self.latency and self.latency.compared, self.quantile)
        return sum(bool(metric) for metric in enabled)

    @property
    def metric_alpha(self) -> float:
        """The part of alpha that each comparison may use up by false rollbacks."""
        return self.alpha / max(self.comparisons, 1)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` gives an equal object."""

        def plain(part: Any) -> Any:
            return None if part is None else {item.name: getattr(part, item.name) for item in fields(part)}

        out = plain(self)
        for name in ("error_rate", "refusal_rate", "latency", "quantile"):
            out[name] = plain(out[name])
        out["thresholds"] = [plain(limit) for limit in self.thresholds]
        return cast(dict[str, Any], out)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; missing fields take their defaults. Raises ValueError naming the field."""
        _known(cls, "settings", values)
        made: dict[str, Any] = dict(values)
        kinds: dict[str, type] = {"error_rate": RateMetric, "refusal_rate": RateMetric}
        kinds |= {"latency": LatencyMetric, "quantile": QuantileMetric}
        for name, kind in kinds.items():
            if made.get(name) is not None:
                _known(kind, name, made[name])
                made[name] = kind(**made[name])
        limits = []
        for index, limit in enumerate(made.get("thresholds", ())):
            _known(PlainThreshold, f"thresholds[{index}]", limit)
            limits.append(PlainThreshold(**limit))
        made["thresholds"] = tuple(limits)
        return cls(**made)
