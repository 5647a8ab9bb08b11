"""Route: a public name over one or more Deployments. Rules say which requests go where; the first that matches wins."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from podium.resources.canonical import check_part, check_path, is_gateways, never_passes
from podium.resources.claims import MOST, check_asked, is_own
from podium.resources.patterns import check_pattern
from podium.resources.quantities import Duration
from podium.resources.shape import Name, Spec, Status
from podium.resources.traffic import Cascade, Fallback, Hedge, Limits, Retries, Shadow

WHOLE_PERCENT = 100.0
STEP_PERCENT = 0.01
"""The smallest share that the gateway tells apart: it counts in basis points."""
_HEADER = re.compile(r"[a-z0-9][-a-z0-9.]{0,127}")
_QUERY = re.compile(r"[!-~]{1,128}")
_NOT_IN_QUERY = re.compile(r"[^!-~]|[&#]")
_COOKIE = re.compile(r"[A-Za-z0-9_.!#$%&'*+^`|~-]{1,128}")
_PROTECTED = ("host", "authorization", "content-length", "transfer-encoding", "connection")

Percent = Annotated[float, Field(ge=0, le=100)]


def basis_points(percent: float) -> int:
    """A share in percent as the gateway counts it."""
    return round(percent * 100)


class TextMatch(Spec):
    """What a text must be: exactly one of these. A plain text in YAML means `exact`."""

    exact: Annotated[str, Field(max_length=1024)] | None = None
    prefix: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    contains: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    regex: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """RE2, over the whole text."""
    present: bool | None = None
    """True: there, whatever it says. False: not there."""

    @model_validator(mode="before")
    @classmethod
    def _text_is_exact(cls, value: object) -> object:
        if isinstance(value, str):
            return {"exact": value}
        if not isinstance(value, (Mapping, TextMatch)):
            raise ValueError(
                'expected a text in quotes, such as "1" or "yes", or an object such as {prefix: a}'
            )
        return value

    @field_validator("regex")
    @classmethod
    def _is_re2(cls, value: str | None) -> str | None:
        if value is None:
            return None
        check_pattern(value)
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> "TextMatch":
        if sum(value is not None for value in self._wishes().values()) != 1:
            raise ValueError("expected exactly one of exact, prefix, suffix, contains, regex and present")
        return self

    def _wishes(self) -> dict[str, object]:
        names = ("exact", "prefix", "suffix", "contains", "regex", "present")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        kind, value = next((kind, value) for kind, value in self._wishes().items() if value is not None)
        if kind == "present":
            return "is there" if value else "is not there"
        return f"{kind} {value!r}"


class Match(Spec):
    """A request matches if everything that is named here matches."""

    path: TextMatch | None = None
    """What comes after `/v2/models/ROUTE`, without the query: `/infer`, for instance, or `/invocations`."""
    headers: dict[str, TextMatch] = Field(default_factory=dict, max_length=16)
    query: dict[str, TextMatch] = Field(default_factory=dict, max_length=16)
    """As it stands in the URL: nothing is decoded."""
    claims: dict[str, TextMatch] = Field(default_factory=dict, max_length=MOST)
    """Of the caller's token: `sub` (its name), `role`, `jti`, and what `podium token create --claim` has put into it.
    Without tokens none is there."""

    @field_validator("path")
    @classmethod
    def _path_is_there(cls, value: TextMatch | None) -> TextMatch | None:
        if value is not None and value.present is not None:
            raise ValueError("a path is always there: expected exact, prefix, suffix, contains or regex")
        for name, text in (("exact", value.exact), ("prefix", value.prefix)) if value is not None else ():
            # Otherwise it would be the rest of another name: `/v2/models/garden` and `-large`.
            if text and not text.startswith("/"):
                raise ValueError(f"{name}: expected a path that begins with '/', such as /{text.lstrip('-')}")
        if value is not None:
            _check_reachable(value)
        return value

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, TextMatch]) -> dict[str, TextMatch]:
        for name in headers:
            check_header(name)
        return headers

    @field_validator("query")
    @classmethod
    def _check_query(cls, query: dict[str, TextMatch]) -> dict[str, TextMatch]:
        for name in query:
            check_parameter(name)
        return query

    @field_validator("claims")
    @classmethod
    def _check_claims(cls, claims: dict[str, TextMatch]) -> dict[str, TextMatch]:
        for name, value in claims.items():
            check_asked(name)
            if is_own(name) and value.present is False:
                raise ValueError(f"{name}: every token has it; expected what it is, or present: true")
        return claims

    @model_validator(mode="after")
    def _says_something(self) -> "Match":
        if self.path is None and not (self.headers or self.query or self.claims):
            raise ValueError("expected path, headers, query or claims; leave match out to match everything")
        return self


def _check_reachable(wanted: TextMatch) -> None:
    """Raises ValueError for a path that no request has when rules look at it."""
    for name in ("exact", "prefix", "suffix", "contains"):
        text = getattr(wanted, name)
        if text is None:
            continue
        try:
            if name == "exact":
                check_path(text)
            else:
                check_part(text)
            if name == "prefix" and text.startswith("/versions/"):
                check_path(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def check_parameter(name: str, value: str = "") -> None:
    """Raises ValueError for what cannot stand in a URL's query as a parameter's name and value."""
    if not _QUERY.fullmatch(name) or "=" in name or _NOT_IN_QUERY.search(name):
        raise ValueError(
            f"{name[:40]!r}: expected a parameter's name of visible ASCII characters but '&', '=' and '#'"
        )
    if _NOT_IN_QUERY.search(value):
        raise ValueError(
            f"{name}: expected it as it stands in the URL: visible ASCII characters but '&' and '#'"
        )


def check_header(name: str) -> None:
    """Raises ValueError for what is no name of a header that a rule may look at."""
    if is_gateways(name):
        raise ValueError(
            f"{name}: only the gateway says it; what a caller is known by is under claims, such as sub"
        )
    if never_passes(name):
        raise ValueError(f"{name[:40]!r}: the gateway lets no header with '_' in its name pass; use '-'")
    if not _HEADER.fullmatch(name) or name in _PROTECTED:
        raise ValueError(f"{name[:40]!r}: expected a lower-case header name that is not one of HTTP's own")


class StickyKey(Spec):
    """What a user is told apart by: exactly one. The same key always meets the same variant, at every gateway; requests
    without it are spread at random."""

    header: str | None = None
    cookie: str | None = None
    claim: str | None = None
    """Of the caller's token: `sub`, its name, or one that `podium token create --claim` has put into it."""
    salt: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    """What users are shuffled by. None: the object's uid, so that one which is made again deals its users anew. Where
    two have the same salt, the same users meet the first variant of both."""

    @model_validator(mode="before")
    @classmethod
    def _is_named(cls, value: object) -> object:
        if not isinstance(value, (Mapping, StickyKey)):
            raise ValueError("expected {header: NAME}, {cookie: NAME} or {claim: NAME}")
        return value

    @field_validator("header")
    @classmethod
    def _check_header(cls, value: str | None) -> str | None:
        if value is not None:
            check_header(value)
        return value

    @field_validator("claim")
    @classmethod
    def _check_claim(cls, value: str | None) -> str | None:
        if value in ("role", "jti"):
            raise ValueError(
                f"{value} tells no users apart: expected sub, or a claim of `podium token create --claim`"
            )
        if value is not None:
            check_asked(value)
        return value

    @field_validator("cookie")
    @classmethod
    def _check_cookie(cls, value: str | None) -> str | None:
        if value is not None and not _COOKIE.fullmatch(value):
            raise ValueError("expected a cookie's name")
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> "StickyKey":
        if sum(value is not None for value in (self.header, self.cookie, self.claim)) != 1:
            raise ValueError("expected exactly one of header, cookie and claim")
        return self


