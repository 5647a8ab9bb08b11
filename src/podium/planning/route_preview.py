"""What a change of a Route leads to, rule by rule: in sentences, and as the fields that differ. Pure.

Called by the API for an apply and its dry run, and by `podium diff` through it. The places of sticky users are those
of `sticky`, by which the gateway is configured.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from podium.planning.sticky import moves
from podium.resources.kinds import Route
from podium.resources.requests import FieldChange
from podium.resources.route import RouteSpec, Rule, StickyKey

Pair = tuple[Rule | None, Rule | None]
"""A rule before and after; None where it is new or goes."""


def describe(before: Route | None, after: Route) -> list[str]:
    """Sentences, a rule after the other. Nothing where no rule and no limit differs."""
    old: Sequence[Rule] = [] if before is None else before.spec.rules
    sentences = []
    for was, now in pair(old, after.spec.rules):
        if was is None and now is not None:
            new = "" if before is None else " is new"
            sentences.append(f"Rule {_label(now, after.spec)}{new}: {_goes(now)}.")
        elif now is None and was is not None and before is not None:
            sentences.append(
                f"Rule {_label(was, before.spec)} goes: its requests meet the rules that are left."
            )
        elif was is not None and now is not None and was != now:
            sentences += [f"Rule {_label(now, after.spec)}: {words}." for words in _changed(was, now)]
    if before is not None and _order(before.spec, after.spec) is not None:
        sentences.append("The rules are tried in another order.")
    if before is not None and _numbers(before.spec) != _numbers(after.spec):
        sentences.append(
            "The buckets of its limits begin full. Numbers that no Route at a gateway had before fill the buckets of "
            "all Routes there."
        )
    return sentences


def changes(before: Route | None, after: Route) -> list[FieldChange]:
    """The fields that differ, without those that say nothing; a rule by its name or number, a variant by its
    Deployment: `spec.rules[users].to[flowers].weight`."""
    old_spec = None if before is None else before.spec
    found = list(_differing(_around(before), _around(after)))
    for was, now in pair([] if old_spec is None else old_spec.rules, after.spec.rules):
        label = "" if now is None else _label(now, after.spec)
        if was is not None and now is None and old_spec is not None:
            label = _label(was, old_spec)
        found += _differing(_fields(was, label), _fields(now, label))
        if was is not None and now is not None:
            orders = [[one.deployment for one in rule.to] for rule in (was, now)]
            if orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]):
                found.append(_change(f"spec.rules[{label}].to", *orders))
    moved = None if old_spec is None else _order(old_spec, after.spec)
    return found if moved is None else [*found, _change("spec.rules", *moved)]


def pair(before: Sequence[Rule], after: Sequence[Rule]) -> list[Pair]:
    """Which rule was which: by its name, else by what it matches, else by its place. In the order of `after`; those
    that go come last."""
    left = dict(enumerate(before))
    found: dict[int, Rule] = {}
    for number, now in enumerate(after):
        same = next((at for at, was in left.items() if now.name is not None and was.name == now.name), None)
        if same is not None:
            found[number] = left.pop(same)
    for number, now in enumerate(after):
        same = next((at for at, was in left.items() if was.match == now.match), None)
        if number not in found and same is not None:
            found[number] = left.pop(same)
    for number in range(len(after)):
        if number not in found and number in left:
            found[number] = left.pop(number)
    return [
        *((found.get(number), now) for number, now in enumerate(after)),
        *((was, None) for was in left.values()),
    ]


def _label(rule: Rule, spec: RouteSpec) -> str:
    return rule.name or str(next(number for number, one in enumerate(spec.rules) if one is rule))


def _order(before: RouteSpec, after: RouteSpec) -> tuple[list[str], list[str]] | None:
    """The rules that were there and stay, in the order before and after; None where it is the same."""
    kept = [(was, now) for was, now in pair(before.rules, after.rules) if was is not None and now is not None]
    places = [next(number for number, one in enumerate(before.rules) if one is was) for was, _ in kept]
    if places == sorted(places):
        return None
    stay = [_label(now, after) for _, now in kept]
    return [label for _, label in sorted(zip(places, stay, strict=True))], stay


def _numbers(spec: RouteSpec) -> tuple[object, object]:
    return (None, None) if spec.limits is None else (spec.limits.route, spec.limits.per_caller)


def _goes(rule: Rule) -> str:
    """Where its requests go."""
    if len(rule.to) == 1:
        words = f"to {rule.to[0].deployment}"
    else:
        shares = ", ".join(f"{share / 100:g} % to {name}" for name, share in _shares(rule))
        words = f"{shares}, {'request by request' if rule.sticky is None else f'by {_key(rule.sticky)}'}"
    if rule.cascade is not None:
        words += f"; what it is not sure of to {rule.cascade.deployment}"
    if rule.shadow:
        words += f"; copies: {', '.join(f'{one.percent:g} % to {one.deployment}' for one in rule.shadow)}"
    if rule.fallback is not None:
        last = ["the declared answer"] if rule.fallback.answer is not None else []
        words += f"; when that fails, {', then '.join([*rule.fallback.deployments, *last])}"
    return words


def _changed(was: Rule, now: Rule) -> Iterator[str]:
    if was.match != now.match:
        yield "it matches other requests than before"
    if _goes(was) != _goes(now):
        yield _goes(now)
    if was.sticky is None or now.sticky is None:
        if was.sticky is not None and len(now.to) > 1:
            yield "users do not stay with their variant any more: each request is drawn by itself"
        elif now.sticky is not None and len(was.to) > 1:
            yield "every user gets a place and stays there; before, each request was drawn by itself"
        elif now.sticky is not None:
            yield from _moved(was, now)
    elif was.sticky != now.sticky:
        keys = _key(was.sticky), _key(now.sticky)
        why = (
            "with another salt"
            if keys[0] == keys[1]
            else f"they are told apart by {keys[1]}, not by {keys[0]}"
        )
        yield f"all users are drawn anew: {why}"
    else:
        yield from _moved(was, now)


def _moved(was: Rule, now: Rule) -> Iterator[str]:
    """Whose users meet another variant than before, and whose do so without need."""
    before, after = dict(_shares(was)), dict(_shares(now))
    if _shares(was) == _shares(now):
        return
    moved = moves(_shares(was), _shares(now))
    needless = False
    for name, share in before.items():
        to = {other: width for (source, other), width in moved.items() if source == name}
        if not to:
            continue
        part = f"{100 * sum(to.values()) / share:.4g} %" if sum(to.values()) < share else "all"
        words = f"{part} of the users of {name} move to {' and '.join(to)}"
        if sum(to.values()) > share - min(share, after.get(name, 0)):
            needless = True
            words += f", though its share goes from {share / 100:g} to {after[name] / 100:g} %"
        yield words
    if needless and list(before) != list(after):
        yield (
            "places depend on the number and order of the variants: leave the list as it is, and end one by weight 0"
        )
    elif needless:
        yield f"what a variant leaves is taken up by {now.to[0].deployment}, and who grows takes from there"
    if not moved:
        yield "no user changes sides"


def _shares(rule: Rule) -> list[tuple[str, int]]:
    return [(one.deployment, share) for one, share in zip(rule.to, rule.shares, strict=True)]


def _key(sticky: StickyKey) -> str:
    [(kind, name)] = sticky.model_dump(exclude_none=True, include={"header", "cookie", "claim"}).items()
    return f"{kind} {name}"


def _around(route: Route | None) -> dict[str, Any]:
    """All that a person writes but the rules."""
    if route is None:
        return {}
    meta = route.metadata
    spec = route.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"rules"})
    written = {"metadata": {"labels": meta.labels, "annotations": meta.annotations}, "spec": spec}
    return {path: value for path, value in _flat("", written) if value != {} or path.startswith("spec.")}


def _fields(rule: Rule | None, label: str) -> dict[str, Any]:
    """What a rule says, by path."""
    if rule is None:
        return {}
    at = f"spec.rules[{label}]"
    rest = rule.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"name", "to", "shadow"}
    )
    found: dict[str, Any] = {} if rule.name is None else {f"{at}.name": rule.name}
    found |= {f"{at}.to[{name}].weight": _number(share / 100) for name, share in _shares(rule)}
    found |= {f"{at}.shadow[{one.deployment}].percent": _number(one.percent) for one in rule.shadow}
    return found | dict(_flat(at, rest))


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        yield path, value
        return
    for key, inner in value.items():
        yield from _flat(f"{path}.{key}" if path else str(key), inner)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[FieldChange]:
    for path in dict.fromkeys([*before, *after]):
        if before.get(path) != after.get(path):
            yield _change(path, before.get(path), after.get(path))


def _change(path: str, before: Any, after: Any) -> FieldChange:
    return FieldChange.model_validate({"path": path, "from": before, "to": after})
