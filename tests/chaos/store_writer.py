"""A process that writes to a store, one acknowledged write after another, until it is killed.

Run by `test_store_crash`: `python store_writer.py URL ROUNDS` (0: for ever). After each commit it prints one JSON line,
the acknowledgement: what was done, to which uid, in which version. A write that the store refuses as Unavailable is
said so, and ends the process with code 3.
"""

import datetime
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from podium.resources.errors import Unavailable
from podium.store import GatewayRow, SampleRow, Store
from tests.integration.store.objects import (
    ALICE,
    LOOP,
    create,
    deployment,
    model,
    now,
    replicas,
    rollout,
    uid_of,
    version,
)


def acknowledge(**what: Any) -> None:
    """On standard output at once: from here on the write must never be lost."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def writes(store: Store) -> Iterator[dict[str, Any]]:
    """One round: every way in which something is written, an object's whole life."""
    name = f"d{uuid.uuid4().hex[:12]}"
    (created,) = create(store, deployment(name, labels={"team": "risk", "round": name}))
    uid = uid_of(created)
    yield {"verb": "create", "uid": uid, "version": created.metadata.resource_version}
    with store.write(ALICE) as transaction:
        after = transaction.replace(
            uid, spec=replicas(created, 3), labels={"team": "fraud"}, expected_version=None
        )
    yield {"verb": "update", "uid": uid, "version": after.metadata.resource_version}
    later = now() + datetime.timedelta(days=1)
    for lease in store.claim(name, kinds=["Deployment"], limit=3, lease_seconds=0, now=later):
        with store.apply(lease, LOOP) as passing:
            current = passing.by_uid(lease.uid)
            assert current is not None
            count = current.status.revision_count + 1
            after = passing.set_status(lease.uid, current.status.model_copy(update={"revision_count": count}))
            made = passing.create(rollout(f"{current.metadata.name}-{count}", current))
            passing.event(current, "Normal", "Passed", name)
            passing.finish(later)
        yield {"verb": "status", "uid": lease.uid, "version": after.metadata.resource_version}
        yield {"verb": "create", "uid": uid_of(made), "version": made.metadata.resource_version}
        counters = {"started": count}
        store.append_samples(uid_of(made), [SampleRow("", 1e9 + count, "g", name, 1000, counters, counters)])
        yield {"verb": "sample", "uid": uid_of(made)}
    store.report_gateway(GatewayRow("g", now(), store.current_version(), [], {"round": name}))
    number = str(1 + store.current_version() % 2)
    with store.write(ALICE) as transaction:
        if transaction.get("Model", "default", "churn").status.aliases.get("champion") == number:
            transaction.set_alias("default", "churn", "champion", None)
        pointed = transaction.set_alias("default", "churn", "champion", number)
    yield {"verb": "alias", "uid": uid_of(pointed), "version": pointed.metadata.resource_version}
    with store.write(ALICE) as transaction:
        transaction.request_deletion(uid)
        gone = transaction.version
    yield {"verb": "delete", "uid": uid, "version": gone}
    with store.write(LOOP) as transaction:
        transaction.remove_finalizer(uid, "podium/drain")
        gone = transaction.version
    yield {"verb": "remove", "uid": uid, "version": gone}


def prepare(url: str) -> None:
    """The tables, and the objects that every round needs."""
    store = Store.open(url)
    store.migrate()
    create(store, model(), version("1"), version("2"), deployment("lasting"))
    store.close()


def main(url: str, rounds: int) -> int:
    """Writes until told to end."""
    store = Store.open(url, pool_size=1)
    done = 0
    try:
        while not rounds or done < rounds:
            for written in writes(store):
                acknowledge(**written)
            done += 1
    except Unavailable as error:
        acknowledge(verb="refused", message=str(error))
        return 3
    store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
