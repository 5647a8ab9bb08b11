"""Each flavor with a real model trained here: loaded from its own format, predictions equal to the framework's own."""

import pickle
import textwrap

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from podium_runtime.errors import InvalidInput, ModelUnusable
from podium_runtime.flavors import FLAVORS, load_model
from podium_runtime.flavors.sklearn import SklearnModel

X, Y = load_breast_cancer(return_X_y=True)


def save(tmp_path, estimator, form):
    path = tmp_path / f"model.{form}"
    if form == "pickle":
        path.write_bytes(pickle.dumps(estimator))
    elif form == "joblib":
        import joblib

        joblib.dump(estimator, path)
    else:
        import skops.io

        skops.io.dump(estimator, path)
    return load_model("sklearn", tmp_path, path.name, {"format": form}, threads=1)


def signature_of(model):
    signature = model.infer_signature()
    assert signature is not None
    return signature.as_document()


def exactly(got, wanted):
    wanted = np.asarray(wanted)
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    assert got.tobytes() == wanted.tobytes() if wanted.dtype != object else got.tolist() == wanted.tolist()


def test_skops_loads_what_scikit_learn_itself_made(tmp_path):
    for estimator in (
        RandomForestClassifier(3, random_state=0),
        HistGradientBoostingClassifier(max_iter=3),
        KNeighborsClassifier(),
    ):
        estimator.fit(X, Y)
        exactly(
            save(tmp_path, estimator, "skops").predict({"input": X}, None)["predict"], estimator.predict(X)
        )


@pytest.mark.parametrize("form", ["pickle", "joblib", "skops"])
def test_sklearn_formats(tmp_path, form):
    estimator = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(X, Y)
    model = save(tmp_path, estimator, form)
    holes = X[:20].copy()
    holes[::3, ::5] = np.nan
    outputs = model.predict({"input": holes}, None)
    exactly(outputs["predict"], estimator.predict(holes))
    exactly(outputs["predict_proba"], estimator.predict_proba(holes))
    assert signature_of(model) == {
        "inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 30]}],
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [-1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]},
        ],
    }
    assert model.properties["classes"] == [0, 1]
    assert model.framework()["scikit-learn"]


def test_sklearn_computes_only_what_is_wanted(tmp_path):
    calls = []

    class Counting(RandomForestClassifier):
        def predict(self, X):  # noqa: N803 - the parent's name
            calls.append("predict")
            return super().predict(X)

        def predict_proba(self, X):  # noqa: N803
            calls.append("predict_proba")
            return super().predict_proba(X)

    estimator = Counting(n_estimators=3, random_state=0).fit(X, Y)
    model = SklearnModel(estimator)
    assert list(model.predict({"input": X[:2]}, frozenset({"predict_proba"}))) == ["predict_proba"]
    assert calls == ["predict_proba"]
    assert list(model.predict({"input": X[:2]}, frozenset({"predict"}))) == ["predict"]


def test_sklearn_text_classes_regressors_and_more(tmp_path):
    iris = load_iris()
    names = iris.target_names[iris.target]
    model = save(tmp_path, RandomForestClassifier(5, random_state=0).fit(iris.data, names), "pickle")
    assert signature_of(model)["outputs"][0] == {"name": "predict", "datatype": "BYTES", "shape": [-1]}
    assert model.properties["classes"] == ["setosa", "versicolor", "virginica"]
    assert model.predict({"input": iris.data[:2]}, None)["predict"].tolist() == ["setosa", "setosa"]

    features, target = load_diabetes(return_X_y=True)
    model = save(tmp_path, LinearRegression().fit(features, np.c_[target, target]), "pickle")
    assert signature_of(model)["outputs"] == [{"name": "predict", "datatype": "FP64", "shape": [-1, 2]}]

    model = save(tmp_path, IsolationForest(n_estimators=3, random_state=0).fit(iris.data), "pickle")
    assert signature_of(model)["outputs"] == [{"name": "predict", "datatype": "INT64", "shape": [-1]}]

    several = MultiOutputClassifier(LogisticRegression(max_iter=500)).fit(
        iris.data, np.c_[iris.target, iris.target > 0]
    )
    outputs = save(tmp_path, several, "pickle").predict({"input": iris.data[:4]}, None)
    assert list(outputs) == ["predict", "predict_proba_0", "predict_proba_1"]


def frame():
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "city": np.array(["Bern", "Basel", None], dtype=object)[rng.integers(0, 3, 60)],
            "age": rng.normal(40, 9, 60),
        }
    )


def test_sklearn_trained_on_named_columns_gets_a_frame(tmp_path):
    data = frame()
    estimator = make_pipeline(
        ColumnTransformer(
            [("city", OneHotEncoder(handle_unknown="ignore"), ["city"])], remainder=SimpleImputer()
        ),
        LogisticRegression(),
    ).fit(data, data.age > 40)
    model = save(tmp_path, estimator, "pickle")
    assert tuple(model.columns) == ("city", "age")
    inputs = {"age": data.age.to_numpy(), "city": data.city.to_numpy(dtype=object)}
    outputs = model.predict(inputs, None)
    exactly(outputs["predict_proba"], estimator.predict_proba(data))
    # Zeros do not suit a model with text columns: what classes_ tells is the signature.
    assert [output["name"] for output in signature_of(model)["outputs"]] == ["predict", "predict_proba"]


