"""Profiles of model versions: measure one, read the newest. Run by both clients."""

from typing import Any

import orjson

from podium.client import operations
from podium.client.answers import error_in
from podium.client.effects import Call, Operation, call
from podium.client.operations import place, segment
from podium.client.publishing import Progress, Tell
from podium.resources.errors import Unavailable
from podium.resources.kinds import KINDS, ModelVersion
from podium.resources.profile import Profile, ProfileRequest

_SILENCE_SECONDS = 60.0
"""The server gives a sign of life every second."""


def profile(
    model: str, version: str, request: ProfileRequest, workspace: str, tell: Tell | None
) -> Operation[ModelVersion]:
    """Measured now, by the server; the version as it is then, with the result in its status. It ends when the
    connection does. Raises Refused while another profile is under way, InvalidInput for rows that the model refuses."""
    say = tell or (lambda progress: None)
    last: list[dict[str, Any]] = []

    def line(text: str) -> None:
        item = orjson.loads(text)
        if "progress" in item:
            say(Progress("server", str(item["progress"])))
        else:
            last.append(item)

    body = request.model_dump(mode="json", by_alias=True, exclude_none=True)
    yield from call(
        Call("POST", _path(model, version, workspace), body=body, on_line=line, timeout=_SILENCE_SECONDS)
    )
    if not last:
        raise Unavailable("the server broke off in the middle of the profile", next_step="profile again")
    if "problem" in last[0]:
        raise error_in(last[0]["problem"])
    return operations.parsed(last[0]["version"])


def kept(model: str, version: str, workspace: str) -> Operation[Profile]:
    """The newest one. Raises NotFound where there is none."""
    reply = yield from call(Call("GET", _path(model, version, workspace)))
    return Profile.model_validate(reply.json())


def _path(model: str, version: str, workspace: str) -> str:
    return f"{place(KINDS['Model'], workspace, model)}/versions/{segment(version)}/profile"
