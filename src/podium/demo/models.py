"""The four models of the story, trained here and now on data that scikit-learn carries.

The task: is a tumour benign? 30 measurements, 569 patients (Breast Cancer Wisconsin, Street, Wolberg & Mangasarian
1993). Live traffic has missing measurements, as real traffic does; training data here has none, which is how version 2
slips through its author's hands. Nothing is injected: the failures are the models' own.
"""

import pickle
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from podium.resources.errors import Unavailable

SEED = 20
MISSING_SHARE = 0.25
"""Of the requests, this share lacks one measurement or more."""
SLOW_TREES = 3000


@dataclass(frozen=True)
class Candidate:
    """One version to push. `auc` is measured on patients that it was not trained on, with nothing missing."""

    title: str
    path: Path
    auc: float


@dataclass(frozen=True)
class Lesson:
    """What the demo needs: the versions in order, and bodies of requests."""

    versions: list[Candidate]
    bodies: list[bytes]


def train(folder: Path) -> Lesson:
    """Fit the four models and write them to `folder`. Raises Unavailable where scikit-learn is not installed."""
    try:
        from sklearn.datasets import load_breast_cancer
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise Unavailable(
            "the demo trains its models with scikit-learn, which is not installed",
            next_step="pip install 'podium[demo]'",
        ) from None
    data = load_breast_cancer()
    train_x, live_x, train_y, live_y = train_test_split(
        data.data, data.target, test_size=0.4, random_state=SEED
    )
    versions = []
    for number, (title, model) in enumerate(_models(), start=1):
        model.fit(train_x, train_y)
        path = folder / f"v{number}" / "model.pkl"
        path.parent.mkdir(parents=True)
        path.write_bytes(pickle.dumps(model))
        auc = float(roc_auc_score(live_y, model.predict_proba(live_x)[:, 1]))
        versions.append(Candidate(title, path, auc))
    return Lesson(versions, _bodies([[float(value) for value in row] for row in live_x]))


def _models() -> list[tuple[str, Any]]:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    linear = LogisticRegression(max_iter=500, random_state=SEED)
    forest = RandomForestClassifier(n_estimators=SLOW_TREES, random_state=SEED, n_jobs=1)
    return [
        (
            "median imputer + linear model",
            make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), linear),
        ),
        (
            "linear model, the imputer forgotten",
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, C=0.5)),
        ),
        (f"imputer + {SLOW_TREES:,} trees", make_pipeline(SimpleImputer(strategy="median"), forest)),
        (
            "boosted trees that take missing values",
            HistGradientBoostingClassifier(max_iter=60, random_state=SEED),
        ),
    ]


def _bodies(rows: list[list[float]]) -> list[bytes]:
    """Requests of one patient each; some measurements are missing (`null`, which the protocol reads as NaN)."""
    chance = random.Random(SEED)  # noqa: S311 - which measurements are missing is no secret
    bodies = []
    for row in rows:
        values: list[float | None] = list(row)
        if chance.random() < MISSING_SHARE:
            for index in chance.sample(range(len(values)), k=chance.randint(1, 3)):
                values[index] = None
        tensor = {"name": "input", "shape": [1, len(values)], "datatype": "FP64", "data": values}
        bodies.append(orjson.dumps({"inputs": [tensor]}))
    return bodies
