"""What a rule declares beyond who answers, as parts of Envoy's route: pure, and nothing where nothing is declared."""

from typing import Any

import pytest

from podium.gateway.render.attempts import clusters_of
from podium.gateway.render.document import fragment
from podium.gateway.render.limits import limited
from podium.gateway.render.protection import breakers, outliers
from podium.gateway.render.traffic import stages_of, standing_in, with_traffic
from podium.planning.routes import CascadePlan, FallbackPlan, RoutePlan, RulePlan
from podium.planning.routing import WHOLE, Arm
from podium.resources.traffic import (
    Cascade,
    CircuitBreaker,
    Fallback,
    Hedge,
    Limits,
    OutlierEjection,
    Retries,
)


def arm(name: str, weight: int = WHOLE, role: Any = "live") -> Arm:
    return Arm("default", f"{name}-00001", "1", role, weight, ("unix:/tmp/a.sock",))


TO_BIG = CascadePlan(Cascade.model_validate({"deployment": "big"}), (arm("big", role="next"),))


def to_next(*names: str, **wish: Any) -> FallbackPlan:
    settings = Fallback.model_validate({"deployments": list(names), **wish})
    return FallbackPlan(settings, tuple((arm(name, role="next"),) for name in names))


def rule(*slots: tuple[Arm, int], **changes: Any) -> RulePlan:
    given: dict[str, Any] = {
        "name": "0", "match": None, "sticky": None, "slots": slots, "shadows": (), "cascade": None, "fallback": None,
        "timeout": 30.0, "waking": 0.0, "idempotent": True, "max_body": 16 * 2**20, "unavailable": "", "absent": (),
    }  # fmt: skip
    return RulePlan(**(given | changes))


def plan_of(made: RulePlan, **settings: Any) -> RoutePlan:
    given = {"retries": None, "hedge": None, "limits": None} | settings
    return RoutePlan("default", "public", "uid", (made,), **given)


def action_of(made: RulePlan, **settings: Any) -> dict[str, Any]:
    target = {"weighted_clusters": {"clusters": []}, "hash_policy": [], "timeout": "30.000s"}
    rendered = with_traffic({"match": {}, "route": target}, plan_of(made, **settings), made)
    action: dict[str, Any] = rendered["route"]
    return action


def groups_of(action: dict[str, Any]) -> list[list[tuple[str, int]]]:
    config = action["inline_cluster_specifier_plugin"]["extension"]["typed_config"]
    return [
        [(one["cluster_name"].split("_")[1][:-6], one["weight"]) for one in group["clusters"]]
        for group in config["priority_groups"]
    ]


SMALL = (arm("small"), WHOLE)


def test_nothing_declared_changes_nothing() -> None:
    made = rule(SMALL)
    route = {"match": {}, "route": {"cluster": "x"}}
    assert with_traffic(route, plan_of(made), made) == route
    assert with_traffic(route, plan_of(made, limits=Limits()), made) == route


@pytest.mark.parametrize(
    ("made", "retries", "groups", "reasons"),
    [
        (rule(SMALL, cascade=TO_BIG), None, ["small", "big", "big", "big"],
         "connect-failure,refused-stream,reset,retriable-headers"),
        (rule(SMALL, cascade=TO_BIG), {"attempts": 0}, ["small", "big"],
         "connect-failure,refused-stream,reset,retriable-headers"),
        (rule(SMALL, fallback=to_next("b")), None, ["small", "b"],
         "connect-failure,refused-stream,reset,retriable-status-codes,5xx"),
        (rule(SMALL, fallback=to_next("b", onServerError=False)), None, ["small", "b"],
         "connect-failure,refused-stream,reset,retriable-status-codes,gateway-error"),
        (rule(SMALL, fallback=to_next("b", "c")), {"attempts": 1}, ["small", "small", "b", "c"],
         "connect-failure,refused-stream,reset,retriable-status-codes,5xx"),
        (rule(SMALL, cascade=TO_BIG, fallback=to_next("b")), {"attempts": 2}, ["small", "big", "b"],
         "connect-failure,refused-stream,reset,retriable-status-codes,5xx,retriable-headers"),
        (rule(cascade=TO_BIG, fallback=to_next("b")), None, ["big", "b"],
         "connect-failure,refused-stream,reset,retriable-status-codes,5xx"),
    ],
)  # fmt: skip
def test_who_is_asked_in_turn(
    made: RulePlan, retries: dict[str, Any] | None, groups: list[str], reasons: str
) -> None:
    wish = None if retries is None else Retries.model_validate(retries)
    action = action_of(made, retries=wish)
    assert groups_of(action) == [[(name, WHOLE)] for name in groups]
    assert not {"cluster", "weighted_clusters", "hash_policy"} & set(action)
    policy = action["retry_policy"]
    assert (policy["num_retries"], policy["retry_on"]) == (len(groups) - 1, reasons)
    assert policy["refresh_cluster_on_retry"] is True
    own = {arm.cluster for arm, _ in made.slots}
    assert clusters_of(action) == own | {arm.cluster for stage in made.nexts for arm in stage}
    assert all(name.endswith("_next") for name in clusters_of(action) - own)


