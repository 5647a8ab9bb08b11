"""The OpenAPI document: every operation, every error, real schemas for bodies, examples.

FastAPI makes the paths and parameters; the bodies are read by `wire`, so their schemas are put in here, from the same
models that read them. Routes call `answer` and `body`; `create` calls `install`.
"""

import copy
import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from podium.api.applying import SERVER_MADE
from podium.api.wire import JSON
from podium.resources import requests
from podium.resources.comparison import Comparisons
from podium.resources.descriptions import Described
from podium.resources.kinds import KINDS, Kind
from podium.resources.load import Traffic
from podium.resources.profile import Profile, ProfileRequest
from podium.resources.quantities import Duration, Size
from podium.resources.route_test import RouteTestRequest, RouteTestResult
from podium.resources.shape import API_VERSION, Metadata

_REF = "#/components/schemas/"
_OPEN = ("/healthz", "/readyz", "/metrics", "/api/v1/schemas", "/api/v1/schemas/{kind}")
"""Paths that need no token."""

_REQUESTS = (
    requests.PushRequest,
    requests.ImportRequest,
    requests.RolloutActionRequest,
    requests.RollbackRequest,
    requests.TokenRequest,
    requests.RotateRequest,
    requests.AliasRequest,
    requests.GatewayReport,
    ProfileRequest,
    RouteTestRequest,
)
_ANSWERS = (
    requests.Problem,
    requests.ApplyResult,
    requests.DeleteResult,
    requests.ActionResult,
    requests.TokenInfo,
    requests.IssuedToken,
    requests.ReplicaLog,
    requests.GatewayReceipt,
    requests.GatewayConfig,
    Profile,
    Traffic,
    Comparisons,
    RouteTestResult,
)
WATCH_EXAMPLE = (
    'id: 41\nevent: MODIFIED\ndata: {"version":41,"type":"MODIFIED","object":{"kind":"Deployment"}}\n\n'
    'id: 42\nevent: BOOKMARK\ndata: {"version":42,"type":"BOOKMARK"}\n\n'
)
PROFILE_EXAMPLE = '{"progress":"16 connections: 2,710 requests/s"}\n{"version":{"kind":"ModelVersion"}}\n'
PUSH_EXAMPLE = '{"progress":"resolving requirements"}\n{"version":{"kind":"ModelVersion"},"created":true}\n'
_SHA = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_EXAMPLES: dict[str, Any] = {
    "Applied": {
        "apiVersion": API_VERSION,
        "kind": "Deployment",
        "metadata": {"name": "churn"},
        "spec": {"model": {"name": "churn", "alias": "champion"}},
    },
    "RolloutActionRequest": {"action": "pause"},
    "RollbackRequest": {"revision": "churn-00002"},
    "RouteTestRequest": {"path": "/infer", "headers": {"x-user": "alice"}},
    "TokenRequest": {"subject": "ci", "role": "edit", "workspaces": ["default"], "lifetime": "7d"},
    "RotateRequest": {"overlap": "1h"},
    "AliasRequest": {"version": "3"},
    "PushRequest": {"files": [{"path": "model.pkl", "size": 0, "sha256": _SHA}], "alias": "champion"},
    "ImportRequest": {"uri": "models:/churn/3"},
    "GatewayReport": {"observedVersion": 42},
    "ProfileRequest": {"budget": "30s", "rate": 200, "p99": "50ms"},
}


def answer(schema: str, description: str = "As asked for.") -> dict[str, Any]:
    """For a route's `responses`: JSON of this component."""
    return {"description": description, "content": {"application/json": {"schema": {"$ref": _REF + schema}}}}


def body(schema: str, required: bool = True) -> dict[str, Any]:
    """For a route's `openapi_extra`: a JSON body of this component. Not `required`: none is the same as `{}`."""
    content = {"schema": {"$ref": _REF + schema}, "example": _EXAMPLES[schema]}
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def install(app: FastAPI) -> None:
    """Makes the document on first use, and serves it at /openapi.json."""
    made: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not made:
            made.update(_build(app))
        return made

    app.openapi = document  # type: ignore[method-assign]

    app.state.methods = lambda path: _methods(document(), path)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_json() -> JSON:
        return JSON(document())