def test_sklearn_trained_on_named_numbers_takes_both_forms(tmp_path):
    named = pd.DataFrame(X, columns=[f"f{i}" for i in range(30)])
    estimator = LogisticRegression(max_iter=5000).fit(named, Y)
    model = save(tmp_path, estimator, "pickle")
    by_tensor = model.predict({"input": X[:5]}, None)["predict_proba"]
    by_column = model.predict({f"f{i}": X[:5, i] for i in reversed(range(30))}, None)["predict_proba"]
    exactly(by_tensor, estimator.predict_proba(named[:5]))
    exactly(by_column, estimator.predict_proba(named[:5]))


def test_sklearn_refuses_what_it_cannot_serve(tmp_path):
    with pytest.raises(ModelUnusable, match="StandardScaler has no predict"):
        save(tmp_path, StandardScaler().fit(X), "pickle")
    with pytest.raises(ModelUnusable, match="known are pickle, joblib, skops"):
        load_model("sklearn", tmp_path, "model.pickle", {"format": "dill"}, threads=1)


def test_sklearn_promises_independent_rows_only_for_what_it_knows():
    scaled = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    known = make_pipeline(
        FunctionTransformer(np.log1p), GridSearchCV(scaled, {"logisticregression__C": [1.0]}, cv=2)
    )
    assert SklearnModel(known.fit(X, Y)).rows_independent is True
    centred = make_pipeline(FunctionTransformer(lambda rows: rows - rows.mean(axis=0)), LogisticRegression())
    assert SklearnModel(centred.fit(X, Y)).rows_independent is None
    assert SklearnModel(Untrusted(C=1e-6, max_iter=5000).fit(X[:50], Y[:50])).rows_independent is None
    assert SklearnModel(Peculiar("a")).rows_independent is None


class Peculiar(BaseEstimator):
    """What get_params cannot look into."""

    def __init__(self, *parts):
        self.parts = parts

    def predict(self, rows):
        return np.zeros(len(rows))


class Untrusted(LogisticRegression):
    """A type that skops does not know."""


def test_skops_loads_only_types_that_skops_itself_trusts(tmp_path):
    with pytest.raises(ModelUnusable, match="not trusted"):
        save(tmp_path, Untrusted(C=1e-6, max_iter=5000).fit(X[:50], Y[:50]), "skops")


def test_onnx_equals_its_framework(tmp_path):
    from skl2onnx import to_onnx

    estimator = RandomForestClassifier(10, random_state=0).fit(X.astype(np.float32), Y)
    graph = to_onnx(estimator, X[:1].astype(np.float32), options={"zipmap": False})
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    model = load_model("onnx", tmp_path, "model.onnx", {}, threads=1)
    signature = signature_of(model)
    assert signature["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 30]}]
    assert [(o["name"], o["datatype"]) for o in signature["outputs"]] == [
        ("label", "INT64"),
        ("probabilities", "FP32"),
    ]
    rows = X[:20].astype(np.float32)
    outputs = model.predict({"X": rows}, None)
    assert outputs["label"].tolist() == estimator.predict(rows).tolist()
    # skl2onnx computes in single precision: five decimal places are what its own documentation promises.
    np.testing.assert_allclose(outputs["probabilities"], estimator.predict_proba(rows), atol=1e-5)
    assert list(model.predict({"X": rows}, frozenset({"label"}))) == ["label"]


def test_onnx_maps_are_refused_with_a_hint(tmp_path):
    from skl2onnx import to_onnx

    estimator = LogisticRegression(C=1e-6, max_iter=5000).fit(X[:100], Y[:100])
    graph = to_onnx(estimator, X[:1].astype(np.float32), options={"zipmap": True})
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ModelUnusable, match="zipmap"):
        load_model("onnx", tmp_path, "model.onnx", {}, threads=1)


def saved_mlflow(tmp_path, **what):
    import mlflow

    mlflow.pyfunc.save_model(tmp_path / "m", pip_requirements=["numpy"], **what)
    return load_model("mlflow", tmp_path / "m", "", {}, threads=1)