def test_arms_without_a_share_are_in_no_stage() -> None:
    made = rule((arm("small"), 9000), (arm("other"), 1000), (arm("none"), 0), cascade=TO_BIG)
    assert groups_of(action_of(made))[0] == [("small", 9000), ("other", 1000)]


def test_the_larger_model_is_told_whom_the_question_is_for() -> None:
    made = rule((arm("small"), 5000), (arm("also-small"), 5000), cascade=TO_BIG)
    kept = {"header": {"key": "x-podium-route", "value": "public"}}
    route = {"match": {}, "route": {"cluster": "x"}, "request_headers_to_add": [kept]}
    headers = with_traffic(route, plan_of(made), made)["request_headers_to_add"]
    assert headers[0] == kept
    assert headers[1]["header"] == {
        "key": "x-podium-cascade", "value": "by=also-small,small;threshold=0.8;output=predict_proba",
    }  # fmt: skip
    assert route["request_headers_to_add"] == [kept], "the given route is as it was"
    alone = rule(cascade=TO_BIG)
    assert "request_headers_to_add" not in with_traffic({"match": {}, "route": {}}, plan_of(alone), alone)


def test_who_stands_in_for_whom() -> None:
    assert standing_in(rule()) is None
    assert (
        standing_in(rule(fallback=FallbackPlan(Fallback.model_validate({"answer": {"body": 1}}), ()))) is None
    )
    assert standing_in(rule(cascade=TO_BIG)) == {"cluster": "default_big-00001_next"}
    assert standing_in(rule(fallback=to_next("b", "c"))) == {"cluster": "default_b-00001_next"}
    two = CascadePlan(TO_BIG.settings, (arm("big", 7000), arm("big2", 3000)))
    shares = standing_in(rule(cascade=two))["weighted_clusters"]["clusters"]  # type: ignore[index]
    assert [one["weight"] for one in shares] == [7000, 3000]
    assert stages_of(rule(fallback=FallbackPlan(to_next("b").settings, ((),)))) == []


@pytest.mark.parametrize(
    ("made", "settings", "after"),
    [
        (rule(SMALL, fallback=to_next("b")), {}, 1),
        (rule(SMALL, fallback=to_next("b")), {"retries": Retries(attempts=3)}, 4),
        (rule(SMALL, cascade=TO_BIG, fallback=to_next("b")), {"retries": Retries(attempts=3)}, 2),
        (rule(cascade=TO_BIG, fallback=to_next("b")), {}, 1),
        (rule(fallback=to_next("b", "c")), {}, 0),
    ],
)
def test_which_answers_are_marked_as_a_fallbacks(
    made: RulePlan, settings: dict[str, Any], after: int
) -> None:
    route = with_traffic({"match": {}, "route": {}}, plan_of(made, **settings), made)
    (told,) = route["response_headers_to_add"]
    assert told["header"]["value"] == f"%CEL(upstream.request_attempt_count > {after} ? 'deployment' : '')%"


