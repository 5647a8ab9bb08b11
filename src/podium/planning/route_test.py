"""Which Deployment would answer a request: the gateway's rules, gone through in words. Pure.

Called by the API for `podium route test`. It reads the plan that the gateway renders; a test holds the two together.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from podium.planning.routes import RoutePlan, RulePlan, Slot
from podium.planning.routing import WHOLE, Arm
from podium.planning.sticky import place_of
from podium.resources.patterns import matches_whole
from podium.resources.route import Match, StickyKey, TextMatch
from podium.resources.route_test import Answering, RouteTestRequest, RouteTestResult, RuleTested


def tell(plan: RoutePlan, request: RouteTestRequest) -> RouteTestResult:
    """What happens to the request, and why."""
    tested: list[RuleTested] = []
    for rule in plan.rules:
        failing = _failing(rule.match, request)
        matched = not failing
        why = "; ".join(failing) if failing else _why(rule.match)
        tested.append(RuleTested(name=rule.name, matched=matched, why=why))
        if matched:
            return _outcome(plan, rule, request, tested)
    return RouteTestResult(route=plan.route, rules=tested)


def _outcome(
    plan: RoutePlan, rule: RulePlan, request: RouteTestRequest, tested: list[RuleTested]
) -> RouteTestResult:
    sticky, slots = "", rule.slots
    key = key_of(rule.sticky, request) if rule.sticky is not None else None
    if key is not None and slots:
        place = place_of(rule.salt, key)
        sticky = f"{key!r} is at {place / 100:.2f} of 100"
        slots = ((arm_at(slots, place), WHOLE),)
    elif rule.sticky is not None:
        sticky = "the request has no key: spread at random"
    then = []
    standing_in = stands_in(rule)
    if standing_in:
        slots = tuple((arm, arm.weight) for arm in standing_in)
    if rule.cascade is not None and rule.slots:
        settings = rule.cascade.settings
        then.append(f"{settings.deployment}, where the confidence is below {settings.threshold:g}")
    if rule.fallback is not None:
        then += [
            f"{stage[0].deployment}, where that fails"
            for stage in rule.fallback.stages
            if stage != standing_in
        ]
        if rule.fallback.settings.answer is not None:
            then.append(f"a declared answer ({rule.fallback.settings.answer.status}), where all fail")
    return RouteTestResult(
        route=plan.route,
        rules=tested,
        rule=rule.name,
        sticky=sticky,
        answering=_answering(slots),
        shadows=_answering(rule.shadows),
        then=then,
        absent=list(rule.absent),
    )


def stands_in(rule: RulePlan) -> tuple[Arm, ...]:
    """The arms that answer where nobody serves the rule's own Deployments: a cascade's larger model, or the first
    fallback."""
    if rule.slots:
        return ()
    if rule.cascade is not None:
        return rule.cascade.arms
    return rule.fallback.stages[0] if rule.fallback is not None and rule.fallback.stages else ()


def key_of(sticky: StickyKey, request: RouteTestRequest) -> str | None:
    """The user's key in a request, as the gateway finds it; None where there is none."""
    if sticky.header is not None:
        return request.headers.get(sticky.header)
    if sticky.claim is not None:
        return request.claims.get(sticky.claim)
    found = re.fullmatch(
        rf"(?:.*;\s*)?{re.escape(sticky.cookie or '')}=([^;]*).*", request.headers.get("cookie", "")
    )
    return found[1] if found else None


def arm_at(slots: Iterable[Slot], place: int) -> Arm:
    """The arm that this place of the line belongs to. Raises ValueError for a line that is shorter."""
    end = 0
    for arm, width in slots:
        end += width
        if place < end:
            return arm
    raise ValueError(f"the line ends at {end}, before {place}")


def _answering(slots: Iterable[Slot]) -> list[Answering]:
    shares: Counter[tuple[str, str, str]] = Counter()
    for arm, width in slots:
        shares[arm.deployment, arm.revision, arm.version] += width
    return [
        Answering(deployment=deployment, revision=revision, version=version, share=width / 100)
        for (deployment, revision, version), width in shares.items()
        if width
    ]


def _failing(match: Match | None, request: RouteTestRequest) -> list[str]:
    """The conditions that do not hold, in words; empty where all do."""
    if match is None:
        return []
    found = [
        *([("path", match.path, request.path)] if match.path is not None else []),
        *_pairs("header", match.headers, request.headers),
        *_pairs("query", match.query, request.query),
        *_pairs("claim", match.claims, request.claims),
    ]
    return [
        f"{name}: expected {wanted}, got {'nothing' if value is None else repr(value)}"
        for name, wanted, value in found
        if not matches(wanted, value)
    ]


def _pairs(
    what: str, wanted: Mapping[str, TextMatch], given: Mapping[str, str]
) -> list[tuple[str, TextMatch, str | None]]:
    return [(f"{what} {name}", match, given.get(name)) for name, match in wanted.items()]


def _why(match: Match | None) -> str:
    if match is None:
        return "it matches everything"
    parts = [f"path {match.path}"] if match.path is not None else []
    for what, group in (("header", match.headers), ("query", match.query), ("claim", match.claims)):
        parts += [f"{what} {name} {wanted}" for name, wanted in group.items()]
    return "; ".join(parts)


def matches(wanted: TextMatch, value: str | None) -> bool:
    """As Envoy decides it; None: not there."""
    if wanted.present is not None:
        return (value is not None) == wanted.present
    if value is None:
        return False
    if wanted.regex is not None:
        return matches_whole(wanted.regex, value)
    if wanted.exact is not None:
        return value == wanted.exact
    if wanted.prefix is not None:
        return value.startswith(wanted.prefix)
    if wanted.suffix is not None:
        return value.endswith(wanted.suffix)
    return (wanted.contains or "") in value
