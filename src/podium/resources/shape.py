"""The shape that every resource has: apiVersion, kind, metadata, spec, status. Data and validation only.

`Spec` models refuse unknown fields (a typo must not be a silent default); `Status` models ignore them, because a
newer server may have written more than this one knows.
"""

import datetime
import re
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

API_VERSION = "podium/v1"
DEFAULT_WORKSPACE = "default"
_LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")
NAME_RULE = "1 to 53 lower-case letters, digits and '-', starting with a letter and not ending with '-'"


def check_name(value: str) -> str:
    """A name that a person gives. Server-made names (`churn.3`, `churn-00002`) are longer and built from such names."""
    if not _NAME.fullmatch(value):
        raise ValueError(f"expected {NAME_RULE}")
    return value


Name = Annotated[
    str,
    AfterValidator(check_name),
    Field(json_schema_extra={"pattern": f"^{_NAME.pattern}$", "maxLength": 53}),
]


class Spec(BaseModel):
    """Base of everything that a person writes: camelCase on the wire, unknown fields refused, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        ser_json_inf_nan="strings",
    )


class Told(Spec):
    """Base of what one part of Podium tells another, which may be older: camelCase on the wire, unknown fields ignored,
    immutable."""

    model_config = ConfigDict(extra="ignore")


class Status(BaseModel):
    """Base of everything that Podium writes: camelCase on the wire, unknown fields ignored, immutable."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class OwnerReference(Status):
    """The object that this one was made for, and goes with."""

    kind: str
    name: str
    uid: str


class Metadata(Spec):
    """Who an object is. From the person: name, workspace, labels, annotations; the rest is the server's.

    `resource_version` is the store-wide number of the commit that last changed the object; an update that names it
    is refused with `Conflict` when the object has moved on.
    """

    name: Annotated[str, Field(min_length=1, max_length=120)]
    workspace: Name = DEFAULT_WORKSPACE
    labels: dict[str, str] = Field(default_factory=dict, max_length=64)
    annotations: dict[str, str] = Field(default_factory=dict, max_length=64)
    uid: str | None = None
    generation: int | None = None
    resource_version: int | None = None
    created_at: datetime.datetime | None = None
    updated_at: datetime.datetime | None = None
    deletion_requested_at: datetime.datetime | None = None
    finalizers: list[str] = Field(default_factory=list)
    owner: OwnerReference | None = None

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key):
                raise ValueError(
                    f"label key {key[:80]!r}: expected [prefix/]name of letters, digits, '-', '_' and '.'"
                )
            if not _LABEL_VALUE.fullmatch(value):
                raise ValueError(f"label {key}: expected at most 63 letters, digits, '-', '_' and '.'")
        return labels

    @field_validator("annotations")
    @classmethod
    def _check_annotations(cls, annotations: dict[str, str]) -> dict[str, str]:
        for key, value in annotations.items():
            if not _LABEL_KEY.fullmatch(key):
                raise ValueError(f"annotation key {key[:80]!r}: expected [prefix/]name")
            if len(value) > 16_384 or "\x00" in value:
                raise ValueError(f"annotation {key}: expected at most 16384 characters and no NUL")
        return annotations


S_co = TypeVar("S_co", bound="Spec", covariant=True)
T_co = TypeVar("T_co", bound="Status", covariant=True)


class Resource(BaseModel, Generic[S_co, T_co]):
    """A whole object as the API gives it and takes it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    api_version: str = API_VERSION
    kind: str
    metadata: Metadata
    spec: S_co
    status: T_co

    def document(self) -> dict[str, Any]:
        """The object as JSON-ready data with the wire's names, unset fields of metadata left out."""
        data: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        data["metadata"] = {
            key: value for key, value in data["metadata"].items() if value not in (None, [], {})
        }
        return data

    @property
    def uid(self) -> str:
        """The server's identifier; empty for what no server has stored yet."""
        return self.metadata.uid or ""

    @property
    def key(self) -> str:
        """`workspace/name`, unique within the kind."""
        return f"{self.metadata.workspace}/{self.metadata.name}"
