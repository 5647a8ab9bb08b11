"""The fragments of the route table for one Route: its rules in their order.

Called by `loader`. Calls `routes` for what all routes have, and `traffic` for what a Route declares beyond its targets.
A shift of weights changes none of them where Envoy can look the weights up (`weights`).
"""

import hashlib
import re
from dataclasses import replace
from typing import Any

from podium.gateway.render import variants
from podium.gateway.render.access import CLAIMS, TOKEN_FILTER
from podium.gateway.render.document import fragment
from podium.gateway.render.entrance import alike
from podium.gateway.render.problem import answer
from podium.gateway.render.routes import REPEATED, EntryRoutes, Handling, public_path, route_to
from podium.gateway.render.sticky import keyed
from podium.gateway.render.streams import begins_within
from podium.gateway.render.traffic import stages_of, standing_in, with_traffic
from podium.gateway.render.weights import rule_prefix
from podium.planning.routes import RoutePlan, RulePlan
from podium.planning.routing import WHOLE
from podium.resources.claims import is_own
from podium.resources.route import Match, TextMatch

ROUTE_HEADER = "x-podium-route"
"""Tells a replica under which name a request came in: the messages of gRPC hold that name, too."""


def route_id(workspace: str, name: str) -> str:
    """How Envoy and `read_back` know the routes of a Route; those of a rule have `#` and the rule's name after it."""
    return f"route:{workspace}/{name}"


def published_routes(plan: RoutePlan) -> EntryRoutes:
    """The routes of a Route. Requests that no rule matches are answered 404."""
    named = route_id(plan.workspace, plan.route)
    routes = [
        {**route, "name": f"{named}#{rule.name}"} for rule in plan.rules for route in _rule_routes(plan, rule)
    ]
    outside = public_path(plan.workspace, plan.route)
    if plan.rules[-1].match is not None:
        said = answer("notFound", 404, f"no rule of route {plan.workspace}/{plan.route} matches this request")
        routes.append({"match": {"path_separated_prefix": outside}, "direct_response": said, "name": named})
    return EntryRoutes(published=tuple(fragment(route) for route in alike(routes)))


def _rule_routes(plan: RoutePlan, rule: RulePlan) -> list[dict[str, Any]]:
    match = _match(public_path(plan.workspace, plan.route), rule.match)
    how = Handling(rule.timeout, rule.idempotent, rule.max_body, _neutral(plan.route))

    def to(match: dict[str, Any], target: dict[str, Any], rule: RulePlan = rule) -> dict[str, Any]:
        made = with_traffic(_handed(plan, route_to(match, target, how)), plan, rule)
        return {**made, "route": begins_within(made["route"], how.timeout, REPEATED)}

    if not rule.slots:
        target = standing_in(rule)
        if target is not None:
            return [to(match, target)]
        words = f"route {plan.workspace}/{plan.route}: {rule.unavailable}"
        said = answer("unavailable", 503, words, route=plan.route)
        return [with_traffic({"match": match, "direct_response": said}, plan, rule)]
    sticky = rule.sticky
    if sticky is None or len(rule.slots) == 1:
        return [to(match, _target(plan, rule))]
    parts = [
        (part, {**_target(plan, rule, by_hash=bool(key)), **key})
        for part, key in keyed(match, sticky, rule.salt)
    ]
    if len(stages_of(rule)) == 1:
        return [to(part, target) for part, target in parts]
    arms = {arm.cluster: arm for arm, _ in rule.slots}
    asked = [
        to(part, {"cluster": name}, replace(rule, slots=((arms[name], WHOLE),)))
        for part, name in variants.drawn(match, arms)
    ]
    # What draws sends nothing anywhere: it has neither stages nor copies of its own.
    alone = replace(
        rule, shadows=(), cascade=None, fallback=rule.fallback and replace(rule.fallback, stages=())
    )
    return [*asked, *(variants.drawn_only(to(part, target, alone)) for part, target in parts)]


