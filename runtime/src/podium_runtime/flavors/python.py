"""A Python class of the user's own.

`options["class"]` is `module:Class`, the module lying in the version's folder. The class is made without
arguments, then `load(path)` is called if it has one (path: the folder, a str), and `predict(inputs)` per batch:
inputs are numpy arrays by name, the answer is a dict of arrays, or one array, which becomes the output that the
signature names (or `output`; `options["outputs"]`, a JSON list, has the names of a signature that stands outside the
class). An optional attribute `signature` has the manifest's form; with -1 as leading
size everywhere it promises that rows are independent, which lets requests share a call.

A class that also has `predict_stream(inputs)`, a generator, can be asked for its answer piece by piece: each piece
is what `predict` may return.
"""

import importlib
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium_runtime.errors import ModelUnusable
from podium_runtime.signature import Signature, parse_signature
from podium_runtime.tensors import Array


def load(folder: Path, entry: str, options: Mapping[str, Any], threads: int) -> "PythonModel":
    """Return the user's model, made and loaded."""
    named = options.get("class")
    module_name, _, class_name = named.partition(":") if isinstance(named, str) else ("", "", "")
    if not module_name or not class_name:
        raise ModelUnusable("python: options.class must name a class as module:Class")
    sys.path.insert(0, str(folder))
    module = importlib.import_module(module_name)
    made: Any = getattr(module, class_name, None)
    if not isinstance(made, type):
        known = sorted(name for name, value in vars(module).items() if isinstance(value, type))
        raise ModelUnusable(
            f"python: {module_name} has no class {class_name}; it has {', '.join(known) or 'none'}"
        )
    instance: Any = made()
    if not callable(getattr(instance, "predict", None)):
        raise ModelUnusable(f"python: {class_name} has no predict method")
    if callable(getattr(instance, "load", None)):
        instance.load(str(folder))
    outputs = json.loads(options.get("outputs") or "[]")
    if callable(getattr(instance, "predict_stream", None)):
        return StreamingPythonModel(instance, outputs)
    return PythonModel(instance, outputs)


class PythonModel:
    """One instance of the user's class."""

    columns: Sequence[str] | None = None
    rows_independent = True  # the class promises it by declaring a leading -1

    def __init__(self, instance: Any, outputs: Sequence[str] = ()) -> None:
        self._instance = instance
        declared = getattr(instance, "signature", None)
        try:
            self._signature = None if declared is None else parse_signature(declared)
        except ValueError as error:
            raise ModelUnusable(f"python: {error}") from error
        names = [spec.name for spec in self._signature.outputs] if self._signature else list(outputs)
        self._output = names[0] if len(names) == 1 else "output"
        self.properties: Mapping[str, Any] = {"class": type(instance).__name__}

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        return self._named(self._instance.predict(dict(inputs)))

    def infer_signature(self) -> Signature | None:
        return self._signature

    def framework(self) -> dict[str, str]:
        return {"numpy": importlib.metadata.version("numpy")}

    def _named(self, answer: Any) -> dict[str, Array]:
        # Copies, because a class may fill one buffer again on the next call while this answer is still being written.
        if isinstance(answer, Mapping):
            return {str(name): np.array(value) for name, value in answer.items()}
        return {self._output: np.array(answer)}


class StreamingPythonModel(PythonModel):
    """One instance of a class that has `predict_stream` too."""

    def predict_stream(self, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """Yield what the class yields; closing this iterator closes the class's own, if it is a generator."""
        pieces = iter(self._instance.predict_stream(dict(inputs)))
        try:
            for piece in pieces:
                yield self._named(piece)
        finally:
            if callable(close := getattr(pieces, "close", None)):
                close()
