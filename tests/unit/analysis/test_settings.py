"""Settings say what is wrong with them, and survive JSON."""

import json
from typing import Any

import pytest

from podium.analysis import AnalysisSettings, LatencyMetric, PlainThreshold, QuantileMetric, RateMetric


def test_settings_survive_json() -> None:
    settings = AnalysisSettings(
        alpha=0.1,
        error_rate=RateMetric(0.2, 0.005),
        refusal_rate=None,
        latency=LatencyMetric(250.0, compared=False),
        quantile=QuantileMetric(0.95),
        thresholds=(PlainThreshold("error_rate", 0.05), PlainThreshold("p95_ms", 300, 20)),
        on_inconclusive="rollback",
    )
    assert AnalysisSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert AnalysisSettings.from_dict({}) == AnalysisSettings()


def test_alpha_is_split_over_the_comparisons_that_are_on() -> None:
    assert AnalysisSettings().metric_alpha == 0.05 / 2
    assert AnalysisSettings(latency=LatencyMetric(9), quantile=QuantileMetric()).metric_alpha == 0.05 / 4
    assert AnalysisSettings(latency=LatencyMetric(9, compared=False)).comparisons == 2
    assert AnalysisSettings(error_rate=None, refusal_rate=None).metric_alpha == 0.05


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"alpha": 0}, r"alpha: must be a number between 0 and 0.5 \(both excluded\), not 0"),
        ({"alpha": "0.05"}, "alpha: must be a number"),
        ({"alpha": float("nan")}, "alpha: must be a number"),
        ({"min_requests": 0}, "min_requests: must be a number between 1 and"),
        ({"min_requests": True}, "min_requests"),
        ({"warmup_seconds": -1}, "warmup_seconds"),
        (
            {"on_inconclusive": "shrug"},
            "on_inconclusive: must be one of hold, promote, rollback, not 'shrug'",
        ),
        ({"assignment": "session"}, "assignment: must be one of request, user, copy"),
        (
            {"error_rate": {"absolute_margin": 0}},
            r"absolute_margin: must be a number between 0 and 1 \(0 excluded",
        ),
        (
            {"error_rate": {"margin": 0.1}},
            "error_rate: unknown field 'margin'; known: relative_margin, absolute",
        ),
        ({"latency": {"threshold_ms": -5}}, "threshold_ms"),
        ({"quantile": {"quantile": 1}}, "quantile: must be"),
        (
            {"thresholds": [{"metric": "errors", "max": 1}]},
            "unknown threshold metric 'errors'; known: error_rate,",
        ),
        ({"thresholds": [{"metric": "error_rate", "max": 1.5}]}, "max: must be a number between 0 and 1"),
        ({"thresholds": [{"metric": "p95_ms", "most": 1}]}, r"thresholds\[0\]: unknown field 'most'"),
        ({"alphas": 1}, "settings: unknown field 'alphas'; known: alpha,"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AnalysisSettings.from_dict(values)
