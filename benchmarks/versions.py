"""Small real models to roll out, fitted here and now on scikit-learn's breast cancer data: 30 measurements.

Called by `world`. Requests are what live traffic would be: one patient each, some with measurements missing.
"""

import json
import pickle
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20
_MISSING = 0.25


@dataclass(frozen=True)
class Lesson:
    """Files of the versions by their role, and JSON bodies of requests."""

    files: dict[str, Path]
    bodies: list[bytes]


def train(folder: Path) -> Lesson:
    """`first` and `second` are good; `failing` lacks the imputer and raises where a measurement is missing."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    files = {}
    for role, model in _models().items():
        path = folder / role / "model.pkl"
        path.parent.mkdir(parents=True)
        path.write_bytes(pickle.dumps(model.fit(data.data, data.target)))
        files[role] = path
    return Lesson(files, _bodies([[float(value) for value in row] for row in data.data]))


def _models() -> dict[str, Any]:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def linear(strength: float) -> Any:
        return LogisticRegression(max_iter=500, C=strength, random_state=SEED)

    return {
        "first": make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), linear(1.0)),
        "second": make_pipeline(SimpleImputer(strategy="mean"), StandardScaler(), linear(0.5)),
        "failing": make_pipeline(StandardScaler(), linear(0.5)),
    }


def _bodies(rows: list[list[float]]) -> list[bytes]:
    chance = random.Random(SEED)
    bodies = []
    for row in rows:
        values: list[float | None] = list(row)
        if chance.random() < _MISSING:
            for index in chance.sample(range(len(values)), k=chance.randint(1, 3)):
                values[index] = None
        tensor = {"name": "input", "shape": [1, len(values)], "datatype": "FP64", "data": values}
        bodies.append(json.dumps({"inputs": [tensor]}).encode())
    return bodies
