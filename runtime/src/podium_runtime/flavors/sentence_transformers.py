"""Sentence embeddings: a folder that sentence-transformers wrote (modules.json beside the modules).

`text` (BYTES, [-1]) -> `embedding` (FP32, [-1, size]), pooled and normalised as the folder says. A text that is longer
than the model can take is cut, as the library does. Code that comes with the model is never run, and nothing is
fetched.
"""

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium_runtime.flavors.torch_tensors import prepare
from podium_runtime.flavors.transformers import TEXT, texts_of
from podium_runtime.signature import Signature, TensorSpec
from podium_runtime.tensors import Array

OUTPUT = "embedding"
_ROWS_PER_CALL = 64


def load(folder: Path, entry: str, options: Mapping[str, Any], threads: int) -> "SentenceModel":
    """Return the model in `folder` (or in its subfolder `entry`)."""
    prepare(threads)
    import sentence_transformers

    return SentenceModel(
        sentence_transformers.SentenceTransformer(
            str(folder / entry),
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    )


class SentenceModel:
    """One sentence encoder."""

    columns: Sequence[str] | None = None
    rows_independent = True

    def __init__(self, model: Any) -> None:
        self._model = model
        self.properties: Mapping[str, Any] = {"task": "sentence-embedding", "longest": model.max_seq_length}

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        answer = self._model.encode(
            texts_of(inputs), batch_size=_ROWS_PER_CALL, show_progress_bar=False, convert_to_numpy=True
        )
        return {OUTPUT: np.asarray(answer, dtype=np.float32)}

    def infer_signature(self) -> Signature | None:
        size = int(self.predict({TEXT: np.array(["a"], dtype=object)}, None)[OUTPUT].shape[1])
        return Signature((TensorSpec(TEXT, "BYTES", (-1,)),), (TensorSpec(OUTPUT, "FP32", (-1, size)),))

    def framework(self) -> dict[str, str]:
        names = ("sentence-transformers", "transformers", "torch", "numpy")
        return {name: importlib.metadata.version(name) for name in names}
