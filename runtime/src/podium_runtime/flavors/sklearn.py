"""scikit-learn estimators from pickle, joblib or skops files.

The basis is one FP64 tensor `input` of shape [-1, n_features_in_]. An estimator that was trained on named columns
(`feature_names_in_`) may be asked column by column as well, one tensor [n] or [n, 1] each, of any datatype: it then
gets a pandas DataFrame, as in training. Where its transformers tell that some of the columns are texts or truth values,
and what the others are, it is asked by column only, each with its datatype and, where an encoder refuses unknown
values, its categories (`sklearn_columns`). Outputs are `predict` and, where there is one, `predict_proba`; both are
computed unless the request names only one.
"""

import importlib.metadata
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium_runtime.errors import ModelUnusable
from podium_runtime.flavors.sklearn_columns import blame, column_specs, known_columns
from podium_runtime.signature import Signature, TensorSpec, example_inputs
from podium_runtime.tensors import Array, datatype_of

INPUT = "input"
# What skops 0.16 asks about when every classifier, regressor and clusterer of scikit-learn 1.9 is fitted and saved.
_PARTS_OF_ESTIMATORS = (
    "numpy.dtype",
    "numpy.mean",
    "sklearn._loss.",
    "sklearn.calibration._",
    "sklearn.cluster._",
    "sklearn.ensemble._hist_gradient_boosting.",
    "sklearn.gaussian_process.",
    "sklearn.metrics._dist_metrics.",
    "sklearn.neighbors._",
    "sklearn.neural_network._stochastic_optimizers.",
    "sklearn.tree._tree.",
)
_LIBRARIES_BY_ROW = ("catboost.", "lightgbm.", "sklearn.", "xgboost.")
_FORMATS = ("pickle", "joblib", "skops")


def load(folder: Path, entry: str, options: Mapping[str, Any], threads: int) -> "SklearnModel":
    """Return the estimator in the file `entry`, read as `options["format"]` says."""
    form = options.get("format", "pickle")
    path = folder / entry
    if form == "pickle":
        with path.open("rb") as stream:
            # Verified bytes, and in the sandboxed model process only.
            estimator = pickle.load(stream)  # noqa: S301
    elif form == "joblib":
        import joblib

        estimator = joblib.load(path)
    elif form == "skops":
        estimator = _load_skops(path)
    else:
        raise ModelUnusable(f"sklearn: options.format {form!r} is unknown; known are {', '.join(_FORMATS)}")
    return SklearnModel(estimator)


def _load_skops(path: Path) -> Any:
    """Load only types that skops trusts or that scikit-learn's own estimators contain.

    The list is ours, because a file must not be able to vouch for its own code.
    """
    import skops.io

    needed = skops.io.get_untrusted_types(file=path)
    untrusted = [name for name in needed if not name.startswith(_PARTS_OF_ESTIMATORS)]
    if untrusted:
        raise ModelUnusable(
            f"sklearn: the skops file needs types that are not trusted: {', '.join(untrusted)}; "
            "replace them, or push the model as joblib or as a folder with a class of your own"
        )
    return skops.io.load(path, trusted=needed)


