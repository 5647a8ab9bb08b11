"""Reads what replicas wrote: the API's `ReplicaLogs`."""

from podium.resources.errors import NotFound
from podium.resources.requests import ReplicaLog
from podium.store import Store
from podium.targets.port import Target


class TargetLogs:
    """Finds a Deployment's replicas and asks their target."""

    def __init__(self, store: Store, targets: dict[str, Target]) -> None:
        self._store, self._targets = store, targets

    def logs(self, workspace: str, deployment: str, replica: str | None, lines: int) -> list[ReplicaLog]:
        """The last lines of each replica, or of one. Raises NotFound for an unknown deployment or replica."""
        with self._store.read() as tx:
            owner = tx.get("Deployment", workspace, deployment)
            revisions = tx.list("Revision", owner_uid=owner.uid).items
        found = []
        for revision in revisions:
            target = self._targets[revision.spec.target]
            for observation in target.observe(revision.uid):
                if replica is None or observation.name == replica:
                    found.append(
                        ReplicaLog(
                            replica=observation.name,
                            lines=target.logs(observation.name, lines, revision_uid=revision.uid),
                        )
                    )
        if replica is not None and not found:
            names = [state.name for revision in revisions for state in revision.status.replicas]
            raise NotFound(
                f"{deployment} has no replica {replica}", next_step=f"replicas: {', '.join(names) or 'none'}"
            )
        return found
