"""Routes as they are planned and rendered, in one real Envoy before tiny replicas: weights and buckets included."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from podium.gateway.render import access
from podium.gateway.render.clusters import cluster
from podium.gateway.render.limits import buckets
from podium.gateway.render.rules import published_routes, published_weights
from podium.gateway.render.weights import weights_document
from podium.gateway.settings import WEIGHTS
from podium.planning.routes import RoutePlan, plan_published
from podium.planning.routing import Arm, RouteEntry
from podium.resources.kinds import KINDS
from tests.integration.gateway.documents import route
from tests.integration.gateway.one_envoy import OneEnvoy
from tests.integration.gateway.upstreams import Upstream


def entry_of(name: str, *arms: tuple[Upstream, int], **more: Any) -> RouteEntry:
    """A Deployment whose revisions, each of one replica, share its traffic in percent."""
    live = tuple(
        Arm("default", f"{name}-{number:05d}", str(number), "live", share * 100, (replica.address,), name)
        for number, (replica, share) in enumerate(arms, 1)
    )
    return RouteEntry(
        "default", name, f"uid-{name}", live, None, None, None, timeout=10.0, idempotent=True, max_body=2**24,
        unavailable="" if live else "asleep", **more,
    )  # fmt: skip


def planned(name: str, *rules: dict[str, Any], entries: Mapping[str, RouteEntry], **spec: Any) -> RoutePlan:
    """The plan of the Route `name`."""
    return plan_published(KINDS["Route"].parse(route(name, *rules, **spec)), entries)


class PublishedEnvoy(OneEnvoy):
    """`serve` plans; `post` asks by a Route."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._weights: dict[str, int] = {}

    def write(
        self,
        routes: Iterable[Mapping[str, Any]],
        clusters: Iterable[bytes],
        rules: access.AccessRules | None = None,
        held: Iterable[Mapping[bytes, int]] = (),
        adapting: Mapping[str, bytes] | None = None,
    ) -> None:
        super().write(routes, clusters, rules, held, adapting)
        self._files.write(WEIGHTS, weights_document(self._weights))

    def serve(self, plans: Iterable[RoutePlan], rules: access.AccessRules | None = None) -> "PublishedEnvoy":
        """All of these in force."""
        plans = list(plans)
        self._weights = {key: weight for plan in plans for key, weight in published_weights(plan).items()}
        arms: dict[str, Arm] = {}
        for plan in plans:
            arms |= {arm.cluster: arm for rule in plan.rules for arm, _ in rule.slots}
            arms |= {arm.cluster: arm for arm in plan.own_arms}
        held = [buckets(plan.limits) for plan in plans]
        rendered = [json.loads(one) for plan in plans for one in published_routes(plan).published]
        self.start(rendered, [cluster(arm) for arm in arms.values()], rules, held)
        return self


@contextmanager
def published_envoy() -> Iterator[PublishedEnvoy]:
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="pen"))
    made = PublishedEnvoy(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)
