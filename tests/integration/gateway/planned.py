"""One rule of a Route as it is planned, with what a test wants of it, rendered as one route of Envoy's."""

from typing import Any

from podium.gateway.render.traffic import standing_in, with_traffic
from podium.planning.routes import CascadePlan, FallbackPlan, RoutePlan, RulePlan
from podium.planning.routing import WHOLE
from podium.resources.traffic import Cascade, Fallback, Hedge, Limits, Retries
from tests.integration.gateway.one_envoy import a_route, arm_of


def rule_route(
    path: str,
    *own: str,
    timeout: float = 30.0,
    idempotent: bool = True,
    cascade: dict[str, Any] | None = None,
    fallback: dict[str, Any] | None = None,
    shadows: dict[str, int] | None = None,
    absent: tuple[str, ...] = (),
    **spec: Any,
) -> dict[str, Any]:
    """A route at `path` to the Deployments `own`, in equal shares. `shadows`: name -> basis points; `absent`: those
    that nobody serves; `spec`: retries, hedge and limits of the Route."""
    slots = [name for name in own if name not in absent]
    rule = RulePlan(
        name="0", match=None, sticky=None,
        slots=tuple((arm_of(name), WHOLE // len(slots)) for name in slots),
        shadows=tuple((arm_of(name, role="shadow"), share) for name, share in (shadows or {}).items()),
        cascade=_cascade(cascade, absent), fallback=_fallback(fallback, absent),
        timeout=timeout, waking=0.0, idempotent=idempotent, max_body=16 * 2**20, unavailable="", absent=(),
    )  # fmt: skip
    kinds = {"retries": Retries, "hedge": Hedge, "limits": Limits}
    settings = {
        name: kind.model_validate(spec[name]) if name in spec else None for name, kind in kinds.items()
    }
    plan = RoutePlan(workspace="default", route=path.strip("/"), uid="u", rules=(rule,), **settings)
    if len(slots) > 1:
        shares = [{"name": arm.cluster, "weight": width} for arm, width in rule.slots]
        target: dict[str, Any] | None = {"weighted_clusters": {"clusters": shares}}
    else:
        target = {"cluster": rule.slots[0][0].cluster} if slots else standing_in(rule)
    if target is None:
        said = {"status": 503, "body": {"inline_string": "nobody"}}
        return with_traffic({"match": {"prefix": path}, "direct_response": said}, plan, rule)
    return with_traffic(a_route(path, target, timeout=timeout), plan, rule)


def _cascade(wish: dict[str, Any] | None, absent: tuple[str, ...]) -> CascadePlan | None:
    if wish is None or wish["deployment"] in absent:
        return None
    return CascadePlan(Cascade.model_validate(wish), (arm_of(wish["deployment"], role="next", weight=WHOLE),))


def _fallback(wish: dict[str, Any] | None, absent: tuple[str, ...]) -> FallbackPlan | None:
    if wish is None:
        return None
    settings = Fallback.model_validate(wish)
    served = [name for name in settings.deployments if name not in absent]
    return FallbackPlan(settings, tuple((arm_of(name, role="next", weight=WHOLE),) for name in served))
