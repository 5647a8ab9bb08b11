"""LightGBM models from their text files, as a native Booster: neither scikit-learn nor pandas is needed.

The input is one FP64 tensor `input` of shape [-1, features], or one tensor per column, as the model always knows its
columns' names. A missing value is null (NaN).

A model that was trained on a pandas DataFrame with categorical columns keeps their categories in its file. It is then
asked by column only: the categorical ones are checked against these categories (null is a missing one), and each
travels as the number of its category, which is what LightGBM itself makes of a DataFrame.

The output is `predict`, what `Booster.predict` gives: the value, the probability, or one probability per class.
"""

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium_runtime.errors import ModelUnusable
from podium_runtime.flavors.columns import INPUT, matrix
from podium_runtime.signature import Category, Signature, TensorSpec
from podium_runtime.tensors import Array, datatype_of

PREDICT = "predict"
_HEADER_BYTES = 64 * 2**20


def load(folder: Path, entry: str, options: Mapping[str, Any], threads: int) -> "LightgbmModel":
    """Return the booster in the file `entry`, which predicts with `threads` threads."""
    import lightgbm

    booster = lightgbm.Booster(model_file=str(folder / entry))
    return LightgbmModel(booster, _infos(folder / entry), threads)


class LightgbmModel:
    """One booster. `infos` are the file's `feature_infos`, one text per feature."""

    rows_independent = True

    def __init__(self, booster: Any, infos: Sequence[str], threads: int) -> None:
        self._booster = booster
        self._threads = threads
        self.columns: Sequence[str] | None = tuple(booster.feature_name())
        self._categories = _categories(booster.pandas_categorical or [], infos, self.columns)
        self._codes = {
            name: {value: float(code) for code, value in enumerate(values)}
            for name, values in self._categories.items()
        }
        self.properties: Mapping[str, Any] = {"columns": list(self.columns)}

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        if self._codes:
            inputs = {
                name: self._coded(array, name) if name in self._codes else array
                for name, array in inputs.items()
            }
        # predict_disable_shape_check stays off: a wrong number of features is an error, not a guess.
        answer = self._booster.predict(matrix(inputs, self.columns), num_threads=self._threads)
        return {PREDICT: np.asarray(answer)}

    def infer_signature(self) -> Signature | None:
        """Return the inputs as the file tells them, and the output as a trial prediction of one row shows it."""
        columns = self.columns or ()
        trial: dict[str, Array]
        if not self._categories:
            trial = {INPUT: np.zeros((1, len(columns)))}
            inputs: tuple[TensorSpec, ...] = (TensorSpec(INPUT, "FP64", (-1, len(columns))),)
        else:
            inputs = tuple(self._column(name) for name in columns)
            trial = {
                spec.name: np.zeros(1)
                if spec.categories is None
                else np.array(spec.categories[:1], dtype=object)
                for spec in inputs
            }
        output = self.predict(trial, None)[PREDICT]
        outputs = (TensorSpec(PREDICT, str(datatype_of(output.dtype)), (-1, *output.shape[1:])),)
        return Signature(inputs, outputs)

    def framework(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("lightgbm", "numpy")}

    def _column(self, name: str) -> TensorSpec:
        values = self._categories.get(name)
        if values is None:
            return TensorSpec(name, "FP64", (-1,))
        kinds = {type(value) for value in values}
        datatype = {frozenset({bool}): "BOOL", frozenset({int}): "INT64"}.get(frozenset(kinds))
        if datatype is None:
            datatype = "BYTES" if kinds == {str} else "FP64"
        missing = (None,) if datatype == "BYTES" else ()
        return TensorSpec(name, datatype, (-1,), categories=(*values, *missing))

    def _coded(self, array: Array, name: str) -> Array:
        codes = self._codes[name]
        values = (v.decode() if isinstance(v, bytes) else v for v in array.reshape(-1).tolist())
        # As pandas' set_categories does: what is no category is missing.
        return np.array([codes.get(value, np.nan) for value in values])


def _categories(
    found: Sequence[Sequence[Category]], infos: Sequence[str], columns: Sequence[str]
) -> dict[str, tuple[Category, ...]]:
    """Return the categories by column.

    The file lists them in the order of its categorical columns, but names those nowhere; a column's `feature_infos`
    is `[lowest:highest]` for numbers, `0:1:2` for categories, and `none` for a column that no tree could use.
    """
    if not found:
        return {}
    places = [place for place, info in enumerate(infos) if not info.startswith("[") and info != "none"]
    if len(places) != len(found):
        unused = [columns[place] for place, info in enumerate(infos) if info == "none"]
        raise ModelUnusable(
            f"lightgbm: the file has categories for {len(found)} columns and shows {len(places)} of them; "
            f"train it without the columns that have one value only ({', '.join(unused[:10])})"
        )
    return {columns[place]: tuple(values) for place, values in zip(places, found, strict=True)}


def _infos(path: Path) -> list[str]:
    """Return the words after `feature_infos=` in the file's header."""
    with path.open("rb") as stream:
        for _ in range(100):
            line = stream.readline(_HEADER_BYTES)
            if line.startswith(b"feature_infos="):
                return line.removeprefix(b"feature_infos=").decode().split()
    raise ModelUnusable("lightgbm: the file's header has no feature_infos")
