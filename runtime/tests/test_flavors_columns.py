"""scikit-learn on named columns: the contract that its transformers tell, and a real replica that holds to it."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from podium_runtime.flavors.sklearn import SklearnModel
from podium_runtime.flavors.sklearn_columns import known_columns
from runtime.tests.contract import conforms
from runtime.tests.replica import Version, running

ROWS = 60
FRAME = pd.DataFrame(
    {
        "plan": np.array(["basic", "gold", "pro"], dtype=object)[np.arange(ROWS) % 3],
        "city": np.array(["Bern", "Chur", np.nan], dtype=object)[np.arange(ROWS) // 2 % 3],
        "level": np.arange(ROWS) % 4,
        "member": np.arange(ROWS) % 5 == 0,
        "age": np.linspace(20, 80, ROWS),
    }
)
CHURNED = FRAME.age.to_numpy() + 10 * (FRAME.plan == "pro").to_numpy() > 55


def columns_of(*, handle_unknown="error", remainder=None):
    return ColumnTransformer(
        [
            ("plan", OneHotEncoder(handle_unknown=handle_unknown), ["plan", "city"]),
            ("level", OrdinalEncoder(), ["level"]),
            ("member", "passthrough", ["member"]),
        ],
        remainder=StandardScaler() if remainder is None else remainder,
    )


def fitted(*steps, last=None, frame=FRAME):
    return make_pipeline(*steps, last or LogisticRegression(max_iter=500)).fit(frame, CHURNED)


def specs_of(estimator):
    signature = SklearnModel(estimator).infer_signature()
    return {spec.name: (spec.datatype, spec.categories) for spec in signature.inputs}


def test_transformers_tell_datatypes_and_categories():
    signature = SklearnModel(fitted(columns_of())).infer_signature()
    assert {spec.name: (spec.datatype, spec.categories) for spec in signature.inputs} == {
        "plan": ("BYTES", ("basic", "gold", "pro")),
        "city": ("BYTES", ("Bern", "Chur", None)),
        "level": ("INT64", (0, 1, 2, 3)),
        "member": ("FP64", None),
        "age": ("FP64", None),
    }
    assert {(spec.name, spec.datatype) for spec in signature.outputs} == {
        ("predict", "BOOL"),
        ("predict_proba", "FP64"),
    }
    assert signature.works_by_row
    # A regression has no classes_: its outputs are known by the trial alone.
    number = make_pipeline(columns_of(), LinearRegression()).fit(FRAME, FRAME.age)
    assert SklearnModel(number).infer_signature().outputs[0].datatype == "FP64"


def test_an_encoder_that_takes_anything_has_no_categories():
    assert specs_of(fitted(columns_of(handle_unknown="ignore")))["plan"] == ("BYTES", None)


def test_what_imputers_fill_may_be_missing():
    text = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    number = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer([("text", text, ["plan", "city"]), ("number", number, ["age", "level"])])
    used = ["plan", "city", "age", "level"]
    model = SklearnModel(fitted(columns, frame=FRAME[used]))
    assert {spec.name: spec.categories for spec in model.infer_signature().inputs} == {
        "plan": ("basic", "gold", "pro", None),
        "city": ("Bern", "Chur", None),
        "age": None,
        "level": None,
    }
    rows = FRAME[used].iloc[:8].copy()
    rows.loc[3, "plan"] = np.nan
    inputs = {name: rows[name].to_numpy() for name in used}
    inputs = {
        name: np.array([None if v != v else v for v in values.tolist()], dtype=object)
        if values.dtype == object
        else values
        for name, values in inputs.items()
    }
    got = model.predict(inputs, None)["predict_proba"]
    assert got.tobytes() == model._estimator.predict_proba(rows).tobytes()


def test_places_are_told_in_every_way_of_a_column_transformer():
    for places in (["plan"], [0], slice(0, 1), slice("plan", "plan"), [True, False], lambda frame: ["plan"]):
        columns = ColumnTransformer([("a", OneHotEncoder(), places)], remainder="passthrough")
        estimator = fitted(columns, frame=FRAME[["plan", "age"]])
        assert specs_of(estimator) == {"plan": ("BYTES", ("basic", "gold", "pro")), "age": ("FP64", None)}


def test_what_is_not_known_stays_as_it_was():
    numbers = FRAME[["level", "age"]]
    single = {"input": ("FP64", None)}
    # Numbers alone, even categories of them, still come as one tensor too.
    estimator = fitted(
        ColumnTransformer([("a", OrdinalEncoder(), ["level"])], remainder="passthrough"), frame=numbers
    )
    assert specs_of(estimator) == single
    # Of a column that is thrown away, or given to a function of the user's, nobody knows what it is.
    assert specs_of(fitted(columns_of(remainder="drop"))) == single
    assert specs_of(fitted(columns_of(remainder=FunctionTransformer(np.abs)))) == single
    assert specs_of(fitted(columns_of(), last=HistGradientBoostingClassifier(max_iter=2))) == single
    # But of the others it is known.
    known = known_columns(fitted(columns_of(remainder="drop")), tuple(FRAME.columns))
    assert sorted(known) == ["city", "level", "member", "plan"]
    both = FeatureUnion([("a", OneHotEncoder()), ("b", OrdinalEncoder())])
    known = known_columns(fitted(ColumnTransformer([("a", both, ["plan"])])), tuple(FRAME.columns))
    assert known["plan"].categories == ("basic", "gold", "pro")


def request(**changes):
    columns = {"plan": ["gold"], "city": ["Bern"], "level": [2], "member": [1], "age": [41.5], **changes}
    datatypes = {"plan": "BYTES", "city": "BYTES", "level": "INT64", "member": "FP64", "age": "FP64"}
    return {
        "inputs": [
            {
                "name": name,
                "datatype": "BYTES" if isinstance(values[0], str) else datatypes[name],
                "shape": [len(values)],
                "data": values,
            }
            for name, values in columns.items()
        ]
    }


SERVED_BEFORE = {"inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 5]}], "outputs": []}


@pytest.mark.parametrize(
    ("estimator", "signature"),
    [
        (fitted(columns_of()), None),
        # Pushed before columns were looked at: its signature stays, and what it fails on has the same answer.
        (fitted(columns_of()), SERVED_BEFORE),
    ],
    ids=["by-columns", "served-before"],
)
def test_a_replica_refuses_unknown_categories_and_texts_for_numbers(tmp_path, estimator, signature):
    flavor = {"name": "sklearn", "entry": "model.pkl", "options": {"format": "pickle"}}
    version = Version(tmp_path, flavor, {"model.pkl": pickle.dumps(estimator)}, signature=signature)
    with running(version.write()) as replica:
        for city in ("Bern", None):
            row = FRAME.iloc[[1]].assign(plan="gold", level=2, member=1.0, age=41.5)
            row["city"] = np.array([city or np.nan], dtype=object)
            answer = conforms(replica.infer(request(city=[city])))
            assert answer.status == 200, answer.body
            outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
            assert outputs["predict_proba"] == estimator.predict_proba(row)[0].tolist()
        for changes, field, expected in (
            ({"plan": ["zzz"]}, "inputs[0].data[0]", "one of basic, gold, pro for plan"),
            ({"plan": [None]}, "inputs[0].data[0]", "one of basic, gold, pro for plan"),
            ({"level": [7]}, "inputs[2].data[0]", "one of 0, 1, 2, 3 for level"),
            ({"age": ["x"]}, "inputs[4].datatype", "FP64 for age"),
        ):
            answer = conforms(replica.infer(request(**changes)))
            assert (answer.status, answer.json().get("field")) == (400, field), (changes, answer.body)
            assert answer.json()["expected"] == expected
        assert replica.infer(request()).status == 200
        # A DataFrame by MLflow's protocol, whose cells have no datatypes of their own.
        record = {"plan": "gold", "city": "Bern", "level": 2, "member": 1, "age": 41}
        for changes, status in (({}, 200), ({"plan": "zzz"}, 400), ({"age": "x"}, 400)):
            body = {"dataframe_records": [{**record, **changes}]}
            answer = replica.ask("POST", "/invocations", body, {"content-type": "application/json"})
            assert answer.status == status, answer.body


def test_a_category_in_one_tensor_of_numbers_is_named_too(tmp_path):
    columns = ColumnTransformer([("a", OrdinalEncoder(), ["level"])], remainder="passthrough")
    estimator = fitted(columns, frame=FRAME[["age", "level"]])
    flavor = {"name": "sklearn", "entry": "model.pkl", "options": {"format": "pickle"}}
    with running(Version(tmp_path, flavor, {"model.pkl": pickle.dumps(estimator)}).write()) as replica:
        body = {"inputs": [{"name": "input", "datatype": "FP64", "shape": [2, 2], "data": [30, 2, 40, 9]}]}
        answer = replica.infer(body)
        assert (answer.status, answer.json()["field"]) == (400, "inputs[0].data[3]")
        body["inputs"][0]["data"][3] = 3
        assert replica.infer(body).status == 200
