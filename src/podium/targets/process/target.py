"""Starts, observes and stops replicas as processes. All it knows lies in files: any server over the same folders sees
the same replicas, also those that another one started before it died.

Called by `control` and `app`. Calls `replicas` (files), `programs` (what to run), `health`, and `podium.processes`.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from podium.processes import supervision
from podium.processes.exits import ExitWatcher
from podium.processes.identity import ProcessIdentity, wait_exit
from podium.processes.processor_time import processor_seconds
from podium.processes.sockets import listeners, sockets_of_family
from podium.resources.errors import NotFound, Refused, Unavailable
from podium.targets.port import RecordMark, ReplicaObservation, ReplicaPhase, ReplicaRecords, ReplicaWish
from podium.targets.process import records
from podium.targets.process.commands import SERVED, misplaced, port_names
from podium.targets.process.health import Answer, ask
from podium.targets.process.ports import Ports, is_free
from podium.targets.process.programs import AFTER_DRAIN_SECONDS, choose_processors, configuration, program
from podium.targets.process.replicas import Kept, Replica, Replicas, bound_processors
from podium.targets.process.wakes import WakeWatch

_ASK_SECONDS = 1.0
_ASK_STARTING_SECONDS = 0.25
_GLANCE_SECONDS = 0.05
_PATIENCE_SECONDS = 30.0
"""How long one that was ready may be silent: a model can hold its interpreter for a while and be fine."""
_LOOK_SECONDS = 5.0
"""How often it is looked at where a ready replica listens."""
_TAIL_LINES = 20
_LAST_MOMENT_SECONDS = 2.0


class ProcessTarget:
    """Replicas under `root`; their sockets in `sockets`, a short folder that only this user may enter. `programs`:
    folders whose programs commands may run beside those of their environment and of the system.

    Safe for threads. Raises Refused where `sockets` belongs to somebody else.
    """

    def __init__(self, root: Path, sockets: Path, programs: Sequence[Path] = ()) -> None:
        self._replicas = Replicas(root, sockets)
        self._exits = ExitWatcher("replica-exits")
        self._callback: Callable[[str], None] | None = None
        self._watched: set[ProcessIdentity] = set()
        self._wakes: WakeWatch | None = None
        self._silent_since: dict[ProcessIdentity, float] = {}
        self._looked_at: dict[ProcessIdentity, float] = {}
        self._ports = Ports(sockets)
        self._programs = tuple(programs)
        self._lock = threading.Lock()

    def start(self, wish: ReplicaWish) -> ReplicaObservation:
        """Start it unless it was started before; one that has ended is not started again.

        Raises Refused (no Linux, sockets' path too long, its fixed port is taken, it is to be dormant and takes no
        descriptor), Unavailable (the shim did not start,
        the disk is full, the environment is gone). A sandbox level that is required and cannot be reached shows as an
        exit with its reason.
        """
        folder = self._replicas.folder(wish.revision_uid, wish.name)
        try:
            if supervision.observe(folder) is None and not supervision.stop_was_asked(folder):
                self._prepare(wish, folder)
                supervision.launch(folder)
        except OSError as error:
            raise Unavailable(
                f"replica {wish.name} could not be started: {error.strerror or error}"
            ) from None
        replica = self._replicas.read(folder)
        if replica is None:
            raise Unavailable(f"replica {wish.name} was stopped before it was started")
        # It cannot answer yet; one that was started before, and is ready, answers at once.
        return self._observations([replica], _GLANCE_SECONDS)[0]

    def _prepare(self, wish: ReplicaWish, folder: Path) -> None:
        socket, runtime = self._replicas.socket(folder), wish.spec.runtime
        if wish.dormant and not runtime.takes_descriptor:
            raise Refused(
                "runtime.command: a server that listens on a port of its own cannot be started by a request",
                next_step="write {fd} in runtime.command, the descriptor of a socket that listens already, or keep "
                "at least one replica running",
            )
        ports = self._choose_ports(wish, folder)
        kept = Kept(str(socket), runtime.startup_timeout, ports, runtime.probe_path)
        self._replicas.keep(folder, kept, configuration(wish, folder, ports))
        cpus: tuple[int, ...] = ()
        if wish.spec.resources.pin_cpus:
            taken = list(bound_processors(self._replicas.all()))
            cpus = choose_processors(wish.spec.resources.cpus, os.sched_getaffinity(0), taken)
        made = program(wish, folder, socket, cpus, ports)
        if runtime.command is not None:
            made = replace(made, box=replace(made.box, run=(*made.box.run, *self._programs)))
        supervision.prepare(folder, made)

    def _choose_ports(self, wish: ReplicaWish, folder: Path) -> dict[str, int]:
        """Free ones, and none that another replica has, also one that has ended: it may still be in the routes."""
        runtime = wish.spec.runtime
        names = port_names(runtime)
        if not names:
            return {}
        taken = {
            port: replica.name
            for replica in self._replicas.all()
            for port in replica.kept.ports.values()
            if replica.folder != folder
        }
        if runtime.port is None:
            return dict(zip(names, self._ports.choose(len(names), taken), strict=True))
        if runtime.port in taken or not is_free(runtime.port):
            raise Refused(
                f"runtime.port: {runtime.port} is taken by {taken.get(runtime.port, 'another program')}",
                next_step="write {port} in runtime.command instead, so that each replica gets a port of its own; "
                "a server that cannot be told its port runs once per machine, so its old revision must end first",
            )
        others = self._ports.choose(len(names) - 1, {*taken, runtime.port})
        return {SERVED: runtime.port, **dict(zip(names[1:], others, strict=True))}

    def observe(self, revision_uid: str) -> list[ReplicaObservation]:
        """All of the revision's replicas by name, those that ended included until they are forgotten.

        Takes up to a second when some do not answer. One that is not ready within its startup timeout is ended.
        """
        return self._observations(self._replicas.of_revision(revision_uid))

    def observe_all(self) -> list[ReplicaObservation]:
        """The replicas of all revisions."""
        return self._observations(self._replicas.all())

    def stop(self, name: str, grace: float, *, revision_uid: str | None = None) -> None:
        """SIGTERM now, SIGKILL after `grace` seconds and a little, both by its shim. Returns at once.

        Idempotent; a shorter grace replaces a longer one; 0 leaves no time at all. An unknown name is fine.
        """
        folder = self._replicas.find(name, revision_uid)
        if folder is not None:
            with contextlib.suppress(FileNotFoundError):  # forgotten between the two
                supervision.stop(folder, grace + AFTER_DRAIN_SECONDS if grace else 0.0)

    def forget(self, name: str, *, revision_uid: str | None = None) -> None:
        """Remove what is left of one that ended, and end what a shim that was killed may have left behind."""
        folder = self._replicas.find(name, revision_uid)
        replica = self._replicas.read(folder) if folder is not None else None
        if replica is None or replica.seen.phase != "exited":
            return
        if replica.seen.exit_code is None:
            supervision.kill_left_over(replica.seen.shim.token)
        with self._lock:
            self._silent_since.pop(replica.seen.shim, None)
            self._looked_at.pop(replica.seen.shim, None)
        # A shim writes its last word a moment before it ends.
        wait_exit(replica.seen.shim, _LAST_MOMENT_SECONDS)
        self._replicas.remove(replica.folder)

    def logs(self, name: str, lines: int, *, revision_uid: str | None = None) -> list[str]:
        """The last lines that it wrote, oldest first. Raises NotFound."""
        folder = self._replicas.find(name, revision_uid)
        if folder is None:
            raise NotFound(f"there is no replica {name[:100]!r}")
        return supervision.read_log(folder, lines)

    def records(self, revision_uid: str, marks: Mapping[str, RecordMark]) -> list[ReplicaRecords]:
        """What each of its replicas wrote down about its answers, from its mark on; also of those that ended."""
        return [
            records.read(supervision.private_folder(folder), folder.name, marks.get(folder.name))
            for folder in self._replicas.folders(revision_uid)
        ]

    @property
    def processors(self) -> int:
        """Those that this process may use: replicas inherit them."""
        return len(os.sched_getaffinity(0))

    def processor_times(self, revision_uid: str) -> dict[str, float]:
        """Replica -> seconds that its shim, its server and all that this started have used on processors since its
        start; those that run."""
        replicas = self._replicas.of_revision(revision_uid)
        times = {one.name: processor_seconds(one.seen.shim) for one in replicas if one.seen.phase != "exited"}
        return {name: seconds for name, seconds in times.items() if seconds is not None}

    def watch(self, callback: Callable[[str], None]) -> None:
        """`callback(revision_uid)`, in a thread of its own, when a replica that was started or observed here ends or is
        woken."""
        self._callback = callback
        self._wakes = WakeWatch(callback)

    def close(self) -> None:
        """Watch no more; replicas go on."""
        self._callback = None
        if self._wakes is not None:
            self._wakes.close()
        self._exits.close()

    def _observations(
        self, replicas: Sequence[Replica], timeout: float | None = None
    ) -> list[ReplicaObservation]:
        # One that is dormant would be woken by the question, and one that is waking does not answer yet.
        asked = [replica for replica in replicas if replica.seen.phase in ("starting", "running")]
        if timeout is None:
            timeout = _ASK_SECONDS if any(replica.was_ready for replica in asked) else _ASK_STARTING_SECONDS
        answers = ask([replica.kept.question for replica in asked], timeout)
        known = {replica.folder: answer for replica, answer in zip(asked, answers, strict=True)}
        return [self._observation(replica, known.get(replica.folder)) for replica in replicas]

    def _observation(self, replica: Replica, answer: Answer | None) -> ReplicaObservation:
        seen = replica.seen
        phase = self._phase(replica, answer)
        if phase != "Exited":
            self._watch_shim(replica)
        if seen.phase == "dormant" and self._wakes is not None:
            self._wakes.watch(replica.folder, replica.revision_uid)
        tail = [*seen.log_tail, seen.reason] if seen.reason else list(seen.log_tail)
        return ReplicaObservation(
            name=replica.name,
            revision_uid=replica.revision_uid,
            phase=phase,
            address=replica.kept.address,
            pid=seen.pid,
            started_at=seen.started_at,
            exit_code=seen.exit_code,
            log_tail=tail[-_TAIL_LINES:],
            sandbox=seen.sandbox,
            woken=seen.woken,
        )

    def _phase(self, replica: Replica, answer: Answer | None) -> ReplicaPhase:
        seen = replica.seen
        if seen.phase == "exited":
            return "Exited"
        if seen.phase == "waking":
            return "Draining" if self._is_overdue(replica) else "Starting"
        if seen.phase == "dormant" and not supervision.stop_was_asked(replica.folder):
            return "Dormant"
        if answer is None or supervision.stop_was_asked(replica.folder):
            return "Draining"
        was_ready = replica.was_ready
        if answer == "ready":
            if why := self._misplaced(replica):
                supervision.stop(replica.folder, 0.0, why=f"ended by Podium: {why}")
                return "Draining"
            with self._lock:
                self._silent_since.pop(seen.shim, None)
            if not was_ready:
                replica.mark_ready()
            return "Ready"
        if was_ready and answer in ("silent", "gone") and self._has_patience(seen.shim):
            return "Ready" if answer == "silent" else "Starting"
        if not was_ready and self._is_overdue(replica):
            return "Draining"
        if was_ready and answer in ("silent", "gone"):
            supervision.stop(
                replica.folder, 0.0, why=f"ended by Podium: it did not answer for {_PATIENCE_SECONDS:g} s"
            )
            return "Draining"
        return "Starting"

    def _is_overdue(self, replica: Replica) -> bool:
        """One that has never been ready and has had its time; it is ended."""
        age = (datetime.now(UTC) - replica.seen.started_at).total_seconds()
        if age <= replica.kept.startup_timeout:
            return False
        limit = f"{replica.kept.startup_timeout:g} s"
        supervision.stop(
            replica.folder, 0.0, why=f"ended by Podium: not ready within its startup timeout of {limit}"
        )
        return True

    def _has_patience(self, shim: ProcessIdentity) -> bool:
        now = time.monotonic()
        with self._lock:
            return now - self._silent_since.setdefault(shim, now) < _PATIENCE_SECONDS

    def _misplaced(self, replica: Replica) -> str:
        """Is it the replica that answers, and on this machine only? Looked at before it is served, and now and then."""
        if not replica.kept.ports:
            return ""
        shim, now = replica.seen.shim, time.monotonic()
        with self._lock:
            if replica.was_ready and now - self._looked_at.get(shim, 0.0) < _LOOK_SECONDS:
                return ""
            self._looked_at[shim] = now
        why = ""
        for _ in range(2):  # the two lists are not read at one instant: a socket may come or go in between
            why = misplaced(replica.kept.ports, listeners(), sockets_of_family(shim.pid))
            if not why:
                break
        return why

    def _watch_shim(self, replica: Replica) -> None:
        shim, revision_uid = replica.seen.shim, replica.revision_uid
        with self._lock:
            if self._callback is None or shim in self._watched:
                return
            self._watched.add(shim)

        def ended(identity: ProcessIdentity) -> None:
            with self._lock:
                self._watched.discard(identity)
            if self._callback is not None:
                self._callback(revision_uid)

        self._exits.watch(shim, ended)
