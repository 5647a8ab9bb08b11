"""XGBoost and LightGBM beyond equal answers: columns, categories, threads, versions."""

import numpy as np
import pytest

from podium.resources.errors import InvalidInput as Refused
from podium.resources.manifest import Signature
from podium_runtime.errors import InvalidInput
from podium_runtime.flavors import load_model
from podium_runtime.signature import InputCheck
from tests.flavors.cases import CANCER, MALIGNANT, texts
from tests.flavors.pushing import pushed

# Three questions about one row, which have nothing to do with each other's answers.
LABELS = np.column_stack([MALIGNANT, CANCER[:, 0] > 14, CANCER[:, 1] > 19]).astype(int)


def xgboost_saved(tmp_path, estimator):
    estimator.save_model(tmp_path / "model.ubj")
    return load_model("xgboost", tmp_path, "model.ubj", {}, threads=1)


def test_xgboost_by_columns_in_any_order(tmp_path):
    import pandas
    import xgboost

    frame = pandas.DataFrame(CANCER[:, :3], columns=["radius", "texture", "edge"])
    estimator = xgboost.XGBClassifier(n_estimators=5).fit(frame, MALIGNANT)
    model = xgboost_saved(tmp_path, estimator)
    inputs = {name: frame[name].to_numpy()[:9].copy() for name in ("edge", "radius", "texture")}
    checked, rows = InputCheck(model.infer_signature(), model.columns).check_inputs(inputs)
    assert rows == 9
    got = model.predict(checked, None)
    assert got["predict_proba"].tobytes() == estimator.predict_proba(frame[:9]).tobytes()
    # Whole numbers are as good as fractions, a missing value is null.
    holes = frame[:9].round().mask(frame[:9] > 20)
    inputs = {name: holes[name].to_numpy().copy() for name in holes}
    assert model.predict(inputs, None)["predict"].tolist() == estimator.predict(holes).tolist()


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({"n_estimators": 400, "early_stopping_rounds": 3, "learning_rate": 0.6}, MALIGNANT),
        ({"n_estimators": 4}, MALIGNANT + (CANCER[:, 0] > 14)),
        ({"n_estimators": 4, "objective": "multi:softmax"}, MALIGNANT + (CANCER[:, 0] > 14)),
        ({"n_estimators": 4, "booster": "gblinear"}, MALIGNANT),
        ({"n_estimators": 4, "booster": "dart"}, MALIGNANT),
        ({"n_estimators": 4, "objective": "binary:hinge"}, MALIGNANT),
        ({"n_estimators": 4, "objective": "binary:logitraw"}, MALIGNANT),
        ({"n_estimators": 4}, LABELS),
        ({"n_estimators": 4}, LABELS[:, :2]),
        ({"n_estimators": 4, "multi_strategy": "multi_output_tree"}, LABELS),
    ],
)
def test_xgboost_answers_as_the_class_that_was_saved(tmp_path, settings, labels):
    import xgboost

    estimator = xgboost.XGBClassifier(max_depth=2, **settings)
    estimator.fit(CANCER[:400], labels[:400], eval_set=[(CANCER[400:], labels[400:])], verbose=False)
    outputs = xgboost_saved(tmp_path, estimator).predict({"input": CANCER}, None)
    assert outputs["predict"].tolist() == estimator.predict(CANCER).tolist()
    if "predict_proba" in outputs:
        assert outputs["predict_proba"].tobytes() == estimator.predict_proba(CANCER).tobytes()


def test_xgboost_labels_do_not_exclude_each_other(tmp_path):
    import xgboost

    estimator = xgboost.XGBClassifier(n_estimators=30, max_depth=2).fit(CANCER, LABELS)
    model = xgboost_saved(tmp_path, estimator)
    answers = model.predict({"input": CANCER}, None)["predict"]
    assert {tuple(row) for row in answers.tolist()} == {tuple(row) for row in LABELS.tolist()}
    assert [(spec.name, spec.datatype, spec.shape) for spec in model.infer_signature().outputs] == [
        ("predict", "INT64", (-1, 3)),
        ("predict_proba", "FP32", (-1, 3)),
    ]


