"""Where the requests of a Route go: a pure function of the Route and of what is planned for its Deployments.

Called by the gateway agent, which renders the outcome, and by the API for `podium route test`. The arms of a rollout
keep their proportion within the share of their Deployment, whichever rule a request came by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from podium.planning.routing import WHOLE, Arm, RouteEntry
from podium.planning.sticky import stretches
from podium.resources.kinds import Route
from podium.resources.route import Match, Rule, StickyKey, basis_points
from podium.resources.traffic import Cascade, Fallback, Hedge, Limits, Retries

Slot = tuple[Arm, int]
"""An arm and its width in basis points; the slots of a rule lie on a line in their order."""


@dataclass(frozen=True)
class CascadePlan:
    """The larger model, and when it is asked. `arms`: those that share its live traffic, with their weights."""

    settings: Cascade
    arms: tuple[Arm, ...]


@dataclass(frozen=True)
class FallbackPlan:
    """Who is asked next, and what is said in the end. `stages`: the arms of each Deployment that somebody serves."""

    settings: Fallback
    stages: tuple[tuple[Arm, ...], ...]


@dataclass(frozen=True)
class RulePlan:
    """What the gateway does with the requests of one rule. `slots` sum to 10,000 or are empty: then nobody answers
    here but the fallback, and `unavailable` says why. An arm of a rollout that has no share yet is there with width 0,
    so that its first share changes a weight and no more."""

    name: str
    match: Match | None
    sticky: StickyKey | None
    slots: tuple[Slot, ...]
    shadows: tuple[tuple[Arm, int], ...]
    """With the share of requests in basis points."""
    cascade: CascadePlan | None
    fallback: FallbackPlan | None
    timeout: float
    """Seconds, the start of a replica that a request wakes included."""
    waking: float
    """Of that: how long such a start may take; 0 where nobody sleeps."""
    idempotent: bool
    max_body: int
    """Bytes."""
    unavailable: str
    absent: tuple[str, ...]
    """Deployments of the rule that nobody serves now, each with the reason."""
    salt: str = ""
    """Of the sticky key."""

    @property
    def nexts(self) -> tuple[tuple[Arm, ...], ...]:
        """The arms of those that are asked after the rule's own, in their order."""
        larger = () if self.cascade is None else (self.cascade.arms,)
        return larger if self.fallback is None else (*larger, *self.fallback.stages)


@dataclass(frozen=True)
class RoutePlan:
    """All that the gateway does for one Route."""

    workspace: str
    route: str
    uid: str
    rules: tuple[RulePlan, ...]
    retries: Retries | None
    hedge: Hedge | None
    limits: Limits | None

    @property
    def own_arms(self) -> tuple[Arm, ...]:
        """Arms that need clusters of the Route's own: those in the role `live` have theirs from their Deployment."""
        found: dict[str, Arm] = {}
        for rule in self.rules:
            found.update((arm.cluster, arm) for arm, _ in rule.shadows)
            found.update((arm.cluster, arm) for stage in rule.nexts for arm in stage)
        return tuple(found.values())

    @property
    def timeout(self) -> float:
        """Seconds that its slowest request may take."""
        return max(rule.timeout for rule in self.rules)


def plan_published(route: Route, entries: Mapping[str, RouteEntry]) -> RoutePlan:
    """`entries`: what is planned for the Deployments of the Route's workspace, by name."""
    spec = route.spec
    return RoutePlan(
        workspace=route.metadata.workspace,
        route=route.metadata.name,
        uid=route.uid,
        rules=tuple(
            _rule(rule, rule.name or str(number), entries, spec.timeout, salt=route.uid)
            for number, rule in enumerate(spec.rules)
        ),
        retries=spec.retries,
        hedge=spec.hedge,
        limits=spec.limits,
    )


