"""A folder that Hugging Face transformers wrote with save_pretrained: config.json, safetensors and a tokenizer.

Called by `intake`. The architecture in config.json decides the task.
"""

from collections.abc import Sequence
from typing import Any

from packaging.requirements import Requirement

from podium.registry import requirements
from podium.registry.formats import known_versions, podium_yaml
from podium.registry.formats.json_text import parse_json
from podium.registry.formats.port import FlavorName, PushedFiles, Reading
from podium.resources.errors import InvalidInput, Issue
from podium.resources.manifest import Flavor

CONFIG = "config.json"
SENTENCE_MODULES = "modules.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
# The end of an architecture's name and its task; the first that fits.
_TASKS = (
    ("ForSequenceClassification", "text-classification"),
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("Model", "feature-extraction"),
)


class TransformersFolder:
    """Implements Format."""

    name: FlavorName = "transformers"
    description = f"a transformers folder ({CONFIG}, model.safetensors and a tokenizer)"

    def recognises(self, files: PushedFiles) -> bool:
        others = (podium_yaml.FILE, "MLmodel", SENTENCE_MODULES)
        weights = any(name in files.entries for name in (*_WEIGHTS, *_PICKLED))
        return CONFIG in files.entries and weights and not any(name in files.entries for name in others)

    def read(self, files: PushedFiles, given: Sequence[Requirement]) -> Reading:
        if CONFIG not in files.entries:
            raise InvalidInput(Issue("files", f"expected a file {CONFIG}"))
        if not any(name in files.entries for name in _WEIGHTS):
            raise InvalidInput(
                Issue("files", "expected model.safetensors: weights that are pickled are not loaded"),
                next_step="save the model again with save_pretrained(folder)",
            )
        if not any(name in files.entries for name in _TOKENIZERS):
            raise InvalidInput(
                Issue("files", f"no tokenizer; expected one of {', '.join(_TOKENIZERS)}"),
                next_step="save it into the same folder with tokenizer.save_pretrained(folder)",
            )
        config = parse_json(files, CONFIG)
        task = _task(config)
        transformers, note = known_versions.told_or_known(
            "transformers",
            config.get("transformers_version"),
            known_versions.TRANSFORMERS,
            known_versions.OLDEST_TRANSFORMERS,
        )
        own, notes = with_torch([transformers], [note], given)
        return Reading(
            Flavor(name="transformers", options={"task": task}), [*own, *_tokenizer(files)], notes=notes
        )


def with_torch(
    own: list[Requirement], notes: Sequence[str | None], given: Sequence[Requirement]
) -> tuple[list[Requirement], tuple[str, ...]]:
    """The requirements with torch, and the notes about those that the pusher does not replace."""
    torch, note = known_versions.told_or_known("torch", None, known_versions.TORCH)
    found = [*own, torch]
    said = [*notes, note]
    return found, tuple(
        words
        for requirement, words in zip(found, said, strict=True)
        if words is not None and not requirements.has(given, requirement.name)
    )


def refuse_own_code(config: dict[str, Any], name: str) -> None:
    """Raises InvalidInput for a model that is loaded with code from its folder or from a hub."""
    if config.get("auto_map"):
        raise InvalidInput(
            Issue(f"{name}: auto_map", "the model is loaded by code that comes with it, which is never run"),
            next_step=f"write a class that loads it, and name it in a {podium_yaml.FILE}",
        )


def _task(config: dict[str, Any]) -> str:
    refuse_own_code(config, CONFIG)
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    for ending, task in _TASKS:
        if architecture.endswith(ending):
            return task
    known = ", ".join(f"*{ending} ({task})" for ending, task in _TASKS)
    raise InvalidInput(
        Issue(f"{CONFIG}: architectures", f"{architecture[:80]!r} has no known task; known: {known}"),
        next_step=f"write a class that loads it, and name it in a {podium_yaml.FILE}",
    )


def _tokenizer(files: PushedFiles) -> list[Requirement]:
    """What a tokenizer needs that is not in the form of the library tokenizers."""
    if "tokenizer.json" in files.entries or not any(path.endswith(".model") for path in files.paths):
        return []
    return [Requirement("sentencepiece"), Requirement("protobuf")]
