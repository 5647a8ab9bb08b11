"""What is kept of a run always fits into a push."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from podium.registry.mlflow_source import Imported, _bounded
from podium.resources.requests import PushRequest

FILE = {"path": "MLmodel", "size": 1, "sha256": "0" * 64}
# Surrogates as well: a JSON answer can hold unpaired ones.
texts = st.text(st.characters(exclude_categories=()), max_size=30)
long_texts = st.integers(0, 400_000).map("x".__mul__)


@settings(max_examples=100)
@given(
    metrics=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    params=st.dictionaries(texts | long_texts, texts | long_texts, max_size=4),
    tags=st.dictionaries(texts, texts | long_texts | st.integers(), max_size=4),
    many=st.integers(0, 3000),
)
def test_what_is_kept_fits_into_a_push(
    tmp_path_factory: Any, metrics: dict[str, float], params: dict[str, str], tags: dict[str, Any], many: int
) -> None:
    params |= {f"p{number}": "v" * 100 for number in range(many)}
    kept = _bounded({"metrics": metrics, "params": params, "tags": tags})
    imported = Imported(
        path=tmp_path_factory.getbasetemp(), uri="models:/a/1", tracking_uri="http://h", **kept
    )
    request = PushRequest.model_validate(
        {"files": [FILE], "metrics": kept["metrics"], "lineage": imported.lineage()}
    )
    assert request.lineage["uri"] == "models:/a/1"
    assert all(params[name] == value for name, value in kept["params"].items())


def test_ordinary_runs_are_kept_whole() -> None:
    run: dict[str, dict[str, Any]] = {"metrics": {"auc": 0.9}, "params": {"C": "1.0"}, "tags": {"team": "ü"}}
    assert _bounded(run) == run
