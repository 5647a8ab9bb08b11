"""Old records and unused environments, removed now and then. Started by the server; harmless to run anywhere."""

import datetime
import logging
import threading

from podium.app.preparation import Preparing
from podium.resources.errors import PodiumError
from podium.store import Store

_log = logging.getLogger("podium.housekeeping")
_EVERY_SECONDS = 3600.0
KEEP = datetime.timedelta(days=30)
"""How long changes, events and samples are kept. The audit is kept for ever."""


class Housekeeping:
    """One thread; first an hour after the start."""

    def __init__(self, store: Store, preparing: Preparing) -> None:
        self._store, self._preparing = store, preparing
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when the thread has."""
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_SECONDS):
            try:
                self.tidy(datetime.datetime.now(datetime.UTC))
            except (PodiumError, OSError) as error:
                _log.warning("housekeeping failed, it is tried again in an hour: %s", error)

    def tidy(self, now: datetime.datetime) -> None:
        """One round."""
        self._store.prune(now - KEEP)
        with self._store.read() as tx:
            used = [
                revision.status.environment
                for revision in tx.list("Revision").items
                if revision.status.environment
                and (revision.status.replicas or revision.status.wanted_replicas)
            ]
        self._preparing.collect(used)