class SklearnModel:
    """One estimator (or pipeline) with a `predict` method."""

    def __init__(self, estimator: Any) -> None:
        if not callable(getattr(estimator, "predict", None)):
            raise ModelUnusable(f"sklearn: a {type(estimator).__name__} has no predict method")
        self._estimator = estimator
        self._features: int | None = _attribute(estimator, "n_features_in_")
        names = _attribute(estimator, "feature_names_in_")
        self.columns: Sequence[str] | None = None if names is None else tuple(str(name) for name in names)
        self._pandas = _pandas() if self.columns else None
        self._known = known_columns(estimator, self.columns or ())
        self._classes = _attribute(estimator, "classes_")
        self._has_probability = hasattr(estimator, "predict_proba")
        self._steps, self._last = _pipeline_steps(estimator)
        self.rows_independent: bool | None = by_row(estimator)
        self.properties: Mapping[str, Any] = self._describe()

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        features = self._features_of(inputs)
        try:
            if self.columns and self._pandas is None:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="X does not have valid feature names")
                    return self._outputs(features, wanted)
            return self._outputs(features, wanted)
        except Exception:
            # The signature cannot say everything (columns whose type is unknown, one tensor for all of them): what an
            # estimator fails on for a value that it was never going to take is the request's fault, not the model's.
            blame(self._known, inputs, self.columns or ())
            raise

    def _outputs(self, features: Any, wanted: frozenset[str] | None) -> dict[str, Array]:
        label = wanted is None or "predict" in wanted
        probability = self._has_probability and (wanted is None or wanted != {"predict"})
        estimator = self._estimator
        if label and probability and self._steps is not None:
            # What Pipeline.predict and Pipeline.predict_proba do, with the steps before the last run once for both.
            for step in self._steps:
                features = step.transform(features)
            estimator = self._last
        outputs: dict[str, Array] = {}
        if label:
            outputs["predict"] = np.asarray(estimator.predict(features))
        if probability:
            outputs.update(_probabilities(estimator.predict_proba(features)))
        return outputs

    def infer_signature(self) -> Signature | None:
        """Return the signature from the columns or from `n_features_in_`, with outputs as a trial prediction of one
        made-up row shows them.

        Estimators that refuse such a row get outputs from `classes_` or none at all.
        """
        if self._features is None:
            return None
        by_column = column_specs(self._known, self.columns or ()) if self._pandas and self.columns else None
        features = by_column or (TensorSpec(INPUT, "FP64", (-1, self._features)),)
        try:
            outputs = self.predict(example_inputs(Signature(features, ())), None)
        except Exception:
            # Any exception means only that made-up values do not suit this estimator.
            return Signature(features, self._outputs_by_classes())
        specs = []
        for name, array in outputs.items():
            datatype = datatype_of(array.dtype)
            if datatype is None or array.ndim == 0:
                return Signature(features, ())
            specs.append(TensorSpec(name, datatype, (-1, *array.shape[1:])))
        return Signature(features, tuple(specs))

    def framework(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("scikit-learn", "numpy")}

    def _features_of(self, inputs: Mapping[str, Array]) -> Any:
        if self.columns is None:
            if len(inputs) != 1:
                raise ValueError(f"a model without column names takes one tensor, got {len(inputs)}")
            return next(iter(inputs.values()))
        single = inputs.get(INPUT) if len(inputs) == 1 and INPUT not in self.columns else None
        if self._pandas is not None:
            if single is not None:
                return self._pandas.DataFrame(single, columns=list(self.columns))
            return self._pandas.DataFrame(
                {name: self._values(name, inputs[name].reshape(-1)) for name in self.columns}
            )
        return np.column_stack([inputs[name] for name in self.columns]) if single is None else single

    def _values(self, name: str, array: Array) -> Array:
        known = self._known.get(name)
        if known is None or not known.by_nan or array.dtype.kind != "O":
            return array
        return np.array([np.nan if value is None else value for value in array.tolist()], dtype=object)

    def _outputs_by_classes(self) -> tuple[TensorSpec, ...]:
        if not isinstance(self._classes, np.ndarray):
            return ()
        datatype = datatype_of(self._classes.dtype)
        if datatype is None:
            return ()
        outputs = [TensorSpec("predict", datatype, (-1,))]
        if self._has_probability:
            outputs.append(TensorSpec("predict_proba", "FP64", (-1, len(self._classes))))
        return tuple(outputs)

    def _describe(self) -> dict[str, Any]:
        described: dict[str, Any] = {"estimator": type(self._estimator).__name__}
        if self.columns:
            described["columns"] = list(self.columns)
        if isinstance(self._classes, np.ndarray) and datatype_of(self._classes.dtype) is not None:
            described["classes"] = [
                v if isinstance(v, int | float | bool) else str(v) for v in self._classes.tolist()
            ]
        return described


def _attribute(estimator: Any, name: str) -> Any:
    """Return a fitted attribute or None; on pipelines these are properties that raise when a step lacks them."""
    try:
        return getattr(estimator, name)
    except Exception:
        return None


def by_row(estimator: Any) -> bool | None:
    """Return True where every part is known to predict row by row, None where one is code of somebody else.

    scikit-learn's own estimators are fitted once and then answer each row for itself. A function of the user's, or a
    class, may look at all rows it is given.
    """
    from sklearn.preprocessing import FunctionTransformer

    try:
        inside = estimator.get_params(deep=True).values() if hasattr(estimator, "get_params") else ()
    except Exception:
        # A class of somebody else's that keeps its parameters in its own way.
        return None
    parts = [estimator, *(part for part in inside if hasattr(part, "get_params"))]
    for part in parts:
        if isinstance(part, type):
            continue
        if not type(part).__module__.startswith(_LIBRARIES_BY_ROW):
            return None
        if isinstance(part, FunctionTransformer) and not isinstance(part.func, np.ufunc | None):
            return None
    return True


def _pipeline_steps(estimator: Any) -> tuple[list[Any] | None, Any]:
    """Return the transformers and the last step of a plain scikit-learn pipeline; (None, None) for anything else.

    Subclasses may predict in their own way, and so may pipelines under metadata routing: both are left alone.
    """
    import sklearn
    from sklearn.pipeline import Pipeline

    if type(estimator) is not Pipeline or sklearn.get_config().get("enable_metadata_routing"):
        return None, None
    steps = [step for _, step in estimator.steps]
    return [step for step in steps[:-1] if step is not None and step != "passthrough"], steps[-1]


def _probabilities(result: Any) -> dict[str, Array]:
    """Name what predict_proba returns: one array, or a list with one array per target of a multi-output classifier."""
    if isinstance(result, list):
        return {f"predict_proba_{index}": np.asarray(part) for index, part in enumerate(result)}
    return {"predict_proba": np.asarray(result)}


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        return None
    return pandas