def test_mlflow_with_named_columns(tmp_path):
    import mlflow.sklearn
    from mlflow.models import infer_signature

    data = frame()
    data["city"] = data["city"].fillna("none").astype(object)
    estimator = make_pipeline(
        ColumnTransformer([("city", OneHotEncoder(), ["city"])], remainder="passthrough"),
        LogisticRegression(),
    ).fit(data, data.age > 40)
    mlflow.sklearn.save_model(
        estimator,
        tmp_path / "m",
        signature=infer_signature(data, estimator.predict(data)),
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )
    model = load_model("mlflow", tmp_path / "m", "", {}, threads=1)
    signature = signature_of(model)
    assert {(i["name"], i["datatype"], *i["shape"]) for i in signature["inputs"]} == {
        ("city", "BYTES", -1),
        ("age", "FP64", -1),
    }
    assert signature["outputs"] == [{"name": "predict", "datatype": "BOOL", "shape": [-1]}]
    assert model.rows_independent
    outputs = model.predict({"age": data.age.to_numpy(), "city": data.city.to_numpy(dtype=object)}, None)
    exactly(outputs["predict"], estimator.predict(data))
    with pytest.raises(InvalidInput, match="one of Basel, Bern, none for city"):
        model.predict({"age": np.array([40.0]), "city": np.array(["Chur"], dtype=object)}, None)
    assert model.framework()["pandas"]


def test_mlflow_pyfunc_with_tensors_and_several_outputs(tmp_path):
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    class Twice(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return {"twice": model_input * 2, "name": ["a"] * len(model_input)}

    schema = Schema([TensorSpec(np.dtype("float32"), (-1, 3))])
    model = saved_mlflow(tmp_path, python_model=Twice(), signature=ModelSignature(inputs=schema))
    assert signature_of(model)["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3]}]
    # Nobody can know that a pyfunc of the user's own works row by row.
    assert not model.rows_independent
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    outputs = model.predict({"input": rows}, None)
    exactly(outputs["twice"], rows * 2)
    assert outputs["name"].tolist() == ["a", "a"]


def test_mlflow_without_a_signature_takes_what_comes(tmp_path):
    import mlflow.pyfunc

    class Total(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return pd.DataFrame({"total": np.asarray(model_input).sum(axis=1)})

    model = saved_mlflow(tmp_path, python_model=Total())
    assert model.infer_signature() is None
    assert model.predict({"any": np.ones((2, 3))}, None)["total"].tolist() == [3.0, 3.0]
    assert model.predict({"a": np.ones(2), "b": np.ones(2)}, None)["total"].tolist() == [2.0, 2.0]


def python_model(tmp_path, source, named="pm:Model"):
    module = named.partition(":")[0]
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
    return load_model("python", tmp_path, "", {"class": named}, threads=1)


@pytest.fixture
def _own_modules(monkeypatch):
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("pm", "beside")):
            del sys.modules[name]


@pytest.mark.usefixtures("_own_modules")
def test_a_python_class_is_loaded_with_its_folder(tmp_path):
    (tmp_path / "beside.py").write_text("FACTOR = 3\n")
    (tmp_path / "bias.txt").write_text("0.5")
    model = python_model(
        tmp_path,
        """
        import pathlib
        import beside

        class Model:
            signature = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
                         "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}]}

            def load(self, path):
                self.bias = float(pathlib.Path(path, "bias.txt").read_text())

            def predict(self, inputs):
                return inputs["x"] * beside.FACTOR + self.bias
        """,
    )
    assert model.predict({"x": np.array([1.0, 2.0])}, None)["y"].tolist() == [3.5, 6.5]
    assert signature_of(model)["outputs"] == [{"name": "y", "datatype": "FP64", "shape": [-1]}]


@pytest.mark.usefixtures("_own_modules")
def test_a_python_class_may_answer_with_a_dict_and_have_no_signature(tmp_path):
    model = python_model(
        tmp_path,
        """
        class Model:
            def predict(self, inputs):
                return {"n": len(inputs), "names": sorted(inputs)}
        """,
    )
    assert model.infer_signature() is None
    outputs = model.predict({"b": np.ones(1), "a": np.ones(2)}, None)
    assert (outputs["n"].tolist(), outputs["names"].tolist()) == (2, ["a", "b"])


@pytest.mark.usefixtures("_own_modules")
@pytest.mark.parametrize(
    ("source", "named", "words"),
    [
        ("class Other: pass", "pm:Model", "it has Other"),
        ("class Model: pass", "pm:Model", "no predict"),
        (
            "class Model:\n    signature = {}\n    def predict(self, inputs): ...",
            "pm:Model",
            r"signature\.inputs",
        ),
        ("", "pm", "module:Class"),
    ],
)
def test_a_python_class_that_cannot_serve_is_an_error(tmp_path, source, named, words):
    with pytest.raises(ModelUnusable, match=words):
        python_model(tmp_path, source, named)


def test_an_unknown_flavor_lists_the_known_ones(tmp_path):
    with pytest.raises(ModelUnusable, match=f"known are {', '.join(sorted(FLAVORS))}"):
        load_model("tensorflow", tmp_path, "", {}, threads=1)


def test_no_framework_is_imported_for_another_flavor():
    import subprocess
    import sys

    code = (
        "import sys, podium_runtime.server; "
        "print([name for name in ('sklearn', 'mlflow', 'onnxruntime', 'pandas', 'podium') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stderr