class Variant(Spec):
    """A Deployment and its share."""

    deployment: Name
    weight: Percent | None = None
    """Percent, in hundredths. May be left out where there is one variant."""

    @field_validator("weight")
    @classmethod
    def _in_hundredths(cls, value: float | None) -> float | None:
        if value is not None and not math.isclose(value * 100, round(value * 100), abs_tol=1e-6):
            raise ValueError(f"expected hundredths of a percent at most, such as {round(value, 2)}")
        return value


class Rule(Spec):
    """Requests that match go to these variants."""

    name: Name | None = None
    """For people and for `podium route test`. None: its number."""
    match: Match | None = None
    """None: everything."""
    to: Annotated[list[Variant], Field(min_length=1, max_length=16)]
    """With a sticky key the first takes what the others leave: list the control first. The weights sum to 100."""
    sticky: StickyKey | None = None
    shadow: list[Shadow] = Field(default_factory=list, max_length=4)
    cascade: Cascade | None = None
    fallback: Fallback | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_may_stand_alone(cls, value: object) -> object:
        """`to: churn` is `to: [{deployment: churn}]`."""
        if isinstance(value, Mapping) and isinstance(value.get("to"), str):
            return {**value, "to": [{"deployment": value["to"]}]}
        return value

    @model_validator(mode="after")
    def _shares_are_whole(self) -> "Rule":
        names = [variant.deployment for variant in self.to]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"to: {twice} is named twice")
        if len(self.to) == 1 and self.to[0].weight is None:
            return self
        given = [variant.weight for variant in self.to]
        if any(weight is None for weight in given):
            raise ValueError("to: expected a weight for every variant")
        total = sum(self.shares)
        if total != basis_points(WHOLE_PERCENT):
            raise ValueError(f"to: the weights sum to {total / 100:g} percent; expected 100")
        return self

    @model_validator(mode="after")
    def _fits_the_slots(self) -> "Rule":
        if self.sticky is None:
            return self
        room = slot_width(len(self.to))
        for first in range(1, len(self.to), 2):
            pair = self.to[first : first + 2]
            if sum(self.shares[first : first + 2]) > room:
                names = " and ".join(variant.deployment for variant in pair)
                raise ValueError(
                    f"to: with a sticky key {names} share {room / 100:g} percent of the users, so that nobody changes "
                    "sides as shares grow: lower their weights, or list the variant with the largest share first"
                )
        return self

    @model_validator(mode="after")
    def _names_each_once(self) -> "Rule":
        served = {variant.deployment for variant in self.to}
        for shadow in self.shadow:
            if shadow.deployment in served:
                raise ValueError(f"shadow: {shadow.deployment} answers here already")
        if self.cascade is not None and self.cascade.deployment in served:
            raise ValueError(f"cascade.deployment: {self.cascade.deployment} answers here already")
        if self.fallback is not None:
            if self.cascade is not None:
                served.add(self.cascade.deployment)
            both = served & set(self.fallback.deployments)
            if both:
                raise ValueError(f"fallback.deployments: {min(both)} answers here already")
        return self

    @property
    def shares(self) -> tuple[int, ...]:
        """Basis points of each variant; they sum to 10,000."""
        if len(self.to) == 1:
            return (basis_points(WHOLE_PERCENT),)
        return tuple(basis_points(variant.weight or 0.0) for variant in self.to)

    @property
    def deployments(self) -> tuple[str, ...]:
        """Every Deployment that it names, each once."""
        extra = [shadow.deployment for shadow in self.shadow]
        if self.cascade is not None:
            extra.append(self.cascade.deployment)
        if self.fallback is not None:
            extra += self.fallback.deployments
        return tuple(dict.fromkeys([*(variant.deployment for variant in self.to), *extra]))


