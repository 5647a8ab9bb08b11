"""MLflow models, loaded as pyfunc.

The signature in the MLmodel file decides the form: named columns become inputs of shape [-1] and reach the
model as a pandas DataFrame, tensors stay numpy arrays (`input` when unnamed). Without a signature one tensor
goes in as it is, several as the columns of a DataFrame. The answer's columns are the outputs; an answer without
names is called `predict`. Dates travel as ISO 8601 text, binary columns as base64 text.
"""

import base64
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium_runtime.flavors.sklearn import by_row
from podium_runtime.flavors.sklearn_columns import blame, known_columns
from podium_runtime.signature import Signature, TensorSpec
from podium_runtime.tensors import Array, datatype_of

INPUT = "input"
OUTPUT = "predict"
_DATATYPES = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
    "datetime": "BYTES",
}
# What is known of the rows of some loaders' models, see `Model.rows_independent`. A pyfunc of the user's own may well
# look across rows (forecasts, ranks).
_BY_ROW = {
    "mlflow.catboost": True,
    "mlflow.lightgbm": True,
    "mlflow.onnx": None,
    "mlflow.sklearn": None,
    "mlflow.xgboost": True,
}


def load(folder: Path, entry: str, options: Mapping[str, Any], threads: int) -> "MlflowModel":
    """Return the pyfunc model in `folder` (or in its subfolder `entry`)."""
    import mlflow.pyfunc

    return MlflowModel(mlflow.pyfunc.load_model(str(folder / entry), suppress_warnings=True))


class MlflowModel:
    """One pyfunc model."""

    columns: Sequence[str] | None = None

    def __init__(self, model: Any) -> None:
        self._model = model
        self._schema = model.metadata.get_input_schema()
        loader = str(model.loader_module)
        estimator = _estimator(model, loader)
        self.rows_independent = by_row(estimator) if estimator is not None else _BY_ROW.get(loader, False)
        self.properties: Mapping[str, Any] = {"loader": loader}
        schema = self._schema
        named = schema is not None and not schema.is_tensor_spec() and schema.has_input_names()
        self._types = {spec.name: _type_name(spec.type) for spec in schema.inputs} if named else None
        names = getattr(estimator, "feature_names_in_", ())
        self._known = known_columns(estimator, names) if self._types else {}

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        form = self._form(inputs)
        try:
            return _named(self._model.predict(form))
        except Exception:
            # MLflow's signature knows no categories, an encoder that fails on an unknown one does.
            blame(self._known, inputs, tuple(self._types or ()))
            raise

    def infer_signature(self) -> Signature | None:
        inputs = _specs(self._schema, INPUT)
        if not inputs:
            return None
        return Signature(inputs, _specs(self._model.metadata.get_output_schema(), OUTPUT) or ())

    def framework(self) -> dict[str, str]:
        versions = {}
        for name in ("mlflow", "mlflow-skinny", "pandas", "numpy"):
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return versions

    def _form(self, inputs: Mapping[str, Array]) -> Any:
        import pandas

        if self._types is not None:
            present = {name: kind for name, kind in self._types.items() if name in inputs}
            return pandas.DataFrame({name: _column(inputs[name], kind) for name, kind in present.items()})
        if len(inputs) == 1 and (self._schema is None or not self._schema.has_input_names()):
            tensor = next(iter(inputs.values()))
            by_column = self._schema is not None and not self._schema.is_tensor_spec()
            return pandas.DataFrame(tensor) if by_column else tensor
        if self._schema is not None:
            return dict(inputs)
        return pandas.DataFrame({name: array.reshape(-1) for name, array in inputs.items()})


def _estimator(model: Any, loader: str) -> Any:
    """Return the scikit-learn estimator inside; None where there is none, or MLflow is too old to hand it out."""
    if loader != "mlflow.sklearn" or not hasattr(model, "get_raw_model"):
        return None
    try:
        return model.get_raw_model()
    except NotImplementedError:
        return None


def _column(array: Array, kind: str) -> Any:
    if kind == "datetime":
        import pandas

        return pandas.to_datetime(array.reshape(-1))
    if kind == "binary":
        return [
            None if value is None else base64.b64decode(value, validate=True) for value in array.reshape(-1)
        ]
    return array.reshape(-1)


def _type_name(kind: Any) -> str:
    return str(getattr(kind, "name", kind))


def _specs(schema: Any, unnamed: str) -> tuple[TensorSpec, ...] | None:
    """Return the tensors of an MLflow schema, or None where it has something that no tensor can carry."""
    if schema is None or not schema.inputs:
        return None
    specs = []
    if schema.is_tensor_spec():
        for spec in schema.inputs:
            datatype = datatype_of(np.dtype(spec.type))
            if datatype is None:
                return None
            specs.append(TensorSpec(spec.name or unnamed, datatype, tuple(int(size) for size in spec.shape)))
        return tuple(specs)
    datatypes = [_DATATYPES.get(_type_name(spec.type)) for spec in schema.inputs]
    if schema.has_input_names():
        for spec, datatype in zip(schema.inputs, datatypes, strict=True):
            if datatype is None:
                return None
            specs.append(TensorSpec(spec.name, datatype, (-1,), not spec.required))
        return tuple(specs)
    if datatypes[0] is None or set(datatypes) != {datatypes[0]}:
        return None
    shape = (-1,) if unnamed == OUTPUT and len(datatypes) == 1 else (-1, len(datatypes))
    return (TensorSpec(unnamed, datatypes[0], shape),)


def _named(answer: Any) -> dict[str, Array]:
    if isinstance(answer, Mapping):
        return {str(name): np.asarray(value) for name, value in answer.items()}
    if hasattr(answer, "columns") and hasattr(answer, "items"):
        return {str(name): np.asarray(column) for name, column in answer.items()}
    return {OUTPUT: np.asarray(answer)}
