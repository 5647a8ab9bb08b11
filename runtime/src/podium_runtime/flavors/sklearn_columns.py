"""What a fitted scikit-learn estimator tells about its named columns: numbers, texts, categories.

Called by `sklearn`, and by `mlflow` for scikit-learn models. A ColumnTransformer says which transformer gets which
columns, and an encoder keeps the categories it was fitted on (`categories_`). Parts whose needs are not known here tell
nothing about their columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from podium_runtime.errors import InvalidInput
from podium_runtime.signature import Category, InputCheck, Signature, TensorSpec
from podium_runtime.tensors import Array

_MOST_SHOWN = 1000
"""Categories that a signature lists; metadata of a model must stay readable."""
# Modules whose transformers take numbers only.
_NUMERIC = (
    "sklearn.decomposition.",
    "sklearn.impute._iterative",
    "sklearn.impute._knn",
    "sklearn.preprocessing._data",
    "sklearn.preprocessing._discretization",
    "sklearn.preprocessing._polynomial",
)
# These estimators may take columns of pandas' own categories.
_NOT_ONLY_NUMBERS = "sklearn.ensemble._hist_gradient_boosting."


@dataclass(frozen=True)
class Column:
    """One column's needs. `categories` are the only values it may have; None: any of its datatype."""

    datatype: str
    categories: tuple[Category, ...] | None = None
    missing: bool = True
    """Whether a value may be missing, where there are categories."""
    by_nan: bool = False
    """Whether a missing text must be a NaN, as pandas read it in training, because None would be refused."""

    def spec(self, name: str) -> TensorSpec:
        categories = self.categories
        if categories is not None and self.missing:
            # NaN is how a missing number travels, and it equals no category.
            categories = (*categories, None) if self.datatype == "BYTES" else None
        return TensorSpec(name, self.datatype, (-1,), categories=categories)


def known_columns(estimator: Any, names: Sequence[str]) -> dict[str, Column]:
    """Return the columns of which it is known what they must be."""
    found: dict[str, Column | None] = {}
    try:
        for name, column in _uses(estimator, tuple(names), onward=False):
            found[name] = _both(found[name], column) if name in found else column
    except Exception:
        # Other versions of scikit-learn keep things elsewhere. The estimator predicts all the same, and what is known
        # of its columns then is their names.
        return {}
    return {name: column for name, column in found.items() if column is not None}


def column_specs(columns: Mapping[str, Column], names: Sequence[str]) -> tuple[TensorSpec, ...] | None:
    """Return the inputs column by column, or None where one tensor of numbers says the same or a column is unknown."""
    if any(name not in columns for name in names) or all(
        columns[name].datatype in ("FP64", "INT64") for name in names
    ):
        return None
    specs = (columns[name].spec(name) for name in names)
    return tuple(
        spec
        if spec.categories is None or len(spec.categories) <= _MOST_SHOWN
        else replace(spec, categories=None)
        for spec in specs
    )


def blame(columns: Mapping[str, Column], inputs: Mapping[str, Array], names: Sequence[str]) -> None:
    """Raise InvalidInput if one of the inputs, which an estimator failed on, is not what its column must be.

    `inputs` are one tensor [rows, features] or one tensor per column, `names` the columns in the order of the training.
    """
    single = next(iter(inputs.values())) if inputs.keys().isdisjoint(names) else None
    for index, name in enumerate(names if single is not None else inputs):
        if name not in columns:
            continue
        array = inputs[name].reshape(-1) if single is None else single[:, index]
        check = InputCheck(Signature((columns[name].spec(name),), ()))
        try:
            check.check_inputs({name: array})
        except InvalidInput as error:
            _, _, place = error.field.partition(".")
            if single is None:
                raise InvalidInput(f"inputs[{index}].{place}", error.expected, error.got) from error
            if place.startswith("data["):
                row = int(place.removeprefix("data[").removesuffix("]"))
                field = f"inputs[0].data[{row * len(names) + index}]"
                raise InvalidInput(field, error.expected, error.got) from error


def _uses(step: Any, names: tuple[str, ...], onward: bool) -> Iterator[tuple[str, Column | None]]:
    """Yield every column with what this step needs it to be, None where that is not known.

    `onward` says whether what this step passes on as it came must be numbers.
    """
    kind = _own_name(step)
    if kind == "Pipeline":
        yield from _through_pipeline(step, names, onward)
    elif kind == "ColumnTransformer":
        for _, part, places in step.transformers_:
            # Of a column that is thrown away nothing is known: it may be anything.
            if not (isinstance(part, str) and part == "drop"):
                yield from _uses(part, _named(places, names), onward)
    elif kind == "FeatureUnion":
        for _, part in step.transformer_list:
            yield from _uses(part, names, onward)
    elif kind in ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder"):
        strict = getattr(step, "handle_unknown", None) == "error"
        for name, values in zip(names, step.categories_, strict=True):
            yield name, _encoded(values, strict)
    elif kind in ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer"):
        yield from ((name, Column("BYTES")) for name in names)
    else:
        numeric = onward if _passes_on(step) else _takes_numbers(step)
        yield from ((name, Column("FP64") if numeric else None) for name in names)


