"""All that a rule of a Route declares beyond who answers, put on a rendered route. Called by `rules`.

Calls `adaptive`, `attempts`, `cascade`, `fallback`, `limits` and `mirror`, one for each of these.
"""

from collections.abc import Sequence
from typing import Any

from podium.gateway.render.adaptive import adapting
from podium.gateway.render.attempts import Share, attempts
from podium.gateway.render.cascade import asking
from podium.gateway.render.fallback import answer, telling
from podium.gateway.render.limits import limited
from podium.gateway.render.mirror import mirroring, recorded
from podium.planning.routes import RoutePlan, RulePlan
from podium.planning.routing import Arm


def stages_of(rule: RulePlan) -> list[list[Share]]:
    """Who is asked in turn, leaving out who has no replica: the rule's own arms, a cascade's, those of each fallback.
    Empty: nobody answers, and the route has to say so by itself."""
    own = [[(arm.cluster, width) for arm, width in rule.slots]]
    larger = [_shares(rule.cascade.arms)] if rule.cascade is not None else []
    nexts = [_shares(arms) for arms in rule.fallback.stages] if rule.fallback is not None else []
    return [stage for stage in (*own, *larger, *nexts) if stage]


def standing_in(rule: RulePlan) -> dict[str, Any] | None:
    """The target of a rule whose own Deployments nobody serves: the cascade's larger model, or the first fallback. None
    where nobody stands in, and the route answers 503 by itself."""
    stages = stages_of(rule)
    if not stages:
        return None
    if len(stages[0]) == 1:
        return {"cluster": stages[0][0][0]}
    return {
        "weighted_clusters": {"clusters": [{"name": name, "weight": weight} for name, weight in stages[0]]}
    }


def with_traffic(route: dict[str, Any], plan: RoutePlan, rule: RulePlan) -> dict[str, Any]:
    """The route with everything that the plan says about repeats, other Deployments, copies, limits and the declared
    answer. A route without an action (a `direct_response`) gets what applies to it: limits and the declared answer."""
    fallback = rule.fallback.settings if rule.fallback is not None else None
    counted = limited(plan.limits, plan.workspace, plan.route)
    filters = {
        **counted.pop("typed_per_filter_config", {}),
        **adapting(plan.limits, plan.workspace, plan.route),
        **answer(fallback),
    }
    made = {**route, **counted}
    if filters:
        made["typed_per_filter_config"] = {**made.get("typed_per_filter_config", {}), **filters}
    if "route" not in made:
        return made
    stages = stages_of(rule)
    cascading = rule.cascade if rule.slots else None
    # A request that wakes a replica takes as long as its start: giving it up or asking twice would only lose it.
    waiting = {"per_try_timeout": None} if rule.waking else {}
    repeats = attempts(
        stages,
        idempotent=rule.idempotent,
        retries=plan.retries.model_copy(update=waiting) if plan.retries is not None else None,
        hedge=None if rule.waking else plan.hedge,
        cascade=cascading.settings if cascading is not None else None,
        fallback=fallback if rule.fallback is not None and rule.fallback.stages else None,
    )
    made["route"] = _merged(made["route"], repeats, mirroring(rule.shadows))
    if recording := recorded(rule.shadows):
        _add(made, "request_headers_to_add", recording)
    if cascading is not None:
        names = sorted({_deployment(arm) for arm, _ in rule.slots})
        _add(made, "request_headers_to_add", asking(cascading.settings, names))
    if rule.fallback is not None and rule.fallback.stages:
        # Attempts before the fallback's: each stage of the rule's own has one, the first one repeats where it is alone.
        before = len(stages) - len(rule.fallback.stages)
        if before == 1 and plan.retries is not None:
            before += plan.retries.attempts
        _add(made, "response_headers_to_add", telling(before))
    return made


def _merged(action: dict[str, Any], repeats: dict[str, Any], copies: dict[str, Any]) -> dict[str, Any]:
    targets = ("cluster", "weighted_clusters", "hash_policy")
    staged = "inline_cluster_specifier_plugin" in repeats
    kept = {key: value for key, value in action.items() if not (staged and key in targets)}
    return {**kept, **repeats, **copies}


def _add(route: dict[str, Any], key: str, headers: list[dict[str, Any]]) -> None:
    route[key] = [*route.get(key, ()), *headers]


def _shares(arms: Sequence[Arm]) -> list[Share]:
    return [(arm.cluster, arm.weight) for arm in arms]


def _deployment(arm: Arm) -> str:
    """Revisions are named after their Deployment."""
    return arm.revision.rpartition("-")[0]
