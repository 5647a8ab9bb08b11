"""Bodies of requests that are not resources: what a push and an import ask for. Data and validation only.

The client builds them, the API parses them, the registry reads them.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from podium.resources.manifest import DatasetReference, FileEntry, GitReference, Signature, canonical_json
from podium.resources.shape import Name, Spec

LINEAGE_BYTES = 256 * 1024
"""How long a lineage document may be, as canonical JSON."""
LINEAGE_DEPTH = 20
"""How many objects and lists may stand inside each other in a lineage document."""

Note = Annotated[str, Field(max_length=16_384)]
PythonVersion = Annotated[str, Field(pattern=r"^3\.[0-9]{1,2}$")]
RequirementText = Annotated[str, Field(min_length=1, max_length=1024)]
MetricName = Annotated[str, Field(min_length=1, max_length=256)]
SourceUri = Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[\x21-\x7e]+( [\x21-\x7e]+)*$")]


class PushRequest(Spec):
    """POST .../models/{name}/versions. Every file's bytes are in the blob store already."""

    files: list[FileEntry] = Field(min_length=1, max_length=10_000)
    flavor: Literal["sklearn", "mlflow", "onnx", "python"] | None = None
    """None: found by looking at the files."""
    requirements: list[RequirementText] | None = Field(default=None, max_length=500)
    """PEP 508, one each. Each replaces what the model's own files say about the same package, or is added."""
    python: PythonVersion | None = None
    """None: what the model's own files say, else the server's own version."""
    signature: Signature | None = None
    """None: what the model's own files say, else what the loaded model tells."""
    metrics: dict[MetricName, float] = Field(default_factory=dict, max_length=1000)
    datasets: list[DatasetReference] = Field(default_factory=list, max_length=1000)
    git: GitReference | None = None
    lineage: dict[str, Any] = Field(default_factory=dict)
    note: Note = ""
    alias: Name | None = None
    """Set to the new version in the same transaction."""

    @field_validator("metrics")
    @classmethod
    def _finite(cls, metrics: dict[str, float]) -> dict[str, float]:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"{name[:80]}: expected a finite number, got {value}")
        return metrics

    @field_validator("lineage")
    @classmethod
    def _check_lineage(cls, lineage: dict[str, Any]) -> dict[str, Any]:
        if _depth(lineage) > LINEAGE_DEPTH:
            raise ValueError(f"expected at most {LINEAGE_DEPTH} objects and lists inside each other")
        try:
            size = len(canonical_json(lineage))
        except (ValueError, TypeError) as error:
            raise ValueError("expected JSON: no NaN, no infinity, no unpaired surrogates") from error
        if size > LINEAGE_BYTES:
            raise ValueError(f"expected at most {LINEAGE_BYTES} bytes as JSON, got {size}")
        return lineage


class ImportRequest(Spec):
    """POST .../models/{name}/import: a version of an MLflow registry, or the model of a run."""

    uri: SourceUri
    """`models:/NAME/3`, `models:/NAME@ALIAS` or `runs:/RUN_ID/PATH`."""
    tracking_uri: SourceUri | None = None
    """None: the first one that the server's operator configured."""
    registry_uri: SourceUri | None = None
    """None: the same as `tracking_uri`."""
    requirements: list[RequirementText] | None = Field(default=None, max_length=500)
    """As in a push."""
    python: PythonVersion | None = None
    note: Note = ""
    alias: Name | None = None


def _depth(value: object) -> int:
    """How many containers stand inside each other, found without recursion; stops one past the limit."""
    depth, level = 0, [value]
    while level and depth <= LINEAGE_DEPTH:
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list | tuple):
                inner.extend(item)
        if not any(isinstance(item, dict | list | tuple) for item in level):
            break
        depth += 1
        level = inner
    return depth
