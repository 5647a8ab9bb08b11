"""What push infers where a file does not tell is what these tests run with."""

import importlib.metadata
from pathlib import Path

from podium.registry.formats import known_versions

ROOT = Path(__file__).parents[2]
KNOWN = {
    "lightgbm": known_versions.LIGHTGBM,
    "safetensors": known_versions.SAFETENSORS,
    "sentence-transformers": known_versions.SENTENCE_TRANSFORMERS,
    "torch": known_versions.TORCH,
    "transformers": known_versions.TRANSFORMERS,
}


def test_known_versions_are_those_of_this_environment():
    installed = {name: importlib.metadata.version(name).partition("+")[0] for name in KNOWN}
    assert installed == KNOWN


def test_known_versions_are_those_of_the_lock():
    pinned = (ROOT / "requirements/flavors.txt").read_text() + (
        ROOT / "requirements/flavors-torch.txt"
    ).read_text()
    for name, version in KNOWN.items():
        assert f"\n{name}=={version}" in pinned