def _own_name(step: Any) -> str:
    """Return the name of a class of scikit-learn's own, "" for others', whatever they are called."""
    return type(step).__name__ if type(step).__module__.startswith("sklearn.") else ""


def _passes_on(step: Any) -> bool:
    if isinstance(step, str):
        return step == "passthrough"
    return _own_name(step) == "FunctionTransformer" and step.func is None


def _takes_numbers(step: Any) -> bool:
    module = type(step).__module__
    if hasattr(step, "predict"):
        return bool(_own_name(step)) and not module.startswith(_NOT_ONLY_NUMBERS)
    if _own_name(step) == "SimpleImputer":
        return bool(step.statistics_.dtype.kind in "fiu")
    return module.startswith(_NUMERIC)


def _through_pipeline(
    pipeline: Any, names: tuple[str, ...], onward: bool
) -> Iterator[tuple[str, Column | None]]:
    """Yield what the first step needs that does more than to fill in missing values."""
    steps = [step for _, step in pipeline.steps if step is not None and step != "passthrough"]
    filled = by_nan = False
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        if after is not None and _own_name(step) == "SimpleImputer" and _same_columns(step, after, names):
            filled = True
            by_nan = by_nan or step.missing_values is not None
            continue
        numbers = onward if after is None else _takes_numbers(after)
        for name, column in _uses(step, names, numbers):
            if column is None or not filled:
                yield name, column
            else:
                # An encoder that knows None as a category takes it as it is.
                refused = column.datatype == "BYTES" and column.categories is not None and not column.missing
                yield name, replace(column, missing=True, by_nan=column.by_nan or (by_nan and refused))
        return
    yield from ((name, Column("FP64") if onward else None) for name in names)


def _same_columns(imputer: Any, after: Any, names: tuple[str, ...]) -> bool:
    """Whether what leaves an imputer is what came, column for column: some leave columns out, or add some."""
    return not imputer.add_indicator and getattr(after, "n_features_in_", None) == len(names)


def _encoded(values: Array, strict: bool) -> Column | None:
    """Return what an encoder's categories tell."""
    present = [value for value in values.tolist() if not _is_missing(value)]
    if not present:
        return None
    kinds = {type(value) for value in present}
    datatype = {
        frozenset({str}): "BYTES",
        frozenset({bool}): "BOOL",
        frozenset({int}): "INT64",
    }.get(frozenset(kinds), "FP64" if kinds <= {int, float} else None)
    if datatype is None:
        return None
    missing = len(present) < len(values)
    if missing and datatype == "INT64":
        datatype = "FP64"
    if missing and datatype == "BOOL":
        return None
    if not strict:
        # A number that it never saw is as good as any other, a fraction too.
        return Column("FP64" if datatype == "INT64" else datatype)
    by_nan = missing and datatype == "BYTES" and not any(value is None for value in values.tolist())
    return Column(datatype, tuple(present), missing, by_nan)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _both(one: Column | None, other: Column | None) -> Column | None:
    """Return what suits two transformers that get the same column."""
    if one is None or other is None:
        return None
    datatypes = {one.datatype, other.datatype}
    if len(datatypes) > 1 and datatypes != {"FP64", "INT64"}:
        return None
    listed = [column for column in (one, other) if column.categories is not None]
    if not listed:
        return Column("FP64" if len(datatypes) > 1 else one.datatype)
    first, second = listed[0], listed[-1]
    categories = tuple(value for value in first.categories or () if value in (second.categories or ()))
    if not categories:
        return None
    missing = first.missing and second.missing
    return Column(first.datatype, categories, missing, first.by_nan or second.by_nan)


def _named(places: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of what a ColumnTransformer was told: names, numbers, truth values or a slice of these."""
    if isinstance(places, str | int):
        places = [places]
    if isinstance(places, slice):
        ends = [names.index(end) if isinstance(end, str) else end for end in (places.start, places.stop)]
        if isinstance(places.stop, str) and ends[1] is not None:
            ends[1] += 1  # a slice of names includes its end
        return names[slice(ends[0], ends[1], places.step)]
    chosen = list(places)
    if chosen and all(isinstance(place, bool | np.bool_) for place in chosen):
        return tuple(name for name, use in zip(names, chosen, strict=True) if use)
    return tuple(place if isinstance(place, str) else names[place] for place in chosen)
