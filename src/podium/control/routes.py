"""Says of each Route whether it is in force: loaded by every gateway, refused by one, short of a Deployment.

Called by the loop. It changes nothing but the status: gateways read the spec.
"""

from podium.control.gateways import KNOWN_FOR
from podium.control.loop import now
from podium.planning import route_status as planning
from podium.planning.cascades import find_troubles
from podium.planning.route_status import GatewayWord
from podium.resources.kinds import Route
from podium.store import Actor, Lease, Store


class RouteReconciler:
    """One pass: read the Route, its Deployments and the gateways' reports, write the status if it changed."""

    kind = "Route"

    def __init__(self, store: Store) -> None:
        self._store = store
        self._actor = Actor("route-reconciler", "system")

    def reconcile(self, lease: Lease) -> None:
        """One pass, in one transaction."""
        named, troubles = {}, list[str]()
        with self._store.read() as tx:
            route = tx.by_uid(lease.uid)
            if route is not None:
                place = route.metadata.workspace
                troubles = [words for of_rule in find_troubles(tx, route).values() for words in of_rule]
                named = {name: tx.find("Deployment", place, name) for name in route.spec.deployments}
        if route is None:
            self._store.release(lease, None)
            return
        outcome = planning.decide(route, named, self._words(route), troubles=troubles, now=now())
        if outcome.status == route.status and not outcome.events:
            self._store.release(lease, outcome.next_at, attempts=0)
            return
        with self._store.apply(lease, self._actor) as tx:
            if tx.by_uid(lease.uid) is None:
                tx.finish(None)
                return
            status = outcome.status
            if outcome.new_wish:
                status = status.model_copy(update={"version": tx.version})
            tx.set_status(route.uid, status)
            for type_, reason, message in outcome.events:
                tx.event(route, type_, reason, message)
            tx.finish(outcome.next_at)

    def _words(self, route: Route) -> list[GatewayWord]:
        workspace, name = route.metadata.workspace, route.metadata.name
        words = []
        for row in self._store.gateways(since=now() - KNOWN_FOR):
            mine = (
                item
                for item in row.rejected
                if (item.get("workspace"), item.get("route")) == (workspace, name)
            )
            refusal = next(mine, {})
            words.append(GatewayWord(row.name, row.observed_version, str(refusal.get("error", ""))))
        return words
