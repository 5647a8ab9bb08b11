"""The table of kinds: what the API, the store and `podium schema` know of each. A new kind is one entry here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from podium.resources.deployment import DeploymentSpec, DeploymentStatus
from podium.resources.errors import InvalidInput, Issue
from podium.resources.issues import issues_of
from podium.resources.model import (
    ModelSpec,
    ModelStatus,
    ModelVersionSpec,
    ModelVersionStatus,
    WorkspaceSpec,
    WorkspaceStatus,
)
from podium.resources.revision import RevisionSpec, RevisionStatus
from podium.resources.rollout import RolloutSpec, RolloutStatus
from podium.resources.route import RouteSpec, RouteStatus
from podium.resources.shape import (
    API_VERSION,
    DEFAULT_WORKSPACE,
    Metadata,
    Resource,
    Spec,
    Status,
    check_name,
)

AnyResource = Resource[Any, Any]
Deployment = Resource[DeploymentSpec, DeploymentStatus]
Model = Resource[ModelSpec, ModelStatus]
ModelVersion = Resource[ModelVersionSpec, ModelVersionStatus]
Revision = Resource[RevisionSpec, RevisionStatus]
Rollout = Resource[RolloutSpec, RolloutStatus]
Route = Resource[RouteSpec, RouteStatus]
Workspace = Resource[WorkspaceSpec, WorkspaceStatus]


@dataclass(frozen=True)
class Kind:
    """`applied`: a person may write it through `apply`. `reconciled`: a work row is kept for it.
    `fields`: paths that field selectors may name."""

    name: str
    plural: str
    spec: type[Spec]
    status: type[Status]
    applied: bool = False
    reconciled: bool = False
    finalizers: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    short: str = ""
    description: str = field(default="", compare=False)

    def parse(self, document: Mapping[str, Any]) -> AnyResource:
        """A stored document as an object; raises pydantic's ValidationError if the store holds nonsense."""
        return Resource(
            api_version=document.get("apiVersion", API_VERSION),
            kind=self.name,
            metadata=Metadata.model_validate(document["metadata"]),
            spec=self.spec.model_validate(document["spec"]),
            status=self.status.model_validate(document.get("status") or {}),
        )


DRAIN = "podium/drain"
"""Finalizer of what serves: it goes when nothing runs and nothing is routed there any more."""
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("Workspace", "workspaces", WorkspaceSpec, WorkspaceStatus, applied=True, short="ws",
             description="A tenant."),
        Kind("Model", "models", ModelSpec, ModelStatus, applied=True, short="m", description="A registered model."),
        Kind("ModelVersion", "modelversions", ModelVersionSpec, ModelVersionStatus, short="mv",
             fields=("spec.model", "spec.version", "spec.digest", "spec.pushDigest"),
             description="An immutable version of a model."),
        Kind("Deployment", "deployments", DeploymentSpec, DeploymentStatus, applied=True, reconciled=True,
             finalizers=(DRAIN,), short="d",
             fields=("spec.model.name", "spec.model.alias", "spec.model.version", "status.phase"),
             description="The wish to serve a version or an alias of a model."),
        Kind("Revision", "revisions", RevisionSpec, RevisionStatus, reconciled=True, finalizers=(DRAIN,), short="rev",
             fields=("spec.deployment", "spec.deploymentUid", "spec.model", "spec.version", "spec.manifestDigest",
                     "spec.contentHash", "status.phase"),
             description="An immutable serving part of a Deployment."),
        Kind("Rollout", "rollouts", RolloutSpec, RolloutStatus, reconciled=True, short="ro",
             fields=("spec.deployment", "spec.deploymentUid", "spec.candidateRevision", "status.phase"),
             description="One passage of traffic from the stable revision to a candidate."),
        Kind("Route", "routes", RouteSpec, RouteStatus, applied=True, reconciled=True, short="rt",
             fields=("status.phase",),
             description="A public name over one or more Deployments, with rules that say which requests go where."),
    )
}  # fmt: skip


def kind_of(name: str) -> Kind:
    """The kind with this name, plural or short name, in any case. Raises InvalidInput that lists the known ones."""
    for kind in KINDS.values():
        if name.lower() in (kind.name.lower(), kind.plural, kind.short):
            return kind
    raise InvalidInput(Issue("kind", f"unknown kind {name[:60]!r}; known: {', '.join(KINDS)}"))


def parse_applied(document: object, *, workspace: str | None = None) -> AnyResource:
    """What a person wrote, checked whole: kind, metadata, spec. A status in it is ignored, so that what `get`
    printed can be applied again. Raises InvalidInput naming every wrong field."""
    if not isinstance(document, Mapping):
        raise InvalidInput(Issue("body", "expected an object with apiVersion, kind, metadata and spec"))
    unknown = [
        str(key) for key in document if key not in ("apiVersion", "kind", "metadata", "spec", "status")
    ]
    issues = [Issue(key[:60], "unknown field; expected apiVersion, kind, metadata, spec") for key in unknown]
    if document.get("apiVersion") != API_VERSION:
        issues.append(Issue("apiVersion", f"expected {API_VERSION}"))
    name = document.get("kind")
    if not isinstance(name, str):
        raise InvalidInput([*issues, Issue("kind", f"expected one of {', '.join(KINDS)}")])
    kind = KINDS.get(name)
    if kind is None:
        raise InvalidInput([*issues, Issue("kind", f"unknown kind {name[:60]!r}; known: {', '.join(KINDS)}")])
    if not kind.applied:
        raise InvalidInput([*issues, Issue("kind", f"a {kind.name} is made by Podium, not applied")])
    metadata, found = _parse_metadata(document.get("metadata"), kind, workspace)
    issues += found
    spec: Spec | None = None
    try:
        spec = kind.spec.model_validate(document.get("spec") if document.get("spec") is not None else {})
    except ValidationError as error:
        issues += issues_of(error, "spec", model=kind.spec)
    if issues or metadata is None or spec is None:
        raise InvalidInput(issues)
    return Resource(kind=kind.name, metadata=metadata, spec=spec, status=kind.status())


def _parse_metadata(given: object, kind: Kind, workspace: str | None) -> tuple[Metadata | None, list[Issue]]:
    if not isinstance(given, Mapping):
        return None, [Issue("metadata", "expected an object with at least a name")]
    given = dict(given)
    if workspace is not None:
        given.setdefault("workspace", workspace)
    if kind.name == "Workspace":
        given["workspace"] = DEFAULT_WORKSPACE
    try:
        metadata = Metadata.model_validate(given)
    except ValidationError as error:
        return None, issues_of(error, "metadata", model=Metadata)
    issues = []
    try:
        check_name(metadata.name)
    except ValueError as error:
        issues.append(Issue("metadata.name", str(error)))
    if workspace is not None and metadata.workspace != workspace and kind.name != "Workspace":
        issues.append(Issue("metadata.workspace", f"expected {workspace}, the workspace of the request"))
    return metadata, issues


def json_schema(kind: Kind) -> dict[str, Any]:
    """The published JSON Schema (2020-12) of a whole object of this kind; its fields say what they mean."""
    # Only whoever wants a schema pays for what makes it: each command of the CLI imports this module.
    from podium.resources.descriptions import Described

    model = Resource[kind.spec, kind.status]  # type: ignore[name-defined]
    schema = model.model_json_schema(by_alias=True, schema_generator=Described)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = kind.name
    schema["description"] = kind.description
    schema["properties"]["kind"] = {"const": kind.name}
    schema["properties"]["apiVersion"] = {"const": API_VERSION}
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return schema
