"""Profiles of model versions: measure one, read the newest. Run by both clients."""

from podium.client import operations
from podium.client.effects import Call, Operation, call
from podium.client.operations import place, segment
from podium.client.publishing import Tell, last_line
from podium.resources.kinds import KINDS, ModelVersion
from podium.resources.profile import Profile, ProfileRequest

_SILENCE_SECONDS = 60.0
"""The server gives a sign of life every second."""


def profile(
    model: str, version: str, request: ProfileRequest, workspace: str, tell: Tell | None
) -> Operation[ModelVersion]:
    """Measured now, by the server; the version as it is then, with the result in its status. It ends when the
    connection does. Raises Refused while another profile is under way, InvalidInput for rows that the model refuses."""
    body = request.model_dump(mode="json", by_alias=True, exclude_none=True)
    path, say = _path(model, version, workspace), tell or (lambda progress: None)
    last = yield from last_line(path, body, say, _SILENCE_SECONDS, "the profile", "profile again")
    return operations.parsed(last["version"])


def kept(model: str, version: str, workspace: str) -> Operation[Profile]:
    """The newest one. Raises NotFound where there is none."""
    reply = yield from call(Call("GET", _path(model, version, workspace)))
    return Profile.model_validate(reply.json())


def _path(model: str, version: str, workspace: str) -> str:
    return f"{place(KINDS['Model'], workspace, model)}/versions/{segment(version)}/profile"