def slot_width(variants: int) -> int:
    """Basis points of all users that two variants after the first share, growing towards each other from both ends."""
    slots = max(1, math.ceil((variants - 1) / 2))
    return basis_points(WHOLE_PERCENT) // slots


class RouteSpec(Spec):
    """A public name and where its requests go."""

    rules: Annotated[list[Rule], Field(min_length=1, max_length=64)]
    timeout: Annotated[Duration, Field(ge=0.05, le=3600)] | None = None
    """Of a whole request with all its attempts. None: the longest of the Deployments it can go to."""
    retries: Retries | None = None
    """None: as for a Deployment without a Route (another replica, where the first refused or broke off)."""
    hedge: Hedge | None = None
    limits: Limits | None = None
    """All rules of the Route share them; each gateway counts by itself."""

    @model_validator(mode="after")
    def _hedge_stands_alone(self) -> "RouteSpec":
        if self.hedge is None:
            return self
        if self.retries is not None and self.retries.per_try_timeout is not None:
            raise ValueError(
                "hedge: not together with retries.perTryTimeout: there the slow attempt is given up"
            )
        for number, rule in enumerate(self.rules):
            if rule.cascade is not None or (rule.fallback is not None and rule.fallback.deployments):
                raise ValueError(
                    f"hedge: not together with rules[{number}], which asks other Deployments in turn"
                )
        return self

    @model_validator(mode="after")
    def _rules_can_be_reached(self) -> "RouteSpec":
        for number, rule in enumerate(self.rules[:-1]):
            if rule.match is None:
                raise ValueError(
                    f"rules[{number}]: it matches everything, so no rule after it is ever reached"
                )
        names = [rule.name for rule in self.rules if rule.name is not None]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"rules: the name {twice} stands twice")
        return self

    @property
    def deployments(self) -> tuple[str, ...]:
        """Every Deployment that it names, each once."""
        return tuple(dict.fromkeys(name for rule in self.rules for name in rule.deployments))


RoutePhase = Literal["Pending", "Ready", "Degraded", "Rejected"]


class RouteStatus(Status):
    """`Ready`: every gateway has loaded it, and all that it names is served."""

    phase: RoutePhase = "Pending"
    message: str = ""
    observed_generation: int = 0
    loaded: bool = False
    """Every gateway that reports has this generation in force."""
    version: int = 0
    """A gateway that has loaded this resourceVersion has loaded this generation."""
