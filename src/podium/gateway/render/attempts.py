"""Which attempts a request gets, and where each one goes. Called by `rules` and `routes`; read by `read_back`.

A rule with more than one *stage* (a cascade, a fallback) asks another Deployment at each attempt, by Envoy's
`priority_group` cluster specifier: attempt n takes group n. The stages need no cluster of their own, and every request
counts in the cluster that it went to; an aggregate cluster would count for all of them, and canaries and the
autoscaler would see nothing. An attempt that another one follows counts as `retry.upstream_rq_*` of its cluster.
Within a stage the arms are drawn at random by their weights, which neither a user's key nor the runtime layer changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from podium.gateway.render.document import seconds, typed
from podium.resources.traffic import Cascade, Fallback, Hedge, Retries, RetryReason

Share = tuple[str, int]
"""A cluster's name and its weight."""
ESCALATE_HEADER = "x-podium-escalate"
"""A replica's word that it is not sure; `cascade` says how it comes to say so."""
_PLUGIN = "envoy.router.cluster_specifier_plugin.priority_group"
_SPECIFIER = "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier"
_OVERLOADED = 429
_SELECTIONS = 50
"""How often a host that was tried already is drawn again before it is taken after all. Least-request draws two hosts
and takes the idler one, which is the dead one (it refuses at once): of two hosts it comes up three times out of four,
so that with Envoy's usual 3 or so draws a third of the retries would end on it."""
_AT_ONCE = (0.001, 0.001)
"""Pause before another Deployment is asked, in seconds: none, for it has not been asked yet. Envoy knows no less."""
_DEFAULT = Retries()
_REASONS: dict[RetryReason, str] = {
    "connectFailure": "connect-failure,refused-stream",
    "reset": "reset",
    "unavailable": "gateway-error",
    "serverError": "5xx",
}
_UNSENT = "reset-before-request"
"""The request had not been written: another replica cannot do the work twice."""


def attempts(
    stages: Sequence[Sequence[Share]],
    *,
    idempotent: bool,
    retries: Retries | None = None,
    hedge: Hedge | None = None,
    cascade: Cascade | None = None,
    fallback: Fallback | None = None,
) -> dict[str, Any]:
    """What a route's action needs beside its target: `retry_policy`, `hedge_policy`, and with several stages the target
    itself (then the action has no `cluster` and no `weighted_clusters`). Empty: the virtual host's policy is right.

    `stages`: first the rule's own arms; with `cascade` next the larger model's; then those of the fallback Deployments.
    Stages without arms must have been left out (with `cascade` None if it is the larger model's): Envoy answers 503 at
    a stage without replicas instead of going on. With one stage, `cascade` and `fallback` change nothing here.

    `retries` with a fallback repeats at the first Deployment before the next one is asked; in a cascade it repeats at
    the last stage, because what the small model said once it says again.
    """
    if len(stages) == 1:
        return _one_stage(idempotent, retries, hedge)
    repeats = _repeats(retries, cascade, fallback)
    groups = list(stages)
    groups[:0] = [stages[0]] * repeats[0]
    groups += [stages[-1]] * repeats[1]
    reasons = _over_stages(retries, cascade, fallback)
    policy = retry_policy(reasons, len(groups) - 1, *_AT_ONCE, per_try=_per_try(retries, fallback))
    policy["refresh_cluster_on_retry"] = True
    if fallback is not None and fallback.deployments:
        policy["retriable_status_codes"] = [_OVERLOADED]
    if cascade is not None:
        policy["retriable_headers"] = [{"name": ESCALATE_HEADER, "present_match": True}]
    return {**staged(groups), "retry_policy": policy}


def staged(groups: Sequence[Sequence[Share]]) -> dict[str, Any]:
    """A route action's target: one group of clusters for each attempt. A cluster without weight is left out."""
    made = [
        {
            "name": str(number),
            "clusters": [{"cluster_name": name, "weight": weight} for name, weight in group if weight > 0],
        }
        for number, group in enumerate(groups)
    ]
    specifier = typed(_SPECIFIER, priority_groups=made)
    return {"inline_cluster_specifier_plugin": {"extension": {"name": _PLUGIN, "typed_config": specifier}}}


def clusters_of(action: Mapping[str, Any]) -> set[str]:
    """The inverse of `staged`: names of the clusters in it; none for an action with another target."""
    plugin = action.get("inline_cluster_specifier_plugin", {}).get("extension", {}).get("typed_config", {})
    groups = plugin.get("priority_groups", ())
    return {cluster["cluster_name"] for group in groups for cluster in group["clusters"]}


def retry_policy(
    reasons: str, number: int, base: float, most: float, *, per_try: float | None = None
) -> dict[str, Any]:
    """Envoy's policy: `number` more attempts, each at a replica that was not tried yet. Times in seconds."""
    policy: dict[str, Any] = {
        "retry_on": reasons,
        "num_retries": number,
        "host_selection_retry_max_attempts": _SELECTIONS,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": typed("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
            }
        ],
        "retry_back_off": {"base_interval": seconds(base), "max_interval": seconds(most)},
    }
    if per_try is not None:
        policy["per_try_timeout"] = seconds(per_try)
    return policy


def _one_stage(idempotent: bool, retries: Retries | None, hedge: Hedge | None) -> dict[str, Any]:
    if idempotent and retries is None and hedge is None:
        return {}
    wish = retries or _DEFAULT
    if hedge is not None and idempotent:
        # Envoy repeats at a soft timeout whatever the reasons are; the number is shared with all other repeats.
        policy = retry_policy(
            _reasons(wish.on), wish.attempts + hedge.attempts, wish.backoff_base, wish.backoff_max, per_try=hedge.after
        )  # fmt: skip
        return {"retry_policy": policy, "hedge_policy": {"hedge_on_per_try_timeout": True}}
    reasons = _reasons(wish.on) if idempotent else f"{_REASONS['connectFailure']},{_UNSENT}"
    policy = retry_policy(
        reasons, wish.attempts, wish.backoff_base, wish.backoff_max, per_try=wish.per_try_timeout
    )
    return {"retry_policy": policy}


def _reasons(on: Sequence[RetryReason]) -> str:
    return ",".join(_REASONS[reason] for reason in _REASONS if reason in on)


def _repeats(retries: Retries | None, cascade: Cascade | None, fallback: Fallback | None) -> tuple[int, int]:
    """How many more attempts the first and the last stage get."""
    if cascade is None:
        return (retries.attempts if retries is not None else 0, 0)
    if fallback is None or not fallback.deployments:
        return (0, (retries or _DEFAULT).attempts)
    return (0, 0)


def _over_stages(retries: Retries | None, cascade: Cascade | None, fallback: Fallback | None) -> str:
    """When the next stage is asked. Nothing is done twice by a Deployment that asks for that not to happen: the next
    one is another, and the person who wrote it down wants its answer."""
    on = [_reasons((retries or _DEFAULT).on)]
    if fallback is not None and fallback.deployments:
        on = [_REASONS["connectFailure"], _REASONS["reset"], "retriable-status-codes"]
        on.append(_REASONS["serverError" if fallback.on_server_error else "unavailable"])
    if cascade is not None:
        on.append("retriable-headers")
    return ",".join(on)


def _per_try(retries: Retries | None, fallback: Fallback | None) -> float | None:
    if fallback is not None and fallback.attempt_timeout is not None:
        return fallback.attempt_timeout
    return retries.per_try_timeout if retries is not None else None
