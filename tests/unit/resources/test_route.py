"""What a Route may say, and in which words it is refused."""

from typing import Any

import pytest

from podium.resources.errors import InvalidInput
from podium.resources.kinds import parse_applied
from podium.resources.route_test import RouteTestRequest


def applied(*rules: Any, **spec: Any) -> Any:
    metadata = {"name": "front"}
    return parse_applied(
        {
            "apiVersion": "podium/v1",
            "kind": "Route",
            "metadata": metadata,
            "spec": {"rules": list(rules), **spec},
        }
    )


def to(*shares: Any) -> list[dict[str, Any]]:
    return [{"deployment": name, "weight": weight} for name, weight in shares]


def test_the_short_forms() -> None:
    rule = applied({"match": {"headers": {"x-tier": "gold"}}, "to": "churn"}).spec.rules[0]
    assert rule.to[0].deployment == "churn"
    assert rule.match.headers["x-tier"].exact == "gold"
    assert rule.shares == (10_000,)


REFUSED = [
    ([{"to": "a", "sticky": "x-user"}], "spec.rules[0].sticky", "expected {header: NAME}"),
    ([{"to": "a", "match": {"headers": {"x-n": 1}}}], "spec.rules[0].match.headers.x-n", "a text in quotes"),
    ([{"to": "a", "match": {"path": {"regex": "a++"}}}], "spec.rules[0].match.path.regex", "bad repetition"),
    (
        [{"to": "a", "match": {"path": {"regex": "a{1001}"}}}],
        "spec.rules[0].match.path.regex",
        "repetition size",
    ),
    (
        [{"to": "a", "match": {"path": {"regex": r"x\Z"}}}],
        "spec.rules[0].match.path.regex",
        "escape sequence",
    ),
    ([{"to": "a", "match": {"path": {"prefix": "-large"}}}], "spec.rules[0].match.path", "begins with '/'"),
    ([{"to": "a", "match": {"path": "infer"}}], "spec.rules[0].match.path", "begins with '/'"),
    ([{"to": to(("a", 50), ("b", 40))}], "spec.rules[0]", "the weights sum to 90 percent; expected 100"),
    (
        [{"to": [{"deployment": "a"}, {"deployment": "b"}]}],
        "spec.rules[0]",
        "expected a weight for every variant",
    ),
    ([{"to": to(("a", 50), ("a", 50))}], "spec.rules[0]", "a is named twice"),
    ([{"to": to(("a", 33.333), ("b", 66.67))}], "spec.rules[0].to[0].weight", "hundredths of a percent"),
    ([{"to": "a"}, {"to": "b"}], "spec", "rules[0]: it matches everything"),
    ([{"to": "a", "match": {}}], "spec.rules[0].match", "leave match out to match everything"),
    (
        [{"to": "a", "match": {"headers": {"Host": "x"}}}],
        "spec.rules[0].match.headers",
        "lower-case header name",
    ),
    ([{"to": "a", "match": {"headers": {"host": "x"}}}], "spec.rules[0].match.headers", "HTTP's own"),
    (
        [{"to": "a", "match": {"headers": {"x-podium-caller": "x"}}}],
        "spec.rules[0].match.headers",
        "x-podium-caller: only the gateway says it",
    ),
    (
        [{"to": "a", "sticky": {"header": "x_podium_claims"}}],
        "spec.rules[0].sticky.header",
        "only the gateway",
    ),
    (
        [{"to": "a", "match": {"headers": {"x_user": "x"}}}],
        "spec.rules[0].match.headers",
        "'x_user': the gateway lets no header with '_' in its name pass; use '-'",
    ),
    (
        [{"to": "a", "sticky": {"header": "x-user_id"}}],
        "spec.rules[0].sticky.header",
        "'x-user_id': the gateway lets no header with '_'",
    ),
    ([{"to": "a", "match": {"query": {"a&b": "x"}}}], "spec.rules[0].match.query", "but '&', '=' and '#'"),
    (
        [{"to": "a", "match": {"path": "/a%41"}}],
        "spec.rules[0].match.path",
        "exact: the gateway makes /aA of it before any rule looks: say that",
    ),
    (
        [{"to": "a", "match": {"path": {"contains": "a?b"}}}],
        "spec.rules[0].match.path",
        "contains: no path has '?'",
    ),
    (
        [{"to": "a", "match": {"path": {"prefix": "/versions/1"}}}],
        "spec.rules[0].match.path",
        "prefix: a version is asked for by the Deployment's own path",
    ),
    (
        [{"to": "a", "match": {"claims": {"exp": "x"}}}],
        "spec.rules[0].match.claims",
        "exp: expected sub, role, jti or a claim of `podium token create --claim`",
    ),
    (
        [{"to": "a", "match": {"claims": {"Tier": "x"}}}],
        "spec.rules[0].match.claims",
        "'Tier': expected a claim's name of 1 to 32 lower-case letters",
    ),
    (
        [{"to": "a", "match": {"claims": {"sub": {"present": False}}}}],
        "spec.rules[0].match.claims",
        "sub: every token has it",
    ),
    ([{"to": "a", "sticky": {"claim": "jti"}}], "spec.rules[0].sticky.claim", "jti tells no users apart"),
    (
        [{"to": "a", "sticky": {"claim": "ws"}}],
        "spec.rules[0].sticky.claim",
        "ws: expected sub, role, jti or",
    ),
    (
        [{"to": "a", "match": {"path": {"regex": "(?=a)"}}}],
        "spec.rules[0].match.path.regex",
        "RE2 knows: invalid perl operator",
    ),
    (
        [{"to": "a", "match": {"path": {"regex": "("}}}],
        "spec.rules[0].match.path.regex",
        "not a regular expression",
    ),
    (
        [{"to": "a", "match": {"path": {"exact": "/a", "prefix": "/b"}}}],
        "spec.rules[0].match.path",
        "exactly one of",
    ),
    (
        [{"to": "a", "sticky": {"header": "x", "cookie": "y"}}],
        "spec.rules[0].sticky",
        "exactly one of header",
    ),
    ([{"to": "a", "shadow": [{"deployment": "a"}]}], "spec.rules[0]", "a answers here already"),
    ([{"to": "a", "cascade": {"deployment": "a"}}], "spec.rules[0]", "a answers here already"),
    ([], "spec.rules", "at least 1"),
]