def _handed(plan: RoutePlan, route: dict[str, Any]) -> dict[str, Any]:
    told = {
        "header": {"key": ROUTE_HEADER, "value": plan.route},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return {**route, "request_headers_to_add": [told]}


def _neutral(name: str) -> dict[str, Any]:
    """The path as every replica knows it: no workspace, and `-` for the model that is there."""
    pattern = rf"(?:^/ws/[^/]+)?/(v[12])/models/{name}"
    return {"pattern": {"regex": pattern}, "substitution": r"/\1/models/-"}


def published_weights(plan: RoutePlan) -> dict[str, int]:
    """Runtime key -> basis points for the rules whose weights are not in their routes."""
    weights = {}
    # Of two rules that say the same the first is the one that is reached: its weights count.
    for rule in reversed(plan.rules):
        if _shifts_by_runtime(rule):
            keys = _keys(plan, rule)
            weights.update({f"{keys}.{arm.cluster}": width for arm, width in rule.slots})
    return weights


def _keys(plan: RoutePlan, rule: RulePlan) -> str:
    """What the rule's weights are looked up by: its content, not its place. A rule that is put before it, or that goes
    to others, has keys of its own, so that the routes from before keep their weights until they are gone."""
    match = rule.match.model_dump(mode="json") if rule.match is not None else None
    # Who is dealt where has no part in the weights: keys are those from before there was a salt.
    sticky = rule.sticky.model_dump(mode="json", exclude={"salt"}) if rule.sticky is not None else None
    content = fragment([match, sticky, [arm.cluster for arm, _ in rule.slots]])
    return rule_prefix(plan.workspace, plan.route, hashlib.sha256(content).hexdigest()[:12])


def _shifts_by_runtime(rule: RulePlan) -> bool:
    """Envoy looks a weight up by the cluster's name. With a sticky key and more than three variants the first one may
    lie in several places of the line, which such a weight cannot say: then the weights stand in the route."""
    names = [arm.cluster for arm, _ in rule.slots]
    return len(names) > 1 and len(set(names)) == len(names)


def _target(plan: RoutePlan, rule: RulePlan, *, by_hash: bool = False) -> dict[str, Any]:
    if len(rule.slots) == 1:
        return {"cluster": rule.slots[0][0].cluster}
    hashed = {"use_hash_policy": True} if by_hash else {}
    if not _shifts_by_runtime(rule):
        shares = [{"name": arm.cluster, "weight": width} for arm, width in rule.slots if width]
        return {"weighted_clusters": {"clusters": shares, **hashed}}
    keys = _keys(plan, rule)
    clusters = [
        {"name": arm.cluster, "weight": WHOLE if place == 0 else 0}
        for place, (arm, _) in enumerate(rule.slots)
    ]
    return {"weighted_clusters": {"runtime_key_prefix": keys, "clusters": clusters, **hashed}}


def _match(outside: str, match: Match | None) -> dict[str, Any]:
    if match is None:
        return {"path_separated_prefix": outside}
    path = _path(outside, match.path)
    headers = [
        *path.pop("headers", ()),
        *({"name": name, **_value(value)} for name, value in match.headers.items()),
    ]
    query = [{"name": name, **_value(value)} for name, value in match.query.items()]
    claims = [_claim(name, value) for name, value in match.claims.items()]
    return {
        **path,
        **({"headers": headers} if headers else {}),
        **({"query_parameters": query} if query else {}),
        **({"dynamic_metadata": claims} if claims else {}),
    }


def _path(outside: str, wanted: TextMatch | None) -> dict[str, Any]:
    """What comes after the Route's name, which ends there: `garden` never takes a request of `garden-large`."""
    if wanted is None:
        return {"path_separated_prefix": outside}
    if wanted.exact is not None:
        return {"path": outside + wanted.exact}
    if wanted.prefix is not None:
        return {"prefix": outside + wanted.prefix}
    if wanted.suffix is not None:
        rest = f".*{re.escape(wanted.suffix)}"
    elif wanted.contains is not None:
        rest = f".*{re.escape(wanted.contains)}.*"
    else:
        rest = f"(?:{wanted.regex})"
    ends = {"safe_regex": {"regex": f"(?s){re.escape(outside)}(?:[/?].*)?"}}
    return {
        "safe_regex": {"regex": re.escape(outside) + rest},
        "headers": [{"name": ":path", "string_match": ends}],
    }


def _value(wanted: TextMatch) -> dict[str, Any]:
    if wanted.present is not None:
        return {"present_match": wanted.present}
    return {"string_match": _string(wanted)}


def _claim(name: str, wanted: TextMatch) -> dict[str, Any]:
    place = (CLAIMS, name) if is_own(name) else (CLAIMS, "claims", name)
    value = {"present_match": True} if wanted.present is not None else {"string_match": _string(wanted)}
    found = {"filter": TOKEN_FILTER, "path": [{"key": key} for key in place], "value": value}
    return found if wanted.present is not False else {**found, "invert": True}


def _string(wanted: TextMatch) -> dict[str, Any]:
    if wanted.regex is not None:
        return {"safe_regex": {"regex": wanted.regex}}
    for name in ("exact", "prefix", "suffix", "contains"):
        value = getattr(wanted, name)
        if value is not None:
            return {name: value}
    raise AssertionError("a text that is matched has a form")
