"""Whether a model's rows are independent, found out by asking it.

A graph whose first axis is free (ONNX, TorchScript) may mean rows by that axis, or the steps of one sequence, or the
nodes of one graph: its signature does not tell. Before requests of different callers share a call of such a model,
`server` has it asked here, in the model thread, at warm-up: three different rows together must give what each gives
alone. That proves nothing for all inputs, but a model that takes a mean over its rows, attends from one to another,
or normalizes by the batch does not pass.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from podium_runtime.config import Config
from podium_runtime.flavors import Model
from podium_runtime.loading import Loaded
from podium_runtime.messages import request_from_document
from podium_runtime.signature import InputCheck, Signature, TensorSpec
from podium_runtime.tensors import DATATYPES, Array

ROWS = 3
RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""How far floating-point outputs may lie apart; libraries add in another order for another number of rows."""
_LARGEST_EXAMPLE = 10_000_000
_SCALES = (1.0, 1000.0, 30.0)
"""Of made-up numbers: trees and rounded outputs answer many inputs alike, but seldom at every scale."""
_HINT = "declare warmup.example with rows that suit it"

log = logging.getLogger(__name__)

Inputs = dict[str, Array]


@dataclass(frozen=True)
class Finding:
    """Whether calls may be shared, and the reason in words."""

    independent: bool
    reason: str


def probe_rows(config: Config, loaded: Loaded) -> Finding | None:
    """Return what asking the model shows; None where it declares itself, or where its signature is not by row.

    With `warmup.requests` of 0 the model is not to be called before its first request, and nothing is shown.
    """
    signature = loaded.signature
    if loaded.model.rows_independent is not None or signature is None or not signature.works_by_row:
        return None
    if not config.warmup_requests:
        finding = Finding(False, "the warm-up is switched off, so the model was not asked")
    else:
        finding = examine(loaded.model, signature, _declared(config, loaded))
    extra = {"independent": finding.independent, "reason": finding.reason}
    log.info("asked whether the model's rows are independent", extra=extra)
    return finding


def _declared(config: Config, loaded: Loaded) -> Inputs | None:
    if config.warmup_example is None:
        return None
    request = request_from_document(config.warmup_example)
    return InputCheck(loaded.signature, loaded.model.columns).check_inputs(request.inputs)[0]


def examine(model: Model, signature: Signature, example: Mapping[str, Array] | None) -> Finding:
    """Return whether three rows together give what each gives alone.

    Rows are made from `example` first, then from the signature, until some are taken by the model and answered
    differently; where none are, nothing is shown, and calls are not shared.
    """
    reason = f"the model took no example that could be made up for it; {_HINT}"
    for inputs in _trials(signature, example):
        try:
            together = model.predict(inputs, None)
            alone = [
                model.predict({name: array[row : row + 1] for name, array in inputs.items()}, None)
                for row in range(ROWS)
            ]
            difference = _difference(together, alone, signature)
        except BaseException as error:
            # As in `calling`: whatever a model raises on made-up rows, it may suit real ones.
            reason = f"the model failed on the examples made up for it ({type(error).__name__}); {_HINT}"
            continue
        if difference is not None:
            return Finding(False, difference)
        if not _all_alike(together):
            return Finding(True, f"{ROWS} rows together gave what each gave alone")
        reason = f"the model answered all examples alike, which shows nothing; {_HINT}"
    return Finding(False, reason)


def _difference(
    together: Mapping[str, Array], alone: Sequence[Mapping[str, Array]], signature: Signature
) -> str | None:
    """Return in what way the answers differ, None where they do not."""
    halves = {spec.name for spec in signature.outputs if spec.datatype == "BF16"}
    for name, array in together.items():
        if array.ndim == 0 or array.shape[0] != ROWS:
            return f"output {name} has shape {list(array.shape)} for {ROWS} rows"
        for row, answer in enumerate(alone):
            single = answer[name]
            if single.shape != (1, *array.shape[1:]) or single.dtype.kind != array.dtype.kind:
                return f"output {name} has another shape for one row"
            if not _equal(single[0], array[row], name in halves):
                return f"output {name} of a row depends on the rows beside it"
    return None


def _equal(one: Array, other: Array, half: bool) -> bool:
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    # The last place of the narrow types is wider than the tolerance: 2**-7 in bfloat16 (IEEE 754 for the others).
    place = 2.0**-7 if half else float(np.finfo(one.dtype).eps)
    return bool(np.allclose(one, other, rtol=max(RELATIVE, 2 * place), atol=ABSOLUTE, equal_nan=True))


def _all_alike(outputs: Mapping[str, Array]) -> bool:
    return all(_equal(array[0], array[row], False) for array in outputs.values() for row in range(1, ROWS))


def _trials(signature: Signature, example: Mapping[str, Array] | None) -> Iterator[Inputs]:
    random = np.random.default_rng(0)
    if example is not None:
        specs = {spec.name: spec for spec in signature.inputs}
        if all(name in specs for name in example):
            yield {name: _like(array, specs[name], random) for name, array in example.items()}
    # Two of everything inside a row first: with one, a softmax inside it would hide what comes from outside.
    needed = [spec for spec in signature.inputs if not spec.optional]
    for inner in (2, 1):
        shapes = [(ROWS, *(inner if size == -1 else size for size in spec.shape[1:])) for spec in needed]
        if any(math.prod(shape) > _LARGEST_EXAMPLE for shape in shapes):
            continue
        for scale in _SCALES:
            yield {
                spec.name: _made_up(spec, shape, scale, random)
                for spec, shape in zip(needed, shapes, strict=True)
            }


def _like(array: Array, spec: TensorSpec, random: np.random.Generator) -> Array:
    """Return rows as the example's own, or different ones that resemble its first."""
    if len(array) >= ROWS:
        return array[:ROWS]
    rows = np.repeat(array[:1], ROWS, axis=0)
    if spec.categories is not None or array.dtype.kind in "Ob":
        made = _made_up(spec, rows.shape, _SCALES[0], random)
        made[:1] = array[:1]
        return made
    if array.dtype.kind in "iu":
        # Other whole numbers may be outside of a vocabulary: those that the example has, in another order.
        mixed = random.permuted(rows.reshape(ROWS, -1), axis=1).reshape(rows.shape)
        mixed[:1] = array[:1]
        return mixed
    noise = random.normal(size=rows.shape) * 0.1
    noise[:1] = 0
    return (rows * (1 + noise) + noise).astype(array.dtype)


def _made_up(spec: TensorSpec, shape: tuple[int, ...], scale: float, random: np.random.Generator) -> Array:
    dtype = DATATYPES[spec.datatype].dtype
    rows = np.arange(ROWS).reshape(ROWS, *[1] * (len(shape) - 1))
    if spec.categories is not None:
        choices = np.empty(len(spec.categories), dtype=object)
        choices[:] = spec.categories
        # Neighbours differ everywhere, if there are two values at all.
        places = (rows + random.integers(0, len(choices), size=shape[1:])) % len(choices)
        picked: Array = choices[places].astype(dtype)
        return picked
    if dtype.kind == "O":
        texts = np.array(["a", "one word", "two more words"], dtype=object)
        # Each row has its own, so that rows of one element differ too.
        return np.broadcast_to(texts[rows], shape).copy()
    if dtype.kind == "f":
        return (random.normal(size=shape) * scale).astype(dtype)
    whole = random.integers(0, 2, size=shape) + rows * (dtype.kind != "b")
    return whole.astype(dtype)