def _methods(document: dict[str, Any], path: str) -> list[str]:
    """Every method that some route has for this path: what an answer 405 must name."""
    found: set[str] = set()
    for template, operations in document["paths"].items():
        pattern = "/".join(
            "[^/]+" if part.startswith("{") else re.escape(part) for part in template.split("/")
        )
        if re.fullmatch(pattern, path):
            found |= {method.upper() for method in operations}
    return sorted(found)


def _build(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(
        title=app.title,
        version=app.version,
        routes=app.routes,
        description="Podium's API. Everything that goes wrong is an RFC 9457 problem document.",
    )
    found["components"] = {
        "schemas": _components(),
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
    }
    found["security"] = [{"token": []}]
    for path, operations in found["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _without_null(parameter["schema"])
            if path in _OPEN:
                operation["security"] = []
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out, it is never null."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) != 1:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**rest, **choices[0]}


def _components() -> dict[str, Any]:
    _, taken = models_json_schema(
        [(model, "validation") for model in _REQUESTS]
        + [(kind.spec, "validation") for kind in KINDS.values()],
        ref_template=_REF + "{model}",
        schema_generator=Described,
    )
    _, given = models_json_schema(
        [(model, "serialization") for model in _ANSWERS],
        ref_template=_REF + "{model}",
        schema_generator=Described,
    )
    schemas: dict[str, Any] = {**given["$defs"], **taken["$defs"]}
    for optional in ("Problem", "ProblemIssue"):
        # Members that have nothing to say are left out of a problem.
        properties = schemas[optional]["properties"]
        schemas[optional]["required"] = [name for name in properties if "default" not in properties[name]]
    for name, schema in list(schemas.items()):
        schemas[name] = _also_numbers(schema)
    for kind in KINDS.values():
        schemas[kind.name] = _object(kind, schemas)
        schemas[f"{kind.name}List"] = _list_of(kind.name)
        if kind.applied:
            schemas[f"{kind.name}Applied"] = _applied(kind)
    schemas["Applied"] = {
        "oneOf": [{"$ref": f"{_REF}{kind.name}Applied"} for kind in KINDS.values() if kind.applied],
        "discriminator": {
            "propertyName": "kind",
            "mapping": {kind.name: f"{_REF}{kind.name}Applied" for kind in KINDS.values() if kind.applied},
        },
    }
    return schemas | _small()


def _also_numbers(schema: Any) -> Any:
    """Durations and sizes may be given as plain numbers of seconds and bytes; their own schema shows how they are
    written back."""
    patterns = {
        TypeAdapter(Duration).json_schema()["pattern"]: {"type": "number", "minimum": 0},
        TypeAdapter(Size).json_schema()["pattern"]: {"type": "integer", "minimum": 0},
    }

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        number = patterns.get(node["pattern"]) if isinstance(node.get("pattern"), str) else None
        if number is not None:
            text = {key: node[key] for key in ("type", "pattern", "examples") if key in node}
            kept = {key: value for key, value in node.items() if key in ("title", "description")}
            return {**kept, "anyOf": [text, number]}
        return {key: walk(value) for key, value in node.items()}

    return walk(schema)


def _object(kind: Kind, schemas: dict[str, Any]) -> dict[str, Any]:
    """A whole object as it is answered."""
    status = kind.status.model_json_schema(ref_template=_REF + "{model}", schema_generator=Described)
    schemas.update({name: schema for name, schema in status.pop("$defs", {}).items() if name not in schemas})
    schemas[kind.status.__name__] = status
    metadata = Metadata.model_json_schema(ref_template=_REF + "{model}")
    schemas.update(metadata.pop("$defs", {}))
    schemas["Metadata"] = metadata
    return {
        "type": "object",
        "title": kind.name,
        "description": kind.description,
        "required": ["apiVersion", "kind", "metadata", "spec", "status"],
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind.name},
            "metadata": {"$ref": f"{_REF}Metadata"},
            "spec": {"$ref": f"{_REF}{kind.spec.__name__}"},
            "status": {"$ref": f"{_REF}{kind.status.__name__}"},
        },
    }


