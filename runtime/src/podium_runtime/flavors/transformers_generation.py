"""Text generation with a causal language model, whole or token by token.

Made by `transformers`. Inputs: `text` (BYTES, [-1]) and, where the model's own generation settings shall not hold,
`max_new_tokens` (INT64, [1]), `temperature` and `top_p` (FP64, [1]; either of them draws instead of taking the
likeliest token) and `seed` (INT64, [1]). Output: `generated_text`, what comes after the prompt. Prompts of one request
are answered one after the other: padding would change what is generated.

The prompt and what is generated share the model's window. A prompt that fills it is an error; `max_new_tokens` is cut
to what is left.
"""

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from podium_runtime.errors import InvalidInput
from podium_runtime.flavors.transformers import TEXT, longest, texts_of, versions
from podium_runtime.signature import Signature, TensorSpec
from podium_runtime.tensors import Array

OUTPUT = "generated_text"
DEFAULT_NEW_TOKENS = 256
MOST_NEW_TOKENS = 8192
_SETTINGS = {"max_new_tokens": "INT64", "temperature": "FP64", "top_p": "FP64", "seed": "INT64"}


class GenerationModel:
    """One causal language model and its tokenizer."""

    columns: Sequence[str] | None = None
    rows_independent = False  # the settings hold for a whole request

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._window = longest(model, tokenizer)
        self.properties: Mapping[str, Any] = {
            "task": "text-generation",
            **({} if self._window is None else {"window": self._window}),
        }

    def predict(self, inputs: Mapping[str, Array], wanted: frozenset[str] | None) -> dict[str, Array]:
        settings = self._settings(inputs)
        texts = [self._generate(text, settings) for text in texts_of(inputs)]
        return {OUTPUT: np.array(texts, dtype=object)}

    def predict_stream(self, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """Yield the generated text in pieces of whole words. Takes one prompt; closing it stops the generation."""
        texts = texts_of(inputs)
        if len(texts) != 1:
            raise InvalidInput("inputs[0].shape", "one prompt for a stream", str(len(texts)))
        work = _Generation(self._model, self._tokenizer, self._arguments(texts[0], self._settings(inputs)))
        try:
            for piece in work:
                yield {OUTPUT: np.array([piece], dtype=object)}
        finally:
            work.stop()

    def infer_signature(self) -> Signature | None:
        settings = tuple(TensorSpec(name, datatype, (1,), True) for name, datatype in _SETTINGS.items())
        return Signature((TensorSpec(TEXT, "BYTES", (-1,)), *settings), (TensorSpec(OUTPUT, "BYTES", (-1,)),))

    def framework(self) -> dict[str, str]:
        return versions()

    def _generate(self, text: str, settings: Mapping[str, Any]) -> str:
        import torch

        arguments = self._arguments(text, settings)
        with torch.inference_mode():
            answer = self._model.generate(**arguments)
        new = answer[0, arguments["input_ids"].shape[1] :]
        return str(self._tokenizer.decode(new, skip_special_tokens=True))

    def _settings(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        """Return what the request asks for. Raises InvalidInput for a number that cannot be meant."""
        given = {name: inputs[name].reshape(-1)[0].item() for name in _SETTINGS if name in inputs}
        bounds = {
            "max_new_tokens": (1, MOST_NEW_TOKENS),
            "temperature": (0.01, 100.0),
            "top_p": (0.0001, 1.0),
            "seed": (0, 2**63 - 1),
        }
        for name, value in given.items():
            lowest, highest = bounds[name]
            if not lowest <= value <= highest:
                raise InvalidInput(
                    f"inputs[{list(inputs).index(name)}].data[0]",
                    f"{name} from {lowest} to {highest}",
                    "another",
                )
        return given

    def _arguments(self, text: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        import torch

        tokens = self._tokenizer(text, return_tensors="pt")
        size = int(tokens["input_ids"].shape[1])
        if size == 0:
            raise InvalidInput("inputs[0].data[0]", "a prompt of at least one token", "none")
        left = MOST_NEW_TOKENS if self._window is None else self._window - size
        if left < 1:
            raise InvalidInput(
                "inputs[0].data[0]", f"a prompt of at most {(self._window or 0) - 1} tokens", f"{size} tokens"
            )
        if "seed" in settings:
            torch.manual_seed(settings["seed"])
        own = self._model.generation_config
        length = settings.get("max_new_tokens") or own.max_new_tokens or DEFAULT_NEW_TOKENS
        drawn = {name: settings[name] for name in ("temperature", "top_p") if name in settings}
        return {
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "max_new_tokens": min(length, left),
            "pad_token_id": own.pad_token_id
            if own.pad_token_id is not None
            else self._tokenizer.eos_token_id,
            **({"do_sample": True, **drawn} if drawn else {}),
        }


class _Generation:
    """One call of `generate` in a thread of its own, whose text is iterated over while it comes.

    transformers hands out tokens through a callback from inside the call: hence the thread and the queue.
    """

    def __init__(self, model: Any, tokenizer: Any, arguments: Mapping[str, Any]) -> None:
        from transformers import TextStreamer

        pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        self._pieces = pieces
        self._stopped = threading.Event()

        class Streamer(TextStreamer):  # type: ignore[misc]  # transformers is not typed
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                if text:
                    pieces.put(text)

        streamer = Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._thread = threading.Thread(
            target=self._run, args=(model, {**arguments, "streamer": streamer}), name="generate", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[str]:
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def stop(self) -> None:
        """End the generation after its current token, and wait for that."""
        self._stopped.set()
        self._thread.join()

    def _run(self, model: Any, arguments: Mapping[str, Any]) -> None:
        import torch

        def stopped(tokens: Any, scores: Any, **_: Any) -> Any:
            return torch.full((tokens.shape[0],), self._stopped.is_set(), dtype=torch.bool)

        try:
            with torch.inference_mode():
                model.generate(**arguments, stopping_criteria=[stopped])
        except BaseException as error:
            self._pieces.put(error)
        else:
            self._pieces.put(None)
