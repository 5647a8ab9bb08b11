"""Requests to the gateway in the Open Inference Protocol, with plain lists. Run by both clients."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from podium.client.effects import Call, Operation, Reply
from podium.resources.errors import (
    Forbidden,
    InvalidInput,
    Issue,
    NotFound,
    PodiumError,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from podium.resources.shape import DEFAULT_WORKSPACE

Inputs = Mapping[str, Any] | Sequence[Mapping[str, Any]]
_ERRORS: dict[int, type[PodiumError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    413: TooLarge,
    429: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def predict(name: str, inputs: Inputs, gateway: str | None, workspace: str) -> Operation[dict[str, Any]]:
    """The Deployment's answer.

    inputs: `{"tensor": nested lists}`, with datatypes as the model's metadata says (one more request); or the tensors
    of the protocol, `[{"name", "datatype", "shape", "data"}]`. `None` is a missing value in a floating-point tensor.
    Raises InvalidInput for what the model's schema refuses, PodiumError for the model's own exception.
    """
    if gateway is None:
        raise InvalidInput(Issue("gateway", "no gateway is known; give its URL, or set PODIUM_GATEWAY_URL"))
    prefix = "" if workspace == DEFAULT_WORKSPACE else f"/ws/{quote(workspace, safe='')}"
    place = f"{gateway}{prefix}/v2/models/{quote(name, safe='')}"
    if isinstance(inputs, Mapping):
        reply: Reply = yield Call("GET", place)
        _check(reply)
        known = {item["name"]: item["datatype"] for item in reply.json().get("inputs", ())}
        tensors = [tensor(key, value, known) for key, value in inputs.items()]
    else:
        tensors = [dict(item) for item in inputs]
    reply = yield Call("POST", f"{place}/infer", body={"inputs": tensors}, timeout=600)
    _check(reply)
    return dict(reply.json())


def tensor(name: str, value: Any, datatypes: Mapping[str, str]) -> dict[str, Any]:
    """Nested lists as a tensor of the protocol. `datatypes`: by name, as the model says; a name that is not there is an
    error that lists them, unless the model says nothing."""
    if datatypes and name not in datatypes:
        raise InvalidInput(Issue(f"inputs.{name[:60]}", f"no such input; known: {', '.join(datatypes)}"))
    shape: list[int] = []
    level = value
    while isinstance(level, (list, tuple)):
        shape.append(len(level))
        if not level:
            break
        level = level[0]
    flat: list[Any] = []
    _flatten(name, value, shape, flat)
    return {
        "name": name,
        "shape": shape or [1],
        "datatype": datatypes.get(name) or _datatype(flat),
        "data": flat,
    }


def _flatten(name: str, value: Any, shape: Sequence[int], flat: list[Any]) -> None:
    if not shape:
        if isinstance(value, (list, tuple)):
            raise InvalidInput(
                Issue(f"inputs.{name[:60]}", "expected rows of one length: it is deeper in places")
            )
        flat.append(value)
        return
    if not isinstance(value, (list, tuple)) or len(value) != shape[0]:
        raise InvalidInput(Issue(f"inputs.{name[:60]}", f"expected rows of one length, {shape[0]}"))
    for item in value:
        _flatten(name, item, shape[1:], flat)


def _datatype(flat: Sequence[Any]) -> str:
    """For a model that does not say: what the values are."""
    kinds = {type(item) for item in flat if item is not None}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int} and None not in flat:
        return "INT64"
    return "BYTES" if kinds == {str} else "FP64"


def _check(reply: Reply) -> None:
    if reply.status < 400:
        return
    try:
        said = reply.json()
    except Unavailable:
        said = {}
    said = said if isinstance(said, dict) else {}
    words = str(said.get("error") or said.get("detail") or f"HTTP {reply.status}")
    if reply.status in (400, 422):
        raise InvalidInput(Issue(str(said.get("field") or "inputs"), words))
    raise _ERRORS.get(reply.status, PodiumError)(words, details={"status": reply.status})