def _applied(kind: Kind) -> dict[str, Any]:
    """A whole object as a person writes it."""
    metadata = copy.deepcopy(Metadata.model_json_schema(ref_template=_REF + "{model}"))
    metadata.pop("$defs", None)
    properties = metadata["properties"]
    properties["name"] = {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,51}[a-z0-9])?$"}
    properties["workspace"] = dict(properties["name"])
    properties["resourceVersion"] = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}
    for name in SERVER_MADE:
        properties[name] = {"readOnly": True, "description": "The server's; not looked at."}
    spec: dict[str, Any] = {"$ref": f"{_REF}{kind.spec.__name__}"}
    needed = any(field.is_required() for field in kind.spec.model_fields.values())
    return {
        "type": "object",
        "title": f"{kind.name}, applied",
        "required": ["apiVersion", "kind", "metadata", *(["spec"] if needed else [])],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind.name},
            "metadata": metadata,
            "spec": spec if needed else {"anyOf": [spec, {"type": "null"}]},
            "status": {"description": "Not looked at, so that what `get` printed can be applied."},
        },
    }


def _list_of(name: str) -> dict[str, Any]:
    return _shape(
        items={"type": "array", "items": {"$ref": _REF + name}},
        **{"continue": {"type": ["string", "null"], "description": "For the next page; null at the end."}},
        version={"type": "integer", "description": "Watch from here, and nothing is missed."},
    )


def _shape(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _rows(**properties: dict[str, Any]) -> dict[str, Any]:
    return _shape(
        items={"type": "array", "items": _shape(**properties)},
        next={"type": ["integer", "null"], "description": "For the next page; null at the end."},
    )


_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
_TIME = {"type": "string", "format": "date-time"}
_MAYBE = {"type": ["string", "null"]}


def _small() -> dict[str, Any]:
    """Answers that are no models."""
    about = {"workspace": _TEXT, "kind": _TEXT, "name": _TEXT, "uid": _TEXT}
    perhaps = dict.fromkeys(about, _MAYBE)
    return {
        "EventList": _rows(
            id=_NUMBER, firstAt=_TIME, at=_TIME, count=_NUMBER, **about,
            type={"enum": ["Normal", "Warning"]}, reason=_TEXT, message=_TEXT,
        ),
        "AuditList": _rows(
            seq=_NUMBER, at=_TIME, actor=_TEXT, actorKind={"enum": ["user", "system"]}, requestId=_MAYBE, verb=_TEXT,
            **perhaps, version=_NUMBER, summary=_TEXT, detail={"type": ["object", "null"]},
        ),
        "SampleList": _rows(
            id=_NUMBER, rolloutUid=_TEXT, at={"type": "number"}, gateway=_TEXT, epoch=_TEXT, weightBp=_NUMBER,
            stable={"type": "object"}, candidate={"type": "object"},
        ),
        "ReplayList": _shape(items={"type": "array", "items": _shape(
            decision=_NUMBER, same={"type": "boolean"}, verdict=_MAYBE, reason=_TEXT)}),
        "ReplicaLogList": _shape(items={"type": "array", "items": {"$ref": f"{_REF}ReplicaLog"}}),
        "TokenList": _shape(items={"type": "array", "items": {"$ref": f"{_REF}TokenInfo"}}),
        "AliasHistory": _shape(
            aliases={"type": "object", "additionalProperties": _TEXT},
            history={"type": "array", "items": _shape(
                at=_TIME, alias=_TEXT, version=_MAYBE, previous=_MAYBE, actor=_TEXT, commitVersion=_NUMBER)},
        ),
        "Verification": _shape(
            intact={"type": ["boolean", "null"], "description": "null: not all of it could be read."},
            findings={"type": "array", "items": _shape(path=_TEXT, sha256=_TEXT, problem=_TEXT, message=_TEXT)},
            object={"$ref": f"{_REF}ModelVersion"},
        ),
        "BlobResult": _shape(sha256=_TEXT, size=_NUMBER, created={"type": "boolean"}),
        "GatewayList": _shape(items={"type": "array", "items": _shape(
            name=_TEXT, seenAt=_TIME, observedVersion=_NUMBER,
            rejected={"type": "array", "items": {"type": "object"}}, envoy={"type": "object"},
            instance={"anyOf": [{"$ref": f"{_REF}ReportingInstance"}, {"type": "null"}]})}),
        "ForgottenGateway": _shape(name=_TEXT, seenAt=_TIME, observedVersion=_NUMBER),
        "Health": _shape(status={"const": "ok"}, version=_TEXT),
        "Readiness": _shape(status={"const": "ok"}, version=_TEXT, schema=_TEXT, resourceVersion=_NUMBER),
        "KindList": _shape(items={"type": "array", "items": _shape(
            kind=_TEXT, plural=_TEXT, short=_TEXT, applied={"type": "boolean"}, description=_TEXT)}),
        "JsonSchema": {"type": "object"},
    }  # fmt: skip
