"""The flavors: which frameworks a model may come from, by name.

`load_model` is called by `loading` in the model thread, after every byte was verified. A flavor's framework is
imported only when a model of that flavor is loaded.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podium_runtime.errors import ModelUnusable
from podium_runtime.flavors.port import Model, Stoppable, Streaming

FLAVORS: dict[str, str] = {
    "lightgbm": "podium_runtime.flavors.lightgbm",
    "mlflow": "podium_runtime.flavors.mlflow",
    "onnx": "podium_runtime.flavors.onnx",
    "python": "podium_runtime.flavors.python",
    "pytorch": "podium_runtime.flavors.pytorch",
    "sentence-transformers": "podium_runtime.flavors.sentence_transformers",
    "sklearn": "podium_runtime.flavors.sklearn",
    "transformers": "podium_runtime.flavors.transformers",
    "xgboost": "podium_runtime.flavors.xgboost",
}

__all__ = ["FLAVORS", "Model", "Stoppable", "Streaming", "load_model"]


def load_model(flavor: str, folder: Path, entry: str, options: Mapping[str, Any], threads: int) -> Model:
    """Return the model in `folder`, loaded by the flavor of that name.

    `entry` is the file below the folder ("" where the folder itself is the model), `options` are the manifest's.
    Raises ModelUnusable for an unknown flavor or a bad option; whatever the framework raises passes through.
    """
    module = FLAVORS.get(flavor)
    if module is None:
        raise ModelUnusable(f"flavor {flavor!r} is unknown; known are {', '.join(sorted(FLAVORS))}")
    model: Model = importlib.import_module(module).load(folder, entry, options, threads)
    return model
