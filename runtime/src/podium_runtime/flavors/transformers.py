"""Hugging Face transformers: a folder with config.json, safetensors and a tokenizer, by its task.

    text-classification   `text` -> `label`, `score` (of that label) and `scores` (one per label, in the model's order)
    feature-extraction    `text` -> `embedding`, the mean of the last hidden states over the text's tokens
    text-generation       `text` -> `generated_text`, without the prompt; `transformers_generation` has it

Texts are BYTES of shape [-1]. One that is longer than the model can take is cut at its end, as the pipelines do with
truncation. Texts that share a call are padded to the longest, which moves results in the last digits only.
Code that comes with the model is never run, and nothing is fetched.
"""

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium_runtime.errors import InvalidInput, ModelUnusable
from podium_runtime.flavors.port import Model
from podium_runtime.flavors.torch_tensors import prepare, to_numpy
from podium_runtime.signature import Signature, TensorSpec
from podium_runtime.tensors import Array

TEXT = "text"
TASKS = ("feature-extraction", "text-classification", "text-generation")
_ROWS_PER_CALL = 64
_UNBOUNDED = 10**9
"""transformers writes 1e30 where a tokenizer knows no longest text."""


def load(folder: Path, entry: str, options: Mapping[str, Any], threads: int) -> Model:
    """Return the model in `folder` (or in its subfolder `entry`) for the task that `options["task"]` names."""
    task = options.get("task")
    if task not in TASKS:
        raise ModelUnusable(f"transformers: options.task {task!r} is unknown; known are {', '.join(TASKS)}")
    prepare(threads)
    import transformers

    place = str(folder / entry)
    own = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(place, **own)
    maker = {
        "feature-extraction": transformers.AutoModel,
        "text-classification": transformers.AutoModelForSequenceClassification,
        "text-generation": transformers.AutoModelForCausalLM,
    }[task]
    # float32, whatever the file holds: on a CPU it is the type that every operation has.
    model = maker.from_pretrained(place, use_safetensors=True, dtype="float32", **own).eval()
    if task == "text-generation":
        from podium_runtime.flavors.transformers_generation import GenerationModel

        return GenerationModel(model, tokenizer)
    if tokenizer.pad_token is None:
        # Padding is masked, so that any token will do.
        tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
    return (
        ClassificationModel(model, tokenizer)
        if task == "text-classification"
        else EmbeddingModel(model, tokenizer)
    )


class _TextModel:
    """A tokenizer and an encoder, called with some texts at a time."""

    columns: Sequence[str] | None = None
    rows_independent = True

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._longest = longest(model, tokenizer)

    def framework(self) -> dict[str, str]:
        return versions()

    def _calls(self, inputs: Mapping[str, Array]) -> Any:
        """Yield (tokens, the model's answer) for the texts in order."""
        import torch

        texts = texts_of(inputs)
        for start in range(0, len(texts), _ROWS_PER_CALL):
            tokens = self._tokenizer(
                texts[start : start + _ROWS_PER_CALL],
                padding=True,
                truncation=self._longest is not None,
                max_length=self._longest,
                return_tensors="pt",
            )
            with torch.inference_mode():
                yield tokens, self._model(**tokens)


class ClassificationModel(_TextModel):
    """One sequence classifier."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        config = model.config
        self._labels = [str(config.id2label[index]) for index in range(config.num_labels)]
        # What the pipeline does: several labels at once, or one number, are independent of each other.
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        self._function = (
            "none" if config.problem_type == "regression" else "sigmoid" if several else "softmax"
        )
        self.properties: Mapping[str, Any] = {"task": "text-classification", "labels": self._labels}

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        scores = np.concatenate([self._scores(answer.logits) for _, answer in self._calls(inputs)])
        best = scores.argmax(axis=1)
        label = np.array([self._labels[index] for index in best], dtype=object)
        return {"label": label, "score": scores[np.arange(len(scores)), best], "scores": scores}

    def infer_signature(self) -> Signature | None:
        outputs = (
            TensorSpec("label", "BYTES", (-1,)),
            TensorSpec("score", "FP32", (-1,)),
            TensorSpec("scores", "FP32", (-1, len(self._labels))),
        )
        return Signature((TensorSpec(TEXT, "BYTES", (-1,)),), outputs)

    def _scores(self, logits: Any) -> Array:
        if self._function == "softmax":
            return to_numpy(logits.softmax(dim=-1))
        return to_numpy(logits.sigmoid() if self._function == "sigmoid" else logits)


class EmbeddingModel(_TextModel):
    """One encoder, its last hidden states averaged over the text's own tokens."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        self.properties: Mapping[str, Any] = {"task": "feature-extraction", "pooling": "mean"}

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        parts = []
        for tokens, answer in self._calls(inputs):
            mask = tokens["attention_mask"].unsqueeze(-1).to(answer.last_hidden_state.dtype)
            total = (answer.last_hidden_state * mask).sum(dim=1)
            parts.append(to_numpy(total / mask.sum(dim=1).clamp(min=1)))
        return {"embedding": np.concatenate(parts)}

    def infer_signature(self) -> Signature | None:
        size = int(self._model.config.hidden_size)
        return Signature((TensorSpec(TEXT, "BYTES", (-1,)),), (TensorSpec("embedding", "FP32", (-1, size)),))


def texts_of(inputs: Mapping[str, Array]) -> list[str]:
    """Return the texts of the input `text`. Raises InvalidInput for a null among them."""
    texts = [
        value.decode() if isinstance(value, bytes) else value for value in inputs[TEXT].reshape(-1).tolist()
    ]
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"inputs[{list(inputs).index(TEXT)}].data[{place}]", "a text", "null")
    return texts


def longest(model: Any, tokenizer: Any) -> int | None:
    """Return the most tokens that model and tokenizer both take, None where neither says."""
    known = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    bounds = [int(bound) for bound in known if bound is not None and 0 < bound < _UNBOUNDED]
    return min(bounds) if bounds else None


def versions() -> dict[str, str]:
    """Return the versions of what computes here."""
    return {
        name: importlib.metadata.version(name) for name in ("transformers", "tokenizers", "torch", "numpy")
    }
