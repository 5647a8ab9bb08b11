"""Whether rows are independent: found out by asking, and what follows from it."""

import numpy as np
import pytest

from podium_runtime.probing import ROWS, examine
from podium_runtime.signature import parse_signature

RANDOM = np.random.default_rng(1)
WEIGHTS = RANDOM.normal(size=(2, 3))


def signature(datatype="FP32", shape=(-1, 2), output=(-1, 3), categories=None, answers="FP32"):
    x = {"name": "x", "datatype": datatype, "shape": list(shape)}
    if categories:
        x["categories"] = categories
    return parse_signature(
        {"inputs": [x], "outputs": [{"name": "y", "datatype": answers, "shape": list(output)}]}
    )


class Formula:
    """A model that is a function of one array, and counts how often it was asked."""

    columns = None
    rows_independent = None
    properties = {}  # noqa: RUF012 - as the port has it

    def __init__(self, formula):
        self.formula = formula
        self.asked = []

    def predict(self, inputs, wanted):
        (x,) = inputs.values()
        self.asked.append(x)
        return {"y": self.formula(x)}

    def infer_signature(self):
        return None

    def framework(self):
        return {}


def softmax(x, axis):
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def needs_large(x):
    """Like a tree whose only split lies far out."""
    return np.where(x[:, :1] > 50, 1.0, 0.0)


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: x @ WEIGHTS,
        lambda x: softmax(x @ WEIGHTS, 1),
        lambda x: (x @ WEIGHTS * (1 + 1e-6 * len(x))).astype(np.float32),  # another order of additions
        lambda x: (x @ WEIGHTS).argmax(1),
        lambda x: np.log(x),  # NaN in some places
        needs_large,
    ],
)
def test_models_by_row_pass(formula):
    with np.errstate(invalid="ignore"):
        found = examine(Formula(formula), signature(), None)
    assert found.independent, found.reason


@pytest.mark.parametrize(
    ("formula", "reason"),
    [
        (lambda x: x - x.mean(axis=0), "depends on the rows beside it"),
        (lambda x: softmax(x, 0), "depends on the rows beside it"),
        (lambda x: x @ x.T, "another shape for one row"),
        (lambda x: np.cumsum(x, axis=0), "depends on the rows beside it"),
        (lambda x: x + RANDOM.normal(size=x.shape), "depends on the rows beside it"),
        (lambda x: softmax(x - x.mean(axis=0), 1), "depends on the rows beside it"),
        (lambda x: (x - x.mean(axis=0)).argmax(1), "depends on the rows beside it"),
        (lambda x: x[:1], "has shape"),
        (lambda x: x.sum(), "has shape"),
        (lambda x: np.zeros(len(x)), "answered all examples alike"),
        (lambda x: {}[1], "failed on the examples made up for it (KeyError); declare warmup.example"),
    ],
)
def test_models_whose_rows_meet_do_not(formula, reason):
    found = examine(Formula(formula), signature(), None)
    assert not found.independent
    assert reason in found.reason


def test_sizes_inside_a_row_that_are_free_are_not_one():
    """With one of everything a softmax inside a row is 1, and hides that rows meet."""
    model = Formula(lambda x: softmax(x - x.mean(axis=0), 1))
    assert not examine(model, signature(shape=(-1, -1), output=(-1, -1)), None).independent
    assert model.asked[0].shape == (ROWS, 2)
    only_one = Formula(lambda x: x.reshape(len(x), 1) * 2)
    assert examine(only_one, signature(shape=(-1, -1), output=(-1, -1)), None).independent


@pytest.mark.parametrize("datatype", ["BYTES", "INT64", "BOOL", "FP16", "BF16", "UINT8"])
def test_rows_of_every_kind_are_made_up(datatype):
    def length(x):
        return np.array([[len(v)] for v in x[:, 0]]) if x.dtype == object else x.astype(float).sum(1)

    assert examine(Formula(length), signature(datatype, (-1, 4)), None).independent
    met = Formula(lambda x: length(x) - length(x).mean(axis=0))
    assert not examine(met, signature(datatype, (-1, 4)), None).independent


def test_categories_are_kept_to():
    known = ["basic", "plus"]
    model = Formula(lambda x: np.array([known.index(value) for value in x]))
    assert examine(model, signature("BYTES", (-1,), (-1,), known), None).independent
    assert set(np.concatenate(model.asked).tolist()) <= set(known)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_declared_example_is_what_the_rows_are_made_of(rows):
    """A model that takes nothing but numbers like those of its example."""
    example = {"x": RANDOM.normal(1000, 5, size=(rows, 2)).astype(np.float32)}

    def picky(x):
        assert (np.abs(x - 1000) < 600).all()
        return x @ WEIGHTS

    model = Formula(picky)
    assert examine(model, signature(), example).independent
    assert model.asked[0].shape == (ROWS, 2)
    assert np.array_equal(model.asked[0][0], example["x"][0])
    assert not examine(Formula(lambda x: x - x.mean(axis=0)), signature(), example).independent


def test_half_precision_may_differ_in_its_last_place():
    def half(x):
        answers = x[:, :1].astype(np.float16)
        return np.nextafter(answers, np.float16(np.inf)) if len(x) == 1 else answers

    assert examine(Formula(half), signature(answers="FP16"), None).independent

    def single(x):
        return x[:, :1] * (1 + 2.0**-9) if len(x) == 1 else x[:, :1]

    assert not examine(Formula(single), signature(), None).independent
    assert examine(Formula(single), signature(answers="BF16"), None).independent
