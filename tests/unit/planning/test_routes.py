"""Plans of Routes and what is told of them: shares, lines, who stands in for whom."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from podium.gateway.render.rules import published_routes
from podium.planning.route_test import arm_at, key_of, matches, tell
from podium.planning.routes import RoutePlan, plan_published
from podium.planning.routing import WHOLE, Arm, RouteEntry
from podium.planning.sticky import place_of, stretches
from podium.resources.kinds import Route
from podium.resources.route import RouteSpec, RouteStatus, StickyKey, TextMatch, slot_width
from podium.resources.route_test import RouteTestRequest
from podium.resources.shape import Metadata, Resource


def entry(name: str, *weights: int, **more: Any) -> RouteEntry:
    """A Deployment whose arms have these weights in percent."""
    live = tuple(
        Arm("default", f"{name}-{number:05d}", str(number), "live", weight * 100, ("unix:/s",), name)
        for number, weight in enumerate(weights, 1)
    )
    given = {"timeout": 30.0, "idempotent": True, "max_body": 2**24} | more
    return RouteEntry("default", name, f"uid-{name}", live, None, None, None, unavailable="asleep", **given)


def plan(*rules: dict[str, Any], entries: dict[str, RouteEntry] | None = None, **spec: Any) -> RoutePlan:
    route: Route = Resource(
        kind="Route",
        metadata=Metadata(name="front", uid="salt"),
        spec=RouteSpec.model_validate({"rules": list(rules), **spec}),
        status=RouteStatus(),
    )
    known = {name: entry(name, 100) for name in ("a", "b", "c", "d", "e")} if entries is None else entries
    return plan_published(route, known)


def to(*shares: tuple[str, float], **more: Any) -> dict[str, Any]:
    return {"to": [{"deployment": name, "weight": weight} for name, weight in shares], **more}


def widths(made: RoutePlan) -> list[tuple[str, int]]:
    return [(arm.revision, width) for arm, width in made.rules[0].slots]


def test_a_split_in_the_order_of_its_variants() -> None:
    assert widths(plan(to(("a", 70), ("b", 29.99), ("c", 0.01)))) == [
        ("a-00001", 7000),
        ("b-00001", 2999),
        ("c-00001", 1),
    ]


def test_two_variants_grow_towards_each_other() -> None:
    made = plan(to(("a", 60), ("b", 10), ("c", 30), sticky={"header": "x-user"}))
    assert widths(made) == [("b-00001", 1000), ("a-00001", 6000), ("c-00001", 3000)]


def test_a_candidate_lies_where_its_stretch_does_not_move() -> None:
    entries = {"a": entry("a", 100), "b": entry("b", 80, 20), "c": entry("c", 50, 50)}
    sticky = {"header": "x-user"}
    assert widths(plan(to(("a", 60), ("b", 10), ("c", 30), sticky=sticky), entries=entries)) == [
        ("b-00002", 200), ("b-00001", 800), ("a-00001", 6000), ("c-00001", 1500), ("c-00002", 1500),
    ]  # fmt: skip


def test_the_share_of_the_absent_falls_to_the_first_that_is_there() -> None:
    entries = {"a": entry("a"), "b": entry("b", 100), "c": entry("c", 100)}
    made = plan(to(("a", 50), ("b", 20), ("c", 20), ("d", 10)), entries=entries)
    assert widths(made) == [("b-00001", 7000), ("c-00001", 2000), ("b-00001", 1000)]
    assert made.rules[0].absent == ("a: asleep", "d: there is no such deployment")
    nobody = plan({"to": "a"}, entries={"a": entry("a")}).rules[0]
    assert (nobody.slots, nobody.unavailable) == ((), "a: asleep")


def test_what_a_rule_promises_holds_for_all_it_can_go_to() -> None:
    entries = {
        "a": entry("a", 100, timeout=5.0),
        "b": entry("b", 100, idempotent=False, max_body=7, timeout=9.0),
    }
    rule = plan(to(("a", 50), ("b", 50)), entries=entries).rules[0]
    assert (rule.timeout, rule.idempotent, rule.max_body) == (9.0, False, 2**24)
    assert plan(to(("a", 50), ("b", 50)), entries=entries, timeout="2s").rules[0].timeout == 2.0


@st.composite
def fitting(draw: st.DrawFn, count: int) -> list[int]:
    """Shares of `count` variants that fit their slots."""
    width = slot_width(count)
    shares = []
    for low in range(1, count, 2):
        first = draw(st.integers(0, width))
        shares += [first, draw(st.integers(0, width - first))][: count - low]
    return [WHOLE - sum(shares), *shares]


@given(st.integers(1, 6).flatmap(fitting))
def test_a_line_is_whole_and_everybody_gets_its_share(shares: list[int]) -> None:
    line = stretches(shares)
    assert line[0][1] == 0
    assert line[-1][2] == WHOLE
    assert all(before[2] == after[1] for before, after in pairwise(line))
    for variant, share in enumerate(shares):
        assert sum(end - start for place, start, end in line if place == variant) == share


@given(st.integers(2, 6).flatmap(lambda count: st.tuples(fitting(count), fitting(count))))
def test_nobody_leaves_a_variant_that_does_not_shrink(both: tuple[list[int], list[int]]) -> None:
    before, after = both
    places = {
        place
        for part in (stretches(before), stretches(after))
        for _, start, end in part
        for place in (start, end - 1)
    }

    def at(line: list[tuple[int, int, int]], place: int) -> int:
        return next(variant for variant, start, end in line if start <= place < end)

    for place in places:
        held = at(stretches(before), place)
        if held != 0 and after[held] >= before[held]:
            assert at(stretches(after), place) == held


@given(st.lists(st.integers(0, 100), min_size=1, max_size=3), st.integers(0, 100))
def test_arms_share_their_stretch_to_the_last_basis_point(weights: list[int], share: int) -> None:
    assume(sum(weights) > 0)
    candidate = weights[0] % 100
    entries = {"a": entry("a", 100), "b": entry("b", 100 - candidate, candidate)}
    made = plan(to(("a", 100 - share), ("b", share), sticky={"header": "x-user"}), entries=entries)
    assert sum(width for _, width in made.rules[0].slots) == WHOLE
    of_b = sum(width for arm, width in made.rules[0].slots if arm.deployment == "b")
    assert of_b == share * 100


def test_a_hundred_thousand_users_are_spread_evenly_and_stay() -> None:
    users = [f"user-{number}" for number in range(100_000)]
    before, after = ({user for user in users if place_of("salt", user) < share} for share in (1000, 5000))
    assert before <= after
    assert len(before) / 1000 == pytest.approx(10, abs=0.5)
    assert len(after) / 1000 == pytest.approx(50, abs=0.5)
    other = {user for user in users if place_of("another", user) < 5000}
    assert len(after & other) / 1000 == pytest.approx(25, abs=0.5)


def test_a_salt_of_ones_own_is_in_the_place_of_the_uid() -> None:
    shares = (("a", 50), ("b", 50))
    assert plan(to(*shares, sticky={"header": "x-user"})).rules[0].salt == "salt"
    salted = plan(to(*shares, sticky={"header": "x-user", "salt": "sale"}))
    assert salted.rules[0].salt == "sale"
    request = RouteTestRequest(headers={"x-user": "u7"})
    assert tell(salted, request).answering[0].deployment == ("b" if place_of("sale", "u7") < 5000 else "a")
    for wrong in ("", "a b", "\\1", "-", "x" * 65):
        with pytest.raises(ValueError, match="salt"):
            plan(to(*shares, sticky={"header": "x-user", "salt": wrong}))
    with pytest.raises(ValueError, match="exactly one of header"):
        plan(to(*shares, sticky={"salt": "sale"}))


def test_telling_why() -> None:
    made = plan(
        {
            "name": "gold",
            "match": {"headers": {"x-tier": "gold"}, "query": {"v": {"prefix": "2"}}},
            "to": "b",
        },
        to(("a", 90), ("c", 10), sticky={"cookie": "uid"}),
    )
    told = tell(made, RouteTestRequest(headers={"X-Tier": "gold", "cookie": "z=1; uid=u7"}))
    assert [(rule.name, rule.matched, rule.why) for rule in told.rules] == [
        ("gold", False, "query v: expected prefix '2', got nothing"),
        ("1", True, "it matches everything"),
    ]
    (answering,) = told.answering
    assert answering.share == 100
    assert answering.deployment == ("c" if place_of("salt", "u7") < 1000 else "a")
    assert "'u7' is at" in told.sticky
    told = tell(made, RouteTestRequest(headers={"x-tier": "gold"}, query={"v": "2.1"}))
    assert (told.rule, told.answering[0].deployment) == ("gold", "b")
    told = tell(made, RouteTestRequest())
    assert {one.deployment: one.share for one in told.answering} == {"a": 90.0, "c": 10.0}
    assert told.sticky == "the request has no key: spread at random"
    nobody = tell(plan({"match": {"path": "/x"}, "to": "a"}), RouteTestRequest(path="/infer"))
    assert (nobody.rule, nobody.answering) == (None, [])


def test_keys_in_cookies() -> None:
    key = StickyKey(cookie="uid")
    for cookie, expected in (
        ("uid=1", "1"),
        ("a=2;uid=1; b=3", "1"),
        ("xuid=1", None),
        ("uid=", ""),
        ("", None),
    ):
        assert key_of(key, RouteTestRequest(headers={"cookie": cookie})) == expected, cookie


def test_texts_match_as_they_say() -> None:
    for wish, yes, no in (
        ({"exact": "a"}, ["a"], ["ab", None]),
        ({"prefix": "a"}, ["a", "ab"], ["ba", None]),
        ({"suffix": "a"}, ["ba"], ["ab", None]),
        ({"contains": "a"}, ["bab"], ["b", None]),
        ({"regex": "a+"}, ["aa"], ["aab", None]),
        ({"present": True}, ["", "x"], [None]),
        ({"present": False}, [None], ["", "x"]),
    ):
        wanted = TextMatch.model_validate(wish)
        assert all(matches(wanted, value) for value in yes), wish
        assert not any(matches(wanted, value) for value in no), wish


def test_places_off_the_line_are_an_error() -> None:
    made = plan({"to": "a"})
    assert arm_at(made.rules[0].slots, WHOLE - 1).deployment == "a"
    with pytest.raises(ValueError, match="ends at"):
        arm_at(made.rules[0].slots, WHOLE)


def test_what_sleeps_gets_the_time_to_start() -> None:
    entries = {"a": entry("a", 100, timeout=40.0, waking=10.0), "b": entry("b", 100)}
    both = to(("a", 50), ("b", 50))
    assert (plan(both, entries=entries).rules[0].timeout, plan(both, entries=entries).rules[0].waking) == (
        40.0,
        10.0,
    )
    assert plan(both, entries=entries, timeout="2s").rules[0].timeout == 12.0
    per_try = {"retries": {"perTryTimeout": "1s", "on": ["reset"]}}
    for known, expected in ((entries, False), ({"a": entry("a", 100), "b": entry("b", 100)}, True)):
        routes = published_routes(plan(both, entries=known, **per_try)).published
        assert (b'"per_try_timeout":"1.000s"' in routes[0]) is expected


def test_who_stands_in_is_told() -> None:
    entries = {"a": entry("a"), "b": entry("b", 100), "c": entry("c", 100)}
    told = tell(plan({"to": "a", "cascade": {"deployment": "b"}}, entries=entries), RouteTestRequest())
    assert ([one.deployment for one in told.answering], told.then) == (["b"], [])
    rule = {"to": "a", "fallback": {"deployments": ["b", "c"], "answer": {"body": 1}}}
    told = tell(plan(rule, entries=entries), RouteTestRequest())
    assert [one.deployment for one in told.answering] == ["b"]
    assert told.then == ["c, where that fails", "a declared answer (200), where all fail"]
    assert told.absent == ["a: asleep"]
