"""What the server says exists, as far as a gateway needs it, and what follows for routes and samples. Pure.

Called by `agent`, which feeds it with lists and changes. Calls `planning.routing` and `planning.routes` for the
decisions themselves.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from podium.gateway.feed import Change
from podium.planning.routes import RoutePlan, plan_published
from podium.planning.routing import (
    WHOLE,
    Arm,
    Role,
    RouteEntry,
    arm_of,
    baseline_share,
    compared_share,
    plan_route,
)
from podium.resources.deployment import LatencyMargin
from podium.resources.kinds import AnyResource, Deployment, Revision, Rollout, Route
from podium.resources.rollout import COPIES, FINAL_PHASES, has_baseline
from podium.resources.route import RouteSpec

Key = tuple[str, str]
"""(workspace, deployment), or (workspace, route:NAME) of a Route."""
WATCHED_KINDS = ("Deployment", "Revision", "Rollout", "Route", "Workspace")
_ROUTE = "route:"
"""No Deployment has ':' in its name."""


def route_key(workspace: str, name: str) -> Key:
    """The key of a Route."""
    return workspace, _ROUTE + name


def route_name(key: Key) -> str | None:
    """The Route's name; None where the key is a Deployment's."""
    return key[1].removeprefix(_ROUTE) if key[1].startswith(_ROUTE) else None


Measured = tuple[int, str]
"""The candidate's loaded weight in basis points (of copies: what their share counts as), and what follows the epoch:
samples with another text after it are no continuation."""


@dataclass(frozen=True)
class Wish:
    """What is wanted for one Deployment or Route. `split`: stable, baseline if there is one, and candidate of a
    rollout, in that order, with their present weights. All have clusters and routes as long as the rollout lasts, also
    at weight 0: then a shift is a change of weights only, and counters live as long as the rollout."""

    entry: RouteEntry | RoutePlan
    split: tuple[Arm, ...] = ()

    @property
    def live(self) -> tuple[Arm, ...]:
        """The arms that share the live traffic of a Deployment, with their weights."""
        return self.entry.live if isinstance(self.entry, RouteEntry) else ()

    def measured(self, rollout: "WatchedRollout") -> Measured | None:
        """What samples of this rollout's clusters are samples of; None where they tell nothing: the copies or the
        baseline are not there."""
        shares = {arm.cluster: arm.weight for arm in self.live}
        weight = shares.get(rollout.candidate, 0)
        if rollout.copies:
            shadow = self.entry.shadow if isinstance(self.entry, RouteEntry) else None
            return None if shadow is None else (compared_share(shadow[1]), COPIES)
        if not rollout.baseline or weight in (0, WHOLE):
            return weight, ""
        baseline = next((arm for arm in self.live if arm.cluster == rollout.stable), None)
        if baseline is None or baseline.weight != baseline_share(weight):
            return None
        # While it was away the candidate had requests without it: with other replicas the counts begin anew.
        return weight, f"/{zlib.crc32(repr(baseline.endpoints).encode()):08x}"


@dataclass(frozen=True)
class WatchedRollout:
    """A rollout that is under way: whose clusters are to be sampled."""

    uid: str
    stable: str | None
    candidate: str
    latency_threshold: float | None
    """Seconds; None where latency is not judged."""
    copies: bool = False
    """`candidate` is the cluster of its copies."""
    baseline: bool = False
    """`stable` is the cluster of its baseline."""


class Fleet:
    """The last known state of all Deployments and Routes. `version` is the newest resourceVersion that is in it."""

    def __init__(self) -> None:
        self.version = 0
        self._deployments: dict[Key, Deployment] = {}
        self._revisions: dict[Key, dict[str, Revision]] = {}
        self._rollouts: dict[Key, dict[str, Rollout]] = {}
        self._routes: dict[Key, Route] = {}
        self._named: dict[Key, set[Key]] = {}
        """Of a Deployment: the Routes that name it."""
        self._taken: dict[Key, Route] = {}
        """Routes as Envoy last took them."""
        self._refused: dict[Key, tuple[RouteSpec, int, str]] = {}
        """(wish, version, Envoy's words) of Routes that Envoy did not take."""
        self._workspaces: set[str] = set()

    def reset(self, objects: Iterable[AnyResource], version: int) -> set[Key]:
        """Start over from a full list; all Deployments and Routes known before or now are touched."""
        before = self.keys
        self._deployments, self._revisions, self._rollouts, self._workspaces = {}, {}, {}, set()
        self._routes, self._named = {}, {}
        for found in objects:
            self._put(found)
        self.version = version
        return before | self.keys

    def apply(self, changes: Iterable[Change]) -> set[Key]:
        """Take changes in, in their order. Returns the Deployments and Routes that may be routed differently now. A
        change that is older than what is known (a replay after a reconnect) is ignored."""
        touched: set[Key] = set()
        for change in changes:
            if change.object is not None:
                touched |= (
                    self._remove(change.object, change.version)
                    if change.deleted
                    else self._put(change.object)
                )
            self.version = max(self.version, change.position)
        return touched.union(*(self._named.get(key, ()) for key in touched))

    @property
    def keys(self) -> set[Key]:
        """All Deployments and Routes."""
        return {*self._deployments, *self._routes}

    @property
    def workspaces(self) -> set[str]:
        """All workspaces."""
        return self._workspaces | {workspace for workspace, _ in self.keys}

    def wish(self, key: Key) -> Wish | None:
        """What is wanted for this Deployment or Route; None if there is none."""
        route = self._routes.get(key)
        if route is not None and self._is_refused(key, route):
            # What Envoy took before goes on, with the arms of today; without such a thing, nothing.
            route = self._taken.get(key)
            if route is None:
                return None
        if route is not None:
            named = ((route.metadata.workspace, name) for name in route.spec.deployments)
            wishes = {deployment[1]: self._own_wish(deployment) for deployment in named}
            return Wish(
                plan_published(route, {name: _arms_of(wish) for name, wish in wishes.items() if wish})
            )
        return self._own_wish(key)

    def settle_route(self, key: Key, error: str | None, version: int) -> bool:
        """Envoy took the wish for this Route, or refused it in these words. True where the wish is now another one."""
        route = self._routes.get(key)
        if route is None or self._is_refused(key, route):
            return False
        if error is None:
            self._taken[key] = route
            self._refused.pop(key, None)
            return False
        self._refused[key] = (route.spec, version, error)
        return True

    @property
    def refused_routes(self) -> dict[Key, tuple[int, str]]:
        """(version, Envoy's words) of the Routes that are not in force as they are wished."""
        return {
            key: (version, error)
            for key, (_, version, error) in self._refused.items()
            if key in self._routes and self._is_refused(key, self._routes[key])
        }

    def _is_refused(self, key: Key, route: Route) -> bool:
        found = self._refused.get(key)
        return found is not None and found[0] == route.spec

    def _own_wish(self, key: Key) -> Wish | None:
        """What is wanted for a Deployment by its own path."""
        deployment = self._deployments.get(key)
        if deployment is None:
            return None
        revisions = self._revisions.get(key, {})
        rollout = self._rollout(deployment)
        entry = plan_route(deployment, revisions, rollout)
        if rollout is None:
            return Wish(entry)
        live = {(arm.revision, arm.role): arm for arm in entry.live}
        stable = rollout.spec.stable_revision
        arms: list[tuple[str | None, Role]] = [(stable, "live"), (rollout.spec.candidate_revision, "live")]
        if has_baseline(rollout.spec):
            arms.insert(1, (stable, "baseline"))
        split = [
            live.get((name, role)) or arm_of(revisions[name], role, 0, deployment.spec.traffic)
            for name, role in arms
            if name is not None and name in revisions
        ]
        return Wish(entry, tuple(split))

    def watched_rollout(self, key: Key) -> WatchedRollout | None:
        """The Deployment's rollout, if it is under way."""
        deployment = self._deployments.get(key)
        rollout = self._rollout(deployment) if deployment else None
        if rollout is None or rollout.status.phase in FINAL_PHASES or rollout.metadata.uid is None:
            return None
        stable, latency = rollout.spec.stable_revision, rollout.spec.settings.analysis.latency
        copies, baseline = rollout.status.shadow, has_baseline(rollout.spec)
        return WatchedRollout(
            uid=rollout.metadata.uid,
            stable=None if stable is None else _cluster(key[0], stable, "baseline" if baseline else "live"),
            candidate=_cluster(key[0], rollout.spec.candidate_revision, "shadow" if copies else "live"),
            latency_threshold=latency.threshold if isinstance(latency, LatencyMargin) else None,
            copies=copies,
            baseline=baseline,
        )

    def watched_rollouts(self) -> dict[Key, WatchedRollout]:
        """All rollouts that are under way."""
        found = {key: self.watched_rollout(key) for key in self._rollouts}
        return {key: rollout for key, rollout in found.items() if rollout is not None}

    @property
    def routes(self) -> Iterable[Route]:
        """All Routes."""
        return self._routes.values()

    def _rollout(self, deployment: Deployment) -> Rollout | None:
        name = deployment.status.rollout
        if name is None:
            return None
        return self._rollouts.get((deployment.metadata.workspace, deployment.metadata.name), {}).get(name)

    def _put(self, found: AnyResource) -> set[Key]:
        known = self._find(found)
        if known is not None and (known.metadata.resource_version or 0) > (
            found.metadata.resource_version or 0
        ):
            return set()
        workspace, name = found.metadata.workspace, found.metadata.name
        if found.kind == "Workspace":
            self._workspaces.add(name)
            return set()
        if found.kind == "Deployment":
            self._deployments[workspace, name] = found
            return {(workspace, name)}
        if found.kind == "Route":
            key = route_key(workspace, name)
            self._unname(key)
            self._routes[key] = found
            for deployment in found.spec.deployments:
                self._named.setdefault((workspace, deployment), set()).add(key)
            return {key}
        key = (workspace, found.spec.deployment)
        table = self._revisions if found.kind == "Revision" else self._rollouts
        table.setdefault(key, {})[name] = found
        return {key}

    def _remove(self, gone: AnyResource, version: int) -> set[Key]:
        known = self._find(gone)
        if known is not None and (known.metadata.resource_version or 0) > version:
            return set()
        workspace, name = gone.metadata.workspace, gone.metadata.name
        if gone.kind == "Workspace":
            self._workspaces.discard(name)
            return set()
        if gone.kind == "Deployment":
            self._deployments.pop((workspace, name), None)
            return {(workspace, name)}
        if gone.kind == "Route":
            key = route_key(workspace, name)
            self._unname(key)
            self._routes.pop(key, None)
            self._taken.pop(key, None)
            self._refused.pop(key, None)
            return {key}
        key = (workspace, gone.spec.deployment)
        table = self._revisions if gone.kind == "Revision" else self._rollouts
        table.get(key, {}).pop(name, None)
        return {key}

    def _unname(self, key: Key) -> None:
        before = self._routes.get(key)
        for deployment in before.spec.deployments if before else ():
            self._named.get((key[0], deployment), set()).discard(key)

    def _find(self, wanted: AnyResource) -> AnyResource | None:
        workspace, name = wanted.metadata.workspace, wanted.metadata.name
        if wanted.kind == "Deployment":
            return self._deployments.get((workspace, name))
        if wanted.kind == "Route":
            return self._routes.get(route_key(workspace, name))
        if wanted.kind == "Workspace":
            return None
        table = self._revisions if wanted.kind == "Revision" else self._rollouts
        return table.get((workspace, wanted.spec.deployment), {}).get(name)


def _arms_of(wish: Wish) -> RouteEntry:
    """The Deployment for a Route: both arms of a rollout, also one that has no share yet, so that a shift changes
    weights only."""
    entry = wish.entry
    assert isinstance(entry, RouteEntry)  # noqa: S101 - a Route names Deployments only
    return replace(entry, live=wish.split) if len(wish.split) > 1 and entry.live else entry


def _cluster(workspace: str, revision: str, role: Role) -> str:
    return Arm(workspace, revision, "", role, 0, ()).cluster
