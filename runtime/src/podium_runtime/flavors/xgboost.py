"""XGBoost models from JSON or UBJSON files, as a native Booster: neither scikit-learn nor pandas is needed.

The input is one FP64 tensor `input` of shape [-1, features] (XGBoost itself computes in single precision), or one
tensor per column where the model knows its columns' names. A missing value is null (NaN), a categorical feature is
the number of its category.

Outputs are what the class that was saved would answer. A native Booster, an XGBRegressor or an XGBRanker: `predict`.
An XGBClassifier (its files say so): `predict`, the class's number, or 0 or 1 for each of several labels (INT64), and
`predict_proba`, unless it was trained to give classes only (`multi:softmax`). A file that was saved after
early stopping predicts with the best iteration, as the scikit-learn classes do, and a native Booster with all of its
trees, as `Booster.predict` does.
"""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium_runtime.flavors.columns import INPUT, matrix
from podium_runtime.signature import Signature, TensorSpec
from podium_runtime.tensors import Array, datatype_of

PREDICT = "predict"
PROBABILITY = "predict_proba"


def load(folder: Path, entry: str, options: Mapping[str, Any], threads: int) -> "XgboostModel":
    """Return the booster in the file `entry`, which predicts with `threads` threads."""
    import xgboost

    booster = xgboost.Booster(params={"nthread": threads})
    booster.load_model(folder / entry)
    # The file may carry the number of threads of the training.
    booster.set_param({"nthread": threads})
    return XgboostModel(booster, threads)


class XgboostModel:
    """One booster."""

    rows_independent = True

    def __init__(self, booster: Any, threads: int) -> None:
        self._booster = booster
        self._threads = threads
        learner = json.loads(booster.save_config())["learner"]
        self._objective = str(learner["objective"]["name"])
        # As XGBClassifier tells classes from labels: only classes exclude each other, and only they are counted.
        self._several_classes = int(learner["learner_model_param"]["num_class"]) > 1
        wrapper = json.loads(booster.attr("scikit_learn") or "{}")
        # Only trees predict without a DMatrix being made first. With dart that adds up in another order: the classes
        # predict so, a native Booster does not.
        kind = learner["gradient_booster"]["name"]
        self._inplace = kind == "gbtree" or (kind == "dart" and bool(wrapper))
        self._classifies = wrapper.get("_estimator_type") == "classifier"
        best = booster.attr("best_iteration")
        self._trees = (0, int(best) + 1) if wrapper and best is not None else (0, 0)
        self.columns: Sequence[str] | None = (
            None if booster.feature_names is None else tuple(booster.feature_names)
        )
        self._types = booster.feature_types
        self.properties: Mapping[str, Any] = {
            "objective": self._objective,
            **({"columns": list(self.columns)} if self.columns else {}),
        }

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        answer = self._raw(matrix(inputs, self.columns))
        if not self._classifies:
            return {PREDICT: answer}
        if self._objective == "multi:softmax":
            # Trained to give classes only: there are no probabilities in it.
            return {PREDICT: answer.astype(np.int64)}
        if answer.ndim == 1:
            # XGBClassifier: a probability above one half is class 1.
            label = (answer > 0.5).astype(np.int64)
            return {PREDICT: label, PROBABILITY: np.column_stack([1.0 - answer, answer])}
        if self._several_classes:
            return {PREDICT: answer.argmax(axis=1), PROBABILITY: answer}
        # One probability per label, each for itself: any number of labels may be true.
        return {PREDICT: (answer > 0.5).astype(np.int64), PROBABILITY: answer}

    def infer_signature(self) -> Signature | None:
        """Return one tensor of all features, and the outputs as a trial prediction of one row of zeros shows them."""
        features = int(self._booster.num_features())
        outputs = self.predict({INPUT: np.zeros((1, features))}, None)
        return Signature(
            (TensorSpec(INPUT, "FP64", (-1, features)),),
            tuple(
                TensorSpec(name, str(datatype_of(array.dtype)), (-1, *array.shape[1:]))
                for name, array in outputs.items()
            ),
        )

    def framework(self) -> dict[str, str]:
        import xgboost

        return {"xgboost": str(xgboost.__version__), "numpy": importlib.metadata.version("numpy")}

    def _raw(self, features: Array) -> Array:
        if self._inplace:
            return np.asarray(
                self._booster.inplace_predict(features, iteration_range=self._trees, validate_features=False)
            )
        import xgboost

        data = xgboost.DMatrix(
            features,
            feature_names=self._booster.feature_names,
            feature_types=self._types,
            nthread=self._threads,
        )
        return np.asarray(self._booster.predict(data, iteration_range=self._trees))