@pytest.mark.parametrize(
    ("name", "settings", "target"),
    [
        ("XGBRegressor", {"objective": "reg:squarederror"}, CANCER[:, :2]),
        (
            "XGBRegressor",
            {"objective": "reg:squarederror", "multi_strategy": "multi_output_tree"},
            CANCER[:, :2],
        ),
        ("XGBRegressor", {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]}, CANCER[:, 0]),
        ("XGBRegressor", {"objective": "count:poisson"}, CANCER[:, 0]),
        ("XGBRegressor", {"objective": "reg:logistic"}, MALIGNANT),
        ("XGBRanker", {"objective": "rank:ndcg"}, MALIGNANT),
        ("XGBRFClassifier", {}, MALIGNANT),
    ],
)
def test_xgboost_answers_as_the_other_classes(tmp_path, name, settings, target):
    import xgboost

    estimator = getattr(xgboost, name)(n_estimators=4, max_depth=2, **settings)
    estimator.fit(CANCER, target, **({"group": [len(CANCER)]} if name == "XGBRanker" else {}))
    wanted = estimator.predict(CANCER)
    got = xgboost_saved(tmp_path, estimator).predict({"input": CANCER}, None)["predict"]
    assert (got.dtype, got.tolist()) == (wanted.dtype, wanted.tolist())


@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_xgboost_files_tell_their_version(tmp_path, suffix):
    import xgboost

    booster = xgboost.train({}, xgboost.DMatrix(CANCER, MALIGNANT), 2)
    content = bytes(booster.save_raw(suffix))
    draft = pushed(tmp_path, {f"m.{suffix}": content})
    assert draft.requirements == (f"xgboost=={xgboost.__version__}",)
    given = pushed(tmp_path, {f"m.{suffix}": content}, requirements=["xgboost-cpu==3.2.0"])
    assert given.requirements == ("xgboost-cpu==3.2.0",)
    with pytest.raises(Refused, match="not an XGBoost model"):
        pushed(tmp_path, {f"m.{suffix}": b"{}"})
    with pytest.raises(Refused, match="which version of xgboost"):
        pushed(tmp_path, {f"m.{suffix}": content.replace(b"version", b"vorsion")})


def test_lightgbm_checks_categories(made, loaded):
    model = loaded(made("lightgbm_categories"))
    signature = model.infer_signature()
    document = signature.as_document()
    assert document["inputs"][1] == {
        "name": "city",
        "datatype": "BYTES",
        "shape": [-1],
        "categories": ["Basel", "Bern", "Chur", None],
    }
    # The manifest takes it as it is.
    assert Signature.model_validate(document).model_dump(mode="json")["inputs"][1] == {
        **document["inputs"][1],
        "optional": False,
    }
    check = InputCheck(signature, model.columns)
    age = np.array([30, 40])
    inputs, _ = check.check_inputs({"city": np.array(["Bern", None], dtype=object), "age": age})
    assert list(inputs) == ["age", "city"]
    assert inputs["age"].dtype == np.float64
    assert np.isfinite(model.predict(inputs, None)["predict"]).all()
    with pytest.raises(
        InvalidInput, match="one of Basel, Bern, Chur, null for city, got another value"
    ) as error:
        check.check_inputs({"city": texts("Bern", "Paris"), "age": age})
    assert error.value.field == "inputs[0].data[1]"


def test_lightgbm_of_another_kind_of_text(tmp_path):
    with pytest.raises(Refused, match="not a LightGBM model"):
        pushed(tmp_path, {"readme.txt": b"hello"})
    with pytest.raises(Refused, match="its format is 'v9'"):
        pushed(tmp_path, {"model.txt": b"tree\nversion=v9\n"})
