"""What is said of a change of a Route: whose users move, and which fields differ."""

import random
from typing import Any

import pytest

from podium.planning.route_preview import changes, describe
from podium.planning.sticky import moves, place_of, stretches
from podium.resources.kinds import KINDS, Route


def route(*rules: dict[str, Any], **spec: Any) -> Route:
    document = {"metadata": {"name": "front", "uid": "u"}, "spec": {"rules": [*rules], **spec}}
    return KINDS["Route"].parse(document)


def users(sticky: str = "x-user", **shares: float) -> dict[str, Any]:
    to = [{"deployment": name, "weight": weight} for name, weight in shares.items()]
    return {"name": "users", "to": to, "sticky": {"header": sticky}}


def variant(line: list[tuple[int, int, int]], place: int) -> int:
    return next(number for number, start, end in line if start <= place < end)


def test_an_arm_that_is_added_moves_users_of_others_and_it_is_said() -> None:
    before, after = route(users(a=60, b=20, c=20)), route(users(a=40, b=20, c=20, d=20))
    told = describe(before, after)
    assert told[0] == "Rule users: 40 % to a, 20 % to b, 20 % to c, 20 % to d, by header x-user."
    assert "Rule users: all of the users of c move to a, though its share goes from 20 to 20 %." in told
    assert told[-1].startswith("Rule users: places depend on the number and order of the variants")


def test_an_arm_that_is_taken_out_moves_those_of_the_next_and_weight_0_does_not() -> None:
    before = route(users(a=60, b=20, c=20))
    out = describe(before, route(users(a=80, c=20)))
    assert "Rule users: all of the users of c move to a, though its share goes from 20 to 20 %." in out
    ended = describe(before, route(users(a=80, b=0, c=20)))
    assert ended[1:] == ["Rule users: all of the users of b move to a."]
    third = describe(route(users(a=80, b=20)), route(users(a=80, b=20, c=0)))
    assert third[1:] == ["Rule users: no user changes sides."]


def test_a_share_that_grows_takes_from_the_control_only() -> None:
    told = describe(route(users(a=90, b=10)), route(users(a=80, b=20)))
    assert told == [
        "Rule users: 80 % to a, 20 % to b, by header x-user.",
        "Rule users: 11.11 % of the users of a move to b.",
    ]
    alone = describe(route({"name": "users", "to": "a"}), route(users(a=95, b=5)))
    assert alone[-1] == "Rule users: 5 % of the users of a move to b."


def test_the_first_variant_gives_what_another_takes_and_gets_what_one_leaves() -> None:
    told = describe(route(users(a=50, b=30, c=20)), route(users(a=50, b=20, c=30)))
    assert told[1:] == [
        "Rule users: 20 % of the users of a move to c, though its share goes from 50 to 50 %.",
        "Rule users: 33.33 % of the users of b move to a.",
        "Rule users: what a variant leaves is taken up by a, and who grows takes from there.",
    ]


def test_another_key_draws_everybody_anew() -> None:
    told = describe(route(users(a=50, b=50)), route(users("x-id", a=50, b=50)))
    assert told[-1] == (
        "Rule users: all users are drawn anew: they are told apart by header x-id, not by header x-user."
    )
    salted = users(a=50, b=50)
    salted["sticky"]["salt"] = "spring"
    assert describe(route(users(a=50, b=50)), route(salted)) == [
        "Rule users: all users are drawn anew: with another salt."
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_moves_are_those_of_real_users(seed: int) -> None:
    """Against the place of each of many users, before and after."""
    draw = random.Random(seed)
    names = draw.sample("abcdef", draw.randint(1, 3)), draw.sample("abcdef", draw.randint(1, 3))
    sides = []
    for chosen in names:
        cuts = sorted(draw.randint(0, 10_000) for _ in chosen[1:])
        sides.append(
            [
                (name, end - start)
                for name, start, end in zip(chosen, [0, *cuts], [*cuts, 10_000], strict=True)
            ]
        )
    told = moves(*sides)
    lines = [stretches([share for _, share in side]) for side in sides]
    counted: dict[tuple[str, str], int] = {}
    for user in range(2000):
        place = place_of("salt", f"user-{user}")
        was, now = (side[variant(line, place)][0] for side, line in zip(sides, lines, strict=True))
        if was != now:
            counted[was, now] = counted.get((was, now), 0) + 1
    for both in told.keys() | counted.keys():
        assert counted.get(both, 0) / 2000 == pytest.approx(told.get(both, 0) / 10_000, abs=0.05)


def test_a_new_route_is_told_rule_by_rule() -> None:
    gold = {
        "name": "gold",
        "match": {"headers": {"x-tier": "gold"}},
        "to": "big",
        "cascade": {"deployment": "huge"},
    }
    rest = {
        "to": "small",
        "shadow": [{"deployment": "next", "percent": 10}],
        "fallback": {"deployments": ["big"], "answer": {"body": {}}},
    }
    assert describe(None, route(gold, rest)) == [
        "Rule gold: to big; what it is not sure of to huge.",
        "Rule 1: to small; copies: 10 % to next; when that fails, big, then the declared answer.",
    ]


def test_limits_with_other_numbers_begin_full() -> None:
    before, after = (route({"to": "a"}, limits={"perCaller": {"requests": most}}) for most in (5, 6))
    assert describe(before, after)[0].startswith("The buckets of its limits begin full.")
    assert describe(before, before) == []


def test_fields_that_differ_are_named_by_rule_and_variant() -> None:
    before = route({"name": "gold", "match": {"headers": {"x": "1"}}, "to": "big"}, users(a=90, b=10))
    after = route(
        {"name": "silver", "match": {"headers": {"y": "1"}}, "to": "big"},
        {"name": "gold", "match": {"headers": {"x": "2"}}, "to": "big"},
        users(a=70, b=20, c=10),
        timeout="5s",
    )
    told = {one.path: (one.before, one.after) for one in changes(before, after)}
    assert told == {
        "spec.timeout": (None, "5s"),
        "spec.rules[silver].name": (None, "silver"),
        "spec.rules[silver].to[big].weight": (None, 100),
        "spec.rules[silver].match.headers.y.exact": (None, "1"),
        "spec.rules[gold].match.headers.x.exact": ("1", "2"),
        "spec.rules[users].to[a].weight": (90, 70),
        "spec.rules[users].to[b].weight": (10, 20),
        "spec.rules[users].to[c].weight": (None, 10),
    }


def test_another_order_of_rules_or_variants_is_a_change() -> None:
    one, two = ({"name": name, "match": {"headers": {name: "1"}}, "to": "a"} for name in ("one", "two"))
    [change] = changes(route(one, two), route(two, one))
    assert (change.path, change.before, change.after) == ("spec.rules", ["one", "two"], ["two", "one"])
    assert describe(route(one, two), route(two, one)) == ["The rules are tried in another order."]
    [change] = changes(route(users(a=50, b=50)), route(users(b=50, a=50)))
    assert (change.path, change.after) == ("spec.rules[users].to", ["b", "a"])
    assert "all of the users of a move to b" in " ".join(
        describe(route(users(a=50, b=50)), route(users(b=50, a=50)))
    )
