"""A folder that sentence-transformers wrote with save_pretrained: modules.json names the modules and their folders.

Called by `intake`.
"""

from collections.abc import Sequence

from packaging.requirements import Requirement

from podium.registry.formats import known_versions, podium_yaml
from podium.registry.formats.json_text import parse_json, parse_json_list
from podium.registry.formats.port import FlavorName, PushedFiles, Reading
from podium.registry.formats.transformers import CONFIG, SENTENCE_MODULES, refuse_own_code, with_torch
from podium.resources.errors import InvalidInput, Issue
from podium.resources.manifest import Flavor

_VERSIONS = "config_sentence_transformers.json"
_OWN = "sentence_transformers."


class SentenceTransformersFolder:
    """Implements Format."""

    name: FlavorName = "sentence-transformers"
    description = f"a sentence-transformers folder ({SENTENCE_MODULES} beside its modules)"

    def recognises(self, files: PushedFiles) -> bool:
        others = (podium_yaml.FILE, "MLmodel")
        return SENTENCE_MODULES in files.entries and not any(name in files.entries for name in others)

    def read(self, files: PushedFiles, given: Sequence[Requirement]) -> Reading:
        if SENTENCE_MODULES not in files.entries:
            raise InvalidInput(Issue("files", f"expected a file {SENTENCE_MODULES}"))
        _check_modules(files)
        if not any(path.endswith(".safetensors") for path in files.paths):
            raise InvalidInput(
                Issue("files", "expected model.safetensors: weights that are pickled are not loaded"),
                next_step="save the model again with save_pretrained(folder)",
            )
        for path in files.paths:
            if path.rpartition("/")[2] == CONFIG:
                refuse_own_code(parse_json(files, path), path)
        written = parse_json(files, _VERSIONS).get("__version__") if _VERSIONS in files.entries else None
        told = written if isinstance(written, dict) else {}
        library, library_note = known_versions.told_or_known(
            "sentence-transformers",
            told.get("sentence_transformers"),
            known_versions.SENTENCE_TRANSFORMERS,
            known_versions.OLDEST_SENTENCE_TRANSFORMERS,
        )
        transformers, note = known_versions.told_or_known(
            "transformers",
            # The two belong together: where the one is replaced, so is the other.
            told.get("transformers") if library_note is None else None,
            known_versions.TRANSFORMERS,
            known_versions.OLDEST_TRANSFORMERS,
        )
        own, notes = with_torch([library, transformers], [library_note, note], given)
        return Reading(Flavor(name="sentence-transformers"), own, notes=notes)


def _check_modules(files: PushedFiles) -> None:
    """Only classes of the library itself, only folders that are there."""
    for index, module in enumerate(parse_json_list(files, SENTENCE_MODULES)):
        field = f"{SENTENCE_MODULES}: [{index}]"
        kind = module.get("type") if isinstance(module, dict) else None
        if not isinstance(kind, str) or not kind.startswith(_OWN):
            raise InvalidInput(
                Issue(f"{field}.type", f"expected a class of sentence-transformers ({_OWN}...)"),
                next_step=f"write a class that loads it, and name it in a {podium_yaml.FILE}",
            )
        place = module.get("path")
        if not isinstance(place, str) or ".." in place.split("/") or place.startswith("/"):
            raise InvalidInput(Issue(f"{field}.path", "expected a folder of the model"))