@pytest.mark.parametrize(("rules", "path", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_it_is_refused_in_words(rules: list[Any], path: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        applied(*rules)
    (issue,) = refused.value.issues
    assert (issue.field, words in issue.message) == (path, True), issue


def test_variants_that_cannot_grow_without_moving_users_are_refused() -> None:
    sticky = {"sticky": {"header": "x-user"}}
    applied({"to": to(("a", 10), ("b", 60), ("c", 30)), **sticky})
    with pytest.raises(InvalidInput, match="b and c share 50 percent of the users"):
        applied({"to": to(("a", 10), ("b", 60), ("c", 20), ("d", 10)), **sticky})
    applied({"to": to(("b", 60), ("a", 10), ("c", 20), ("d", 10)), **sticky})
    applied({"to": to(("a", 10), ("b", 60), ("c", 20), ("d", 10))})


def test_all_deployments_that_it_names() -> None:
    made = applied(
        {"match": {"path": "/x"}, "to": "a", "fallback": {"deployments": ["b"]}},
        {"to": "c", "shadow": [{"deployment": "d"}], "cascade": {"deployment": "e"}},
    )
    assert made.spec.deployments == ("a", "b", "c", "d", "e")


def test_a_request_is_tested_as_the_gateway_lets_it_pass() -> None:
    for name in ("x_user", "X-User_Id"):
        with pytest.raises(ValueError, match=f"{name}: the gateway lets no header with '_' in its name pass"):
            RouteTestRequest(headers={name: "x"})