@pytest.mark.parametrize(
    ("idempotent", "settings", "expected"),
    [
        (True, {}, None),
        (False, {}, ("connect-failure,refused-stream,reset-before-request", 2, None)),
        (True, {"retries": {"attempts": 1, "on": ["serverError"]}}, ("5xx", 1, None)),
        (False, {"retries": {"attempts": 1, "on": ["serverError"]}},
         ("connect-failure,refused-stream,reset-before-request", 1, None)),
        (True, {"hedge": {"after": "20ms"}}, ("connect-failure,refused-stream,reset", 3, "0.020s")),
        (False, {"hedge": {"after": "20ms"}}, ("connect-failure,refused-stream,reset-before-request", 2, None)),
    ],
)  # fmt: skip
def test_repeats_at_one_deployment(
    idempotent: bool, settings: dict[str, Any], expected: tuple[str, int, str | None] | None
) -> None:
    kinds = {"retries": Retries, "hedge": Hedge}
    wish = {name: kinds[name].model_validate(given) for name, given in settings.items()}
    action = action_of(rule(SMALL, idempotent=idempotent), **wish)
    policy = action.get("retry_policy")
    if expected is None:
        assert policy is None
        return
    assert policy is not None
    assert (policy["retry_on"], policy["num_retries"], policy.get("per_try_timeout")) == expected
    assert ("hedge_policy" in action) is (idempotent and "hedge" in wish)


def test_what_envoy_answers_itself_has_limits_and_the_declared_answer_too() -> None:
    declared = Fallback.model_validate({"answer": {"body": {"a": 1}}})
    made = rule(fallback=FallbackPlan(declared, ()))
    wish = Limits.model_validate({"route": {"requests": 5}, "adaptive": {}})
    route = with_traffic({"match": {}, "direct_response": {"status": 503}}, plan_of(made, limits=wish), made)
    assert set(route["typed_per_filter_config"]) == {
        *limited(wish, "default", "public")["typed_per_filter_config"], "envoy.filters.http.custom_response",
        "podium.adaptive", "podium.adaptive.note",
    }  # fmt: skip


def test_other_settings_of_the_route_stay() -> None:
    made = rule(SMALL)
    given = {"match": {}, "route": {}, "typed_per_filter_config": {"envoy.filters.http.buffer": {"a": 1}}}
    wish = Limits.model_validate({"route": {"requests": 5}})
    filters = with_traffic(given, plan_of(made, limits=wish), made)["typed_per_filter_config"]
    assert filters["envoy.filters.http.buffer"] == {"a": 1}
    assert len(filters) == 2


def test_copies_have_their_own_share_each() -> None:
    made = rule(SMALL, shadows=((arm("b", 0, "shadow"), 2500), (arm("c", 0, "shadow"), 10_000)))
    policies = action_of(made)["request_mirror_policies"]
    assert [one["cluster"] for one in policies] == ["default_b-00001_shadow", "default_c-00001_shadow"]
    assert [one["runtime_fraction"]["default_value"]["numerator"] for one in policies] == [2500, 10_000]


def test_breakers_are_out_of_the_way_until_they_are_wished_for() -> None:
    (thresholds,) = breakers(None)["thresholds"]
    assert thresholds == {
        "max_connections": 4000, "max_pending_requests": 1_000_000, "max_requests": 1_000_000, "max_retries": 1000,
    }  # fmt: skip
    wish = CircuitBreaker.model_validate({"maxRequests": 50, "retryBudgetPercent": 20})
    (thresholds,) = breakers(wish, most=10)["thresholds"]
    assert thresholds["max_requests"] == 10
    assert thresholds["retry_budget"] == {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 50}
    assert "max_retries" not in thresholds
    assert outliers(None) == {}
    assert outliers(OutlierEjection())["outlier_detection"]["consecutive_gateway_failure"] == 5


@pytest.mark.parametrize(
    ("made", "settings", "most"),
    [
        (rule(SMALL, cascade=TO_BIG), {}, 1300),
        (rule(SMALL, fallback=to_next("b")), {}, 1100),
        (rule(SMALL), {"limits": Limits.model_validate({"perCaller": {"requests": 3}})}, 600),
        (rule(SMALL, shadows=((arm("b", 0, "shadow"), 2500),)), {}, 500),
        (rule(SMALL), {"retries": Retries(attempts=1)}, 450),
    ],
)
def test_a_route_stays_small(made: RulePlan, settings: dict[str, Any], most: int) -> None:
    """Envoy parses the whole table at each change: ten thousand routes have to stay some megabytes."""
    bare = {"match": {"path_separated_prefix": "/v2/models/public"}, "route": {"cluster": "x"}}
    more = len(fragment(with_traffic(bare, plan_of(made, **settings), made))) - len(fragment(bare))
    assert 0 < more < most
