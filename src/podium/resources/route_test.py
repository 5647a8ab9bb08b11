"""What `podium route test` asks and is told: which Deployment would answer a request, and why."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from podium.resources.canonical import check_path, is_gateways, never_passes
from podium.resources.claims import MOST, check_asked
from podium.resources.route import check_parameter
from podium.resources.shape import Spec, Status

_Text = Annotated[str, Field(max_length=4096)]
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class RouteTestRequest(Spec):
    """A request as the gateway would see it; nothing is sent anywhere."""

    path: Annotated[str, Field(pattern=r"^(/[!-~]*)?$", max_length=2048)] = "/infer"
    """What comes after `/v2/models/ROUTE`, without the query, in the form that the gateway makes of it."""
    headers: dict[str, _Text] = Field(default_factory=dict, max_length=64)
    query: dict[str, _Text] = Field(default_factory=dict, max_length=64)
    claims: dict[str, _Text] = Field(default_factory=dict, max_length=MOST)
    """What the caller's token says: `sub`, `role`, `jti` and what was put into it. Empty: there is no token."""

    @field_validator("claims")
    @classmethod
    def _check_claims(cls, claims: dict[str, str]) -> dict[str, str]:
        for name in claims:
            check_asked(name)
        return claims

    @field_validator("path")
    @classmethod
    def _is_canonical(cls, path: str) -> str:
        check_path(path)
        return path

    @field_validator("headers")
    @classmethod
    def _as_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name[:40]!r}: expected a header's name")
            if is_gateways(name):
                raise ValueError(f"{name}: the gateway takes it out of what clients send; say claims instead")
            if never_passes(name):
                raise ValueError(f"{name}: the gateway lets no header with '_' in its name pass")
            if _CONTROL.search(value):
                raise ValueError(f"{name}: expected a value without control characters")
        return {name.lower(): value.strip(" \t") for name, value in headers.items()}

    @field_validator("query")
    @classmethod
    def _can_be_in_a_url(cls, query: dict[str, str]) -> dict[str, str]:
        for name, value in query.items():
            check_parameter(name, value)
        return query


class RuleTested(Status):
    """One rule, in order, up to the one that matched."""

    name: str
    matched: bool
    why: str


class Answering(Status):
    """Who may answer. `share` in percent of such requests; 100 where it is certain."""

    deployment: str
    revision: str
    version: str
    share: float


class RouteTestResult(Status):
    """What the gateway does with the request, by the present state of the Route and its Deployments."""

    route: str
    rules: list[RuleTested] = Field(default_factory=list)
    rule: str | None = None
    """The one that matched; None: nobody answers (404)."""
    sticky: str = ""
    """What the user is known by, and its place; empty where requests are spread at random."""
    answering: list[Answering] = Field(default_factory=list)
    shadows: list[Answering] = Field(default_factory=list)
    """Who gets a copy; `share` is the share of requests that are copied."""
    then: list[str] = Field(default_factory=list)
    """Who is asked after that, and when."""
    absent: list[str] = Field(default_factory=list)
    """Deployments of the rule that nobody serves now, with the reason."""
    warnings: list[str] = Field(default_factory=list)
    """What keeps the rule from doing all that it says, such as a cascade whose output the served version lacks."""
