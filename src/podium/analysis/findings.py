"""What a verdict found, metric by metric, in figures and in words. Data only.

Made by `metrics`, carried by `verdict`. Calls nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

State = Literal["worse", "within", "open", "off"]
"""worse: enough to roll back (or, for the share, to hold). within: proven to be inside the margin or limit.
open: neither yet. off: not judged, the words say why."""


def figure(value: float) -> float:
    """`value` to nine digits: what is below them may differ between processors, and decisions must not."""
    return float(f"{value:.9g}")


def from_log(log_e: float) -> float:
    """An e-value from its logarithm, cut off at 1e300."""
    return figure(math.exp(min(log_e, 690.0)))


@dataclass(frozen=True)
class Finding:
    """One metric's evidence.

    metric: error_rate, refusal_rate, slow_rate, p99_ms and the like, sample_ratio, limit:NAME, liveness.
    state: see `State`. words: one sentence with the figures.
    stable_events, stable_requests, candidate_events, candidate_requests: what was counted and compared.
    e_value, e_needed: the wealth of the bets against "no worse", and the wealth at which it is refuted.
    bound, margin: candidate minus stable is below `bound` (a share; for a quantile, a ratio minus 1), and must be
        below `margin` for the step to be passed. For a limit: the value and its maximum.
    more_requests: about how many more candidate requests until `within`, at the present rates; None: unknown, or
        never at these rates.
    fewest_errors: candidate errors that any valid test needs before it can roll back at the present share.
    """

    metric: str
    state: State
    words: str
    stable_events: int = 0
    stable_requests: int = 0
    candidate_events: int = 0
    candidate_requests: int = 0
    e_value: float | None = None
    e_needed: float | None = None
    bound: float | None = None
    margin: float | None = None
    more_requests: int | None = None
    fewest_errors: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` gives an equal object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**values)