def _rule(
    rule: Rule, name: str, entries: Mapping[str, RouteEntry], timeout: float | None, *, salt: str
) -> RulePlan:
    absent = {given: _why_absent(given, entries) for given in rule.deployments if not _live(entries, given)}
    cascade, fallback = None, None
    if rule.cascade is not None and rule.cascade.deployment not in absent:
        cascade = CascadePlan(rule.cascade, _next(entries[rule.cascade.deployment]))
    if rule.fallback is not None:
        nexts = (_next(entries[given]) for given in rule.fallback.deployments if given not in absent)
        fallback = FallbackPlan(rule.fallback, tuple(nexts))
    served = [entries[given] for given in rule.deployments if given in entries]
    waking = max((entry.waking for entry in served), default=0.0)
    answering = [variant.deployment for variant in rule.to if variant.deployment not in absent]
    words = "; ".join(
        f"{one.deployment}: {absent[one.deployment]}" for one in rule.to if one.deployment in absent
    )
    shadows = tuple(
        (replace(shadow_of, role="shadow", weight=0), basis_points(shadow.percent))
        for shadow in rule.shadow
        if (shadow_of := _largest(entries, shadow.deployment)) is not None
    )
    # Envoy copies all requests of a rule or none: of a rule with variants, also those that another Deployment answers.
    alone = entries[answering[0]] if answering and len(rule.to) == 1 else None
    sticky = rule.sticky if alone is None else rule.sticky or alone.sticky
    return RulePlan(
        name=name,
        match=rule.match,
        sticky=sticky,
        slots=_slots(rule, entries, answering[0], sticky=sticky is not None) if answering else (),
        shadows=shadows if alone is None or alone.shadow is None else (*shadows, alone.shadow),
        cascade=cascade,
        fallback=fallback,
        timeout=max((entry.timeout for entry in served), default=30.0)
        if timeout is None
        else timeout + waking,
        waking=waking,
        idempotent=all(entry.idempotent for entry in served),
        max_body=max((entry.max_body for entry in served), default=16 * 2**20),
        unavailable="" if answering else words,
        absent=tuple(f"{given}: {reason}" for given, reason in absent.items()),
        salt=(rule.sticky.salt or salt) if rule.sticky else salt if alone is None else alone.salt,
    )


def _slots(
    rule: Rule, entries: Mapping[str, RouteEntry], standing_in: str, *, sticky: bool
) -> tuple[Slot, ...]:
    """The line of a rule. The share of a variant that nobody serves falls to the first that somebody does."""
    if sticky:
        line = stretches(rule.shares)
    else:
        line, at = [], 0
        for place, share in enumerate(rule.shares):
            line.append((place, at, at + share))
            at += share
    slots: list[Slot] = []
    for place, start, end in line:
        name = rule.to[place].deployment
        live = entries[name].live if _live(entries, name) else entries[standing_in].live
        for arm, width in _within(live, end - start, from_end=sticky and place % 2 == 0):
            if slots and slots[-1][0] == arm:
                slots[-1] = (arm, slots[-1][1] + width)
            else:
                slots.append((arm, width))
    return tuple(slots)


def _within(live: Sequence[Arm], width: int, *, from_end: bool) -> list[Slot]:
    """A stretch divided among the arms of a rollout. The candidate, which is the last, lies where the stretch does not
    move as it grows, so that a sticky user who met the candidate stays with it."""
    order = list(live) if from_end else list(reversed(live))
    divided, told, given = [], 0, 0
    for arm in order:
        told += arm.weight
        upto = round(width * told / WHOLE)
        divided.append((replace(arm, weight=0), upto - given))
        given = upto
    return divided


def _next(entry: RouteEntry) -> tuple[Arm, ...]:
    """Those that share the live traffic, with their weights, as the ones that are asked after others."""
    merged: dict[str, Arm] = {}
    for arm in entry.live:
        before = merged.get(arm.revision, replace(arm, weight=0, endpoints=()))
        endpoints = tuple(sorted({*before.endpoints, *arm.endpoints}))
        merged[arm.revision] = replace(
            arm, role="next", weight=before.weight + arm.weight, endpoints=endpoints
        )
    return tuple(merged.values())


def _live(entries: Mapping[str, RouteEntry], name: str) -> tuple[Arm, ...]:
    entry = entries.get(name)
    return () if entry is None else entry.live


def _largest(entries: Mapping[str, RouteEntry], name: str) -> Arm | None:
    return max(_live(entries, name), key=lambda arm: arm.weight, default=None)


def _why_absent(name: str, entries: Mapping[str, RouteEntry]) -> str:
    entry = entries.get(name)
    return "there is no such deployment" if entry is None else entry.unavailable
