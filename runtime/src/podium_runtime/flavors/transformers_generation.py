"""Text generation with a causal language model, whole or token by token.

Made by `transformers`. Inputs: `text` (BYTES, [-1]) and, where the model's own generation settings shall not hold,
`max_new_tokens` (INT64, [1]), `temperature` and `top_p` (FP64, [1]; either of them draws instead of taking the
likeliest token) and `seed` (INT64, [1]). Output: `generated_text`, what comes after the prompt. Prompts of one request
are answered one after the other: padding would change what is generated.

The prompt and what is generated share the model's window. A prompt that fills it is an error; `max_new_tokens` is cut
to what is left.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from podium_runtime.errors import DeadlineExceeded, InvalidInput
from podium_runtime.flavors.transformers import TEXT, longest, texts_of, versions
from podium_runtime.signature import Signature, TensorSpec
from podium_runtime.tensors import Array

OUTPUT = "generated_text"
DEFAULT_NEW_TOKENS = 256
MOST_NEW_TOKENS = 8192
_SILENT_TOKENS = 16
"""After so many tokens without a whole word a stream gives an empty piece, so that no event takes long."""
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
        return self.predict_until(inputs, wanted, lambda: False)

    def predict_until(
        self, inputs: Mapping[str, Array], wanted: frozenset[str] | None, stopped: Callable[[], bool]
    ) -> dict[str, Array]:
        """As `predict`; raises DeadlineExceeded after the token during which `stopped` became true."""
        import torch

        settings = self._settings(inputs)
        # Every prompt of a seeded request begins with the seed, and what comes after the request does not.
        with torch.random.fork_rng(devices=[], enabled="seed" in settings):
            texts = [self._generate(text, settings, stopped) for text in texts_of(inputs)]
        return {OUTPUT: np.array(texts, dtype=object)}

    def predict_stream(self, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """Yield the generated text in pieces of whole words; an empty piece where none is whole for a while.

        Takes one prompt. Nothing is generated between two pieces; closing the iterator stops the generation.
        """
        texts = texts_of(inputs)
        if len(texts) != 1:
            raise InvalidInput("inputs[0].shape", "one prompt for a stream", str(len(texts)))
        settings = self._settings(inputs)
        arguments = self._arguments(texts[0], settings)
        work = _Generation(self._model, self._tokenizer, arguments, settings.get("seed"))
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

    def _generate(self, text: str, settings: Mapping[str, Any], stopped: Callable[[], bool]) -> str:
        import torch

        late = False

        def over(tokens: Any, scores: Any, **_: Any) -> Any:
            nonlocal late
            late = late or stopped()
            return torch.full((tokens.shape[0],), late, dtype=torch.bool)

        arguments = self._arguments(text, settings)
        if "seed" in settings:
            torch.manual_seed(settings["seed"])
        with torch.inference_mode():
            answer = self._model.generate(**arguments, stopping_criteria=[over])
        if late:
            raise DeadlineExceeded("nobody waits for the text any more that the model was generating")
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
        tokens = self._tokenizer(text, return_tensors="pt")
        size = int(tokens["input_ids"].shape[1])
        if size == 0:
            raise InvalidInput("inputs[0].data[0]", "a prompt of at least one token", "none")
        left = MOST_NEW_TOKENS if self._window is None else self._window - size
        if left < 1:
            raise InvalidInput(
                "inputs[0].data[0]", f"a prompt of at most {(self._window or 0) - 1} tokens", f"{size} tokens"
            )
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

    transformers hands out tokens through a callback from inside the call: hence the thread. It only runs while
    somebody waits for the next piece, so that it neither competes with other calls of the model nor runs ahead of a
    slow reader. The state of PyTorch's random numbers, which are the process's, goes in and out with it.
    """

    def __init__(self, model: Any, tokenizer: Any, arguments: Mapping[str, Any], seed: int | None) -> None:
        from transformers import TextStreamer

        self._piece: str | BaseException | None = None
        self._go = threading.Semaphore(0)
        self._came = threading.Semaphore(0)
        self._stopped = False
        self._silent = 0
        self._random = _random_state(seed)
        hand_over = self._hand_over

        class Streamer(TextStreamer):  # type: ignore[misc]  # transformers is not typed
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                if text:
                    hand_over(text)

        streamer = Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._thread = threading.Thread(
            target=self._run, args=(model, {**arguments, "streamer": streamer}), name="generate", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[str]:
        import torch

        while True:
            others = torch.get_rng_state()
            torch.set_rng_state(self._random)
            self._go.release()
            self._came.acquire()
            self._random = torch.get_rng_state()
            torch.set_rng_state(others)
            if self._piece is None:
                return
            if isinstance(self._piece, BaseException):
                raise self._piece
            yield self._piece

    def stop(self) -> None:
        """End the generation after its current token, and wait for that."""
        self._stopped = True
        self._go.release()
        self._thread.join()

    def _hand_over(self, piece: str) -> None:
        if self._stopped:
            return
        self._silent = 0
        self._piece = piece
        self._came.release()
        self._go.acquire()

    def _run(self, model: Any, arguments: Mapping[str, Any]) -> None:
        import torch

        def stopped(tokens: Any, scores: Any, **_: Any) -> Any:
            self._silent += 1
            if self._silent >= _SILENT_TOKENS:
                self._hand_over("")
            return torch.full((tokens.shape[0],), self._stopped, dtype=torch.bool)

        self._go.acquire()
        end: BaseException | None = None
        try:
            if not self._stopped:
                with torch.inference_mode():
                    model.generate(**arguments, stopping_criteria=[stopped])
        except BaseException as error:
            end = error
        self._piece = end
        self._came.release()


def _random_state(seed: int | None) -> Any:
    """Return a state of PyTorch's generator of random numbers: that of the seed, or one that nobody knows."""
    import torch

    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator.get_state()
