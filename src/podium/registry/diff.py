"""What differs between two versions. Pure.

Called by the API for `podium model diff`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from packaging.requirements import InvalidRequirement, Requirement

from podium.resources.manifest import Manifest


@dataclass(frozen=True)
class Difference:
    """One thing that differs. `before` is None where it was added, `after` where it was removed."""

    part: Literal["file", "requirement", "input", "output", "metric", "dataset", "setting"]
    name: str
    before: Any
    after: Any

    @property
    def change(self) -> Literal["added", "removed", "changed"]:
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"

    def document(self) -> dict[str, Any]:
        """JSON-ready: part, name, change, before, after."""
        return {
            "part": self.part,
            "name": self.name,
            "change": self.change,
            "before": self.before,
            "after": self.after,
        }


def diff(before: Manifest, after: Manifest) -> list[Difference]:
    """Differences in a fixed order: files, requirements, signature, metrics, datasets, settings. Empty: the same."""
    found: list[Difference] = []
    found += _compare("file", _files(before), _files(after))
    found += _compare("requirement", _requirements(before), _requirements(after))
    found += _compare("input", _tensors(before, "inputs"), _tensors(after, "inputs"))
    found += _compare("output", _tensors(before, "outputs"), _tensors(after, "outputs"))
    found += _compare("metric", before.metrics, after.metrics)
    found += _compare("dataset", _datasets(before), _datasets(after))
    found += _compare("setting", _settings(before), _settings(after))
    return found


def _compare(
    part: Literal["file", "requirement", "input", "output", "metric", "dataset", "setting"],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> list[Difference]:
    return [
        Difference(part, name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _files(manifest: Manifest) -> dict[str, Any]:
    return {file.path: {"sha256": file.sha256, "size": file.size} for file in manifest.files}


def _requirements(manifest: Manifest) -> dict[str, Any]:
    """By package, so that another version of the same package is one change."""
    found: dict[str, list[str]] = {}
    for text in manifest.requirements:
        try:
            name = Requirement(text).name
        except InvalidRequirement:
            name = text
        found.setdefault(name, []).append(text)
    return {name: ", ".join(sorted(texts)) for name, texts in found.items()}


def _tensors(manifest: Manifest, side: Literal["inputs", "outputs"]) -> dict[str, Any]:
    tensors = getattr(manifest.signature, side) if manifest.signature else []
    return {tensor.name: tensor.model_dump(mode="json", exclude={"name"}) for tensor in tensors}


def _datasets(manifest: Manifest) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {}
    for dataset in manifest.datasets:
        found.setdefault(dataset.name, []).append({"sha256": dataset.sha256, "size": dataset.size})
    return {name: each[0] if len(each) == 1 else each for name, each in found.items()}


def _settings(manifest: Manifest) -> dict[str, Any]:
    return {
        "flavor": manifest.flavor.model_dump(mode="json"),
        "python": manifest.python,
        "lock": manifest.lock.sha256,
        "git": manifest.git.model_dump(mode="json") if manifest.git else None,
        "lineage": manifest.lineage or None,
    }
