"""The canonical manifest: one JSON document whose sha256 is a model version's digest.

Written by the registry, read by the runtime (which has its own reader: it never imports podium).
"""

import hashlib
import json
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictInt,
    model_serializer,
)

from podium.resources.shape import Spec

_SHA256 = r"^[0-9a-f]{64}$"
Sha256 = Annotated[str, Field(pattern=_SHA256)]
FlavorName = Literal[
    "sklearn",
    "xgboost",
    "lightgbm",
    "onnx",
    "pytorch",
    "transformers",
    "sentence-transformers",
    "mlflow",
    "python",
    "custom",
]
"""`custom`: files for another server, which Podium's own cannot load."""
FLAVORS: tuple[str, ...] = get_args(FlavorName)
Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BF16",
    "BYTES",
]
Category = Annotated[str, Field(max_length=1024)] | StrictBool | StrictInt | FiniteFloat | None


def check_path(value: str) -> str:
    """A relative POSIX path that stays inside its folder, whatever system reads it."""
    parts = value.split("/")
    if (
        not value
        or len(value) > 1024
        or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts)
        or re.search(r"[\x00-\x1f\\:]", value)
    ):
        raise ValueError("expected a relative path with '/' between its parts and no '.', '..', '\\' or ':'")
    return value


ArtifactPath = Annotated[str, AfterValidator(check_path)]


class Flavor(Spec):
    """How to load it. `entry` is the file to load, empty where the whole folder is the model."""

    name: FlavorName
    entry: str = ""
    options: dict[str, str] = Field(default_factory=dict)


class FileEntry(Spec):
    """One file of the version. `size` in bytes."""

    path: ArtifactPath
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class TensorSpec(Spec):
    """One named tensor of the Open Inference Protocol; -1 in `shape` is any length.

    `categories` are the values that an input may have, null among them where one may be missing.
    """

    name: Annotated[str, Field(min_length=1, max_length=256)]
    datatype: Datatype
    shape: list[Annotated[int, Field(ge=-1)]] = Field(max_length=16)
    optional: bool = False
    categories: list[Category] | None = Field(default=None, min_length=1, max_length=10_000)

    @model_serializer(mode="wrap")
    def _without_none(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A manifest without categories has the bytes, and so the digest, that it had before there were any."""
        document: dict[str, Any] = write(self)
        if document.get("categories") is None:
            document.pop("categories", None)
        return document


class Signature(Spec):
    """What the model takes and gives."""

    inputs: list[TensorSpec] = Field(max_length=10_000)
    outputs: list[TensorSpec] = Field(default_factory=list, max_length=10_000)


class LockReference(Spec):
    """The resolved requirements: a text with hashes, stored as a blob."""

    sha256: Sha256


class DatasetReference(Spec):
    """A fingerprint of data that the version was made from."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


class GitReference(Spec):
    """The commit that the pusher's folder was at."""

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")]
    dirty: bool = False


class Manifest(Spec):
    """All that a version is. Its digest is `sha256:` over `canonical_bytes`."""

    format: Literal["podium.manifest/1"] = "podium.manifest/1"
    flavor: Flavor
    files: list[FileEntry] = Field(min_length=1, max_length=100_000)
    signature: Signature | None = None
    python: Annotated[str, Field(pattern=r"^3\.[0-9]{1,2}$")]
    requirements: list[str] = Field(default_factory=list, max_length=2000)
    lock: LockReference
    datasets: list[DatasetReference] = Field(default_factory=list, max_length=1000)
    git: GitReference | None = None
    metrics: dict[str, float] = Field(default_factory=dict, max_length=1000)
    lineage: dict[str, Any] = Field(default_factory=dict)

    def canonical_bytes(self) -> bytes:
        """UTF-8 JSON, keys sorted, no spaces, no NaN."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))

    def digest(self) -> str:
        """`sha256:<hex>` of the canonical bytes."""
        return "sha256:" + hashlib.sha256(self.canonical_bytes()).hexdigest()


def canonical_json(value: Any) -> bytes:
    """One byte string for one value: UTF-8, sorted keys, no spaces. Raises ValueError for NaN and infinities."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
