"""The loop that every reconciler runs in: claim due rows, act, apply, back off.

Started by `app.server`; calls the store for leases and one `Reconciler` per kind. A pass is *load* (the claim: a
short transaction takes the lease with a fencing token), *act* (outside any transaction) and *apply* (a transaction
that succeeds only if the token still holds). Passes run on a few threads; a heartbeat renews the leases of those
that take long.
"""

import datetime
import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from podium.resources.errors import LeaseLost, PodiumError
from podium.store import Lease, Store

_log = logging.getLogger("podium.control")
LEASE_SECONDS = 15.0
_IDLE_SECONDS = 2.0
"""The longest sleep without a look at the work table: bounds how late a wake by another server is seen."""


class Reconciler(Protocol):
    """One kind's reconciler. Effects are idempotent; it never relies on having seen an event."""

    kind: str

    def reconcile(self, lease: Lease) -> None:
        """One pass: ends with `store.apply(lease, ...)` or `store.release(lease, next_at)`."""


def now() -> datetime.datetime:
    """Present time in UTC."""
    return datetime.datetime.now(datetime.UTC)


def backoff_seconds(attempts: int) -> float:
    """Wait after the n-th failure in a row: 0.5 s, doubling, at most a minute."""
    return float(min(60.0, 0.5 * 2 ** min(attempts, 10)))


class ControlLoop:
    """Runs reconcilers until `stop`. Any number of servers may run one against the same database."""

    def __init__(self, store: Store, reconcilers: list[Reconciler], *, worker: str, threads: int = 4) -> None:
        self._store = store
        self._reconcilers: Mapping[str, Reconciler] = {
            reconciler.kind: reconciler for reconciler in reconcilers
        }
        self._worker = worker
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reconcile")
        self._free = threading.Semaphore(threads)
        self._held: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._main = threading.Thread(target=self._run, name="control-loop", daemon=True)
        self._heart = threading.Thread(target=self._renew, name="control-leases", daemon=True)
        self.passes = 0
        self.failures = 0

    def start(self) -> None:
        """Begin claiming work."""
        self._main.start()
        self._heart.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Claim no more, and wait for the passes under way."""
        self._stopping.set()
        self._main.join(timeout)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self) -> None:
        kinds = list(self._reconcilers)
        while not self._stopping.is_set():
            try:
                room = self._room()
                leases = self._store.claim(
                    self._worker, kinds=kinds, limit=room, lease_seconds=LEASE_SECONDS, now=now()
                )
                for lease in leases:
                    self._free.acquire()
                    with self._lock:
                        self._held[lease.uid] = lease
                    self._pool.submit(self._pass, lease)
                if not leases:
                    self._store.wait_for_work(self._until_next(kinds))
            except PodiumError as error:
                _log.warning("the work table cannot be read: %s", error)
                self._stopping.wait(1.0)
            except Exception:
                _log.exception("the control loop failed; it goes on")
                self._stopping.wait(1.0)

    def _room(self) -> int:
        """How many rows may be claimed: only as many as there are threads for. Waits until there is one."""
        with self._free:
            pass
        with self._lock:
            return max(1, self._threads - len(self._held))

    def _until_next(self, kinds: list[str]) -> float:
        due = self._store.next_due(kinds)
        if due is None:
            return _IDLE_SECONDS
        return min(_IDLE_SECONDS, max(0.005, (due - now()).total_seconds()))

    def _pass(self, lease: Lease) -> None:
        started = time.monotonic()
        try:
            self._reconcilers[lease.kind].reconcile(lease)
            self.passes += 1
        except LeaseLost:
            _log.info("%s %s/%s: another worker has taken over", lease.kind, lease.workspace, lease.name)
        except Exception as error:
            self.failures += 1
            self._failed(lease, error)
        finally:
            with self._lock:
                self._held.pop(lease.uid, None)
            self._free.release()
            took = time.monotonic() - started
            if took > 5.0:
                _log.info("%s %s/%s: a pass took %.1f s", lease.kind, lease.workspace, lease.name, took)

    def _failed(self, lease: Lease, error: Exception) -> None:
        wait = backoff_seconds(lease.attempts)
        if isinstance(error, PodiumError):
            _log.warning(
                "%s %s/%s: %s; again in %.1f s", lease.kind, lease.workspace, lease.name, error, wait
            )
        else:
            _log.error(
                "%s %s/%s failed; again in %.1f s",
                lease.kind,
                lease.workspace,
                lease.name,
                wait,
                exc_info=error,
            )
        try:
            again = now() + datetime.timedelta(seconds=wait)
            self._store.release(lease, again, attempts=lease.attempts + 1)
        except PodiumError as second:
            # The lease runs out by itself; the row is due again then.
            _log.warning(
                "%s %s/%s: its lease could not be given back: %s",
                lease.kind,
                lease.workspace,
                lease.name,
                second,
            )

    def _renew(self) -> None:
        while not self._stopping.wait(LEASE_SECONDS / 3):
            with self._lock:
                held = list(self._held.values())
            for lease in held:
                try:
                    self._store.renew(lease, LEASE_SECONDS, now())
                except PodiumError as error:
                    _log.info(
                        "%s %s/%s: lease not renewed: %s", lease.kind, lease.workspace, lease.name, error
                    )
