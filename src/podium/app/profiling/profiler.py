"""One profile from request to result: the API's `Profiler`.

Environment and files as for a Deployment, one replica, three series of measurements, a proposal; the result is kept in
the version's status. What is measured next and what is proposed is `planning.profiles`.
"""

import datetime
import os
import platform
import queue
import re
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from podium.app.preparation import Prepared, Preparing
from podium.app.profiling.inputs import Inputs, found_or_made_up, given
from podium.app.profiling.replica import Bench, ReplicaEnded, Running, held_memory
from podium.load.driver import Driver, DriverFailed, Job
from podium.load.generator import Found
from podium.load.requests import request_bytes
from podium.planning import profiles
from podium.registry.blobs import BlobStore
from podium.resources.errors import InvalidInput, Issue, PodiumError, Refused, Unavailable
from podium.resources.kinds import ModelVersion
from podium.resources.profile import Profile, ProfilePoint, ProfileRequest
from podium.store import Actor, Store

_BUILD_TIMEOUT = 1800.0
_MAX_LOCK_BYTES = 16 * 2**20
_MAX_BODIES = 64
_MAX_BODY_BYTES = 4 * 2**20
_MAX_BODY = 12 * 2**20
"""Under the model server's own limit, 16 MiB."""
_LONGEST_SETTLE = 0.5
_CHECK_CONNECTIONS = 256
_FEW = 100
_OK = 200
_STOP_SECONDS = 60.0
_SIGN_OF_LIFE_SECONDS = 1.0
Say = Callable[[str], None]


class Stopped(Unavailable):
    """Nobody waits for the profile any more, or the server ends."""


@dataclass(frozen=True)
class Parts:
    """What a profile stands on."""

    store: Store
    blobs: BlobStore
    preparing: Preparing
    runtime_wheel: str
    podium: str
    """This Podium's version."""
    root: Path
    sockets: Path


class Profiler:
    """One profile at a time: two would measure each other."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._bench = Bench(parts.root, parts.sockets)
        self._busy = threading.Lock()
        self._ending = threading.Event()

    def sweep(self) -> None:
        """End what a server that died left behind."""
        self._bench.sweep()

    def close(self) -> None:
        """End the profile under way, its processes included, and take no more."""
        self._ending.set()
        if self._busy.acquire(timeout=_STOP_SECONDS):
            self._bench.close()

    def profile(
        self, workspace: str, name: str, request: ProfileRequest, actor: Actor
    ) -> Generator[dict[str, Any], None, None]:
        """`{"progress": text}` at least once a second, then `{"version": document}`. Closing the iterator ends the
        profile, and returns when its processes are gone."""
        stop = threading.Event()
        lines: queue.Queue[dict[str, Any] | BaseException] = queue.Queue()

        def check() -> None:
            if stop.is_set() or self._ending.is_set():
                raise Stopped("the profile was stopped")

        def run() -> None:
            try:
                lines.put(self._profile((workspace, name), request, actor, _Saying(lines.put, check)))
            except BaseException as error:  # handed to the caller's thread, whatever it is
                lines.put(error)

        thread = threading.Thread(target=run, name="profile", daemon=True)
        thread.start()
        said: dict[str, Any] = {"progress": "beginning"}
        try:
            while True:
                try:
                    line = lines.get(timeout=_SIGN_OF_LIFE_SECONDS)
                except queue.Empty:
                    # The same again: whoever passes it on notices by it that nobody listens any more.
                    yield said
                    continue
                if isinstance(line, PodiumError):
                    raise line
                if isinstance(line, BaseException):
                    raise RuntimeError("the profile failed inside the server") from line
                yield line
                if "progress" not in line:
                    return
                said = line
        finally:
            stop.set()
            thread.join(_STOP_SECONDS)

    def _profile(
        self, key: tuple[str, str], request: ProfileRequest, actor: Actor, saying: "_Saying"
    ) -> dict[str, Any]:
        with self._parts.store.read() as tx:
            version = tx.get("ModelVersion", *key)
        if not self._busy.acquire(blocking=False):
            raise Refused(
                "another profile is under way, and two would measure each other",
                next_step="wait until it has ended; it keeps to its budget",
            )
        try:
            measured = _Measuring(self._parts, self._bench, version, request, saying).run()
        finally:
            self._busy.release()
        with self._parts.store.write(actor) as tx:
            current = tx.get("ModelVersion", *key)
            after = tx.set_status(current.uid, current.status.model_copy(update={"profile": measured}))
            tx.audit("profile", after, f"{key[1]}: measured for {measured.seconds:.0f} s")
        return {"version": after.document()}


@dataclass(frozen=True)
class _Saying:
    """Progress out, the wish to stop in."""

    put: Callable[[dict[str, Any]], None]
    check: Callable[[], None]

    def say(self, words: str) -> None:
        """One line."""
        self.check()
        self.put({"progress": words})


@dataclass
class _Measuring:
    """One profile's state."""

    parts: Parts
    bench: Bench
    version: ModelVersion
    request: ProfileRequest
    saying: _Saying
    memory_peak: int = 0
    notes: list[str] = field(default_factory=list)
    started: float = 0.0

    @property
    def p99_ms(self) -> float | None:
        """The wished latency."""
        return None if self.request.p99 is None else 1000 * self.request.p99

    def run(self) -> Profile:
        """Everything. Raises PodiumError."""
        manifest = self.version.spec.manifest
        prepared = self._prepared()
        inputs = self._inputs(prepared)
        load_before = os.getloadavg()[0]
        budget = profiles.Budget(self.request.budget)
        with ExitStack() as stack:
            driver = stack.enter_context(Driver())
            with self._replica(prepared, profiles.ROWS[-1]) as first:
                self.started = time.monotonic()
                memory_idle = held_memory(first.pid)
                self._warm_up(driver, first, inputs, budget)
                batches = self._batches(driver, first, inputs, budget)
            max_batch, _ = profiles.choose_batch(batches, self.p99_ms)
            # A replica with the batch that is proposed: what is measured from here on is what is deployed.
            paused = time.monotonic()
            with self._replica(prepared, max_batch) as replica:
                self.started += time.monotonic() - paused
                self._warm_up(driver, replica, inputs, budget)
                load = self._load(driver, replica, inputs, budget)
                checks = self._checks(driver, replica, inputs, load)
        seconds = time.monotonic() - self.started
        cores = len(os.sched_getaffinity(0))
        measured = profiles.Measured(
            model=self.version.spec.model, version=self.version.spec.version, cpus=self.request.cpus,
            batches=batches, load=load, checks=checks, memory_peak=self.memory_peak,
            start_seconds=first.start_seconds, cores=cores,
        )  # fmt: skip
        return Profile(
            measured_at=datetime.datetime.now(datetime.UTC), seconds=round(seconds, 1),
            start_seconds=round(first.start_seconds, 2), inputs=inputs.source, rate=self.request.rate,
            p99_ms=self.p99_ms, batches=batches, load=load, checks=checks,
            memory_idle=memory_idle, memory_peak=self.memory_peak,
            proposal=profiles.propose(measured, self.request.rate, self.p99_ms),
            notes=self._notes(inputs, checks, load_before, cores),
            podium=self.parts.podium, runtime_wheel=self.parts.runtime_wheel, python=manifest.python,
            packages=self._packages(), cores=cores, cpus=self.request.cpus, machine=_machine(), sandbox=first.sandbox,
        )  # fmt: skip

    # --- what is measured -------------------------------------------------------------------------------------

    def _prepared(self) -> Prepared:
        self.saying.say("checking the files out")
        deadline, said = time.monotonic() + _BUILD_TIMEOUT, ""
        while True:
            prepared = self.parts.preparing.of(self.version.spec.manifest, self.parts.runtime_wheel)
            if prepared.error:
                raise Unavailable(f"the environment cannot be made: {prepared.error}")
            if prepared.python is not None:
                return prepared
            if prepared.progress and prepared.progress != said:
                said = prepared.progress
                self.saying.say(f"environment: {said}")
            if time.monotonic() > deadline:
                raise Unavailable(f"the environment was not ready within {_BUILD_TIMEOUT:g} s")
            self.saying.check()
            time.sleep(0.2)

    def _inputs(self, prepared: Prepared) -> Inputs:
        manifest, request = self.version.spec.manifest, self.request
        if request.rows is not None or request.inputs is not None:
            return given(manifest.signature, request.rows, request.inputs or {})
        return found_or_made_up(manifest, manifest.signature, prepared.model_path)

    def _replica(self, prepared: Prepared, max_batch: int) -> Any:
        self.saying.say(f"starting a replica (batches of at most {max_batch})")
        return self.bench.replica(
            self.version, prepared, self.request,
            runtime_wheel=self.parts.runtime_wheel, max_batch=max_batch, check=self.saying.check,
        )  # fmt: skip

    def _warm_up(self, driver: Driver, replica: Running, inputs: Inputs, budget: profiles.Budget) -> None:
        """First calls are slower than all others; and inputs that the model refuses show here."""
        answer, _ = self._ask(driver, replica, self._job(replica, inputs, 1), min(1.0, budget.batch))
        if answer.samples and not answer.statuses[_OK]:
            status, words = next(iter(answer.samples.items()))
            raise InvalidInput(
                Issue(
                    "rows",
                    f"the model does not answer the inputs that were {inputs.source}: HTTP {status} {_words(words)}",
                ),
                next_step="give rows that it takes: --rows FILE",
            )

    def _batches(
        self, driver: Driver, replica: Running, inputs: Inputs, budget: profiles.Budget
    ) -> list[ProfilePoint]:
        points: list[ProfilePoint] = []
        while (rows := profiles.next_rows(points, self.p99_ms, budget.batch)) is not None:
            if points and (not inputs.by_row or rows * len(inputs.body()) > _MAX_BODY):
                break
            point = self._point(driver, replica, self._job(replica, inputs, rows), rows, budget.batch)
            points.append(point)
            self.saying.say(
                f"{rows} row{'s' * (rows > 1)} in a request: {rows * point.per_second:,.0f} rows/s, {_latency(point)}"
            )
        return points

    def _load(
        self, driver: Driver, replica: Running, inputs: Inputs, budget: profiles.Budget
    ) -> list[ProfilePoint]:
        points: list[ProfilePoint] = []
        while (count := profiles.next_connections(points, self.p99_ms, budget.load)) is not None:
            if points and self._left() < budget.reserved:
                break
            job = replace(self._job(replica, inputs, 1), connections=count)
            point = self._point(driver, replica, job, 1, budget.load)
            points.append(point)
            self.saying.say(
                f"{count} connection{'s' * (count > 1)}: {point.per_second:,.0f} requests/s, {_latency(point)}"
            )
        return points

    def _checks(
        self, driver: Driver, replica: Running, inputs: Inputs, load: list[ProfilePoint]
    ) -> list[ProfilePoint]:
        points: list[ProfilePoint] = []
        while (rate := profiles.next_check(points, load, self.p99_ms)) is not None and self._left() > 0.5:
            seconds = profiles.Budget(self.request.budget).check(self._left(), len(points))
            job = replace(
                self._job(replica, inputs, 1), connections=_CHECK_CONNECTIONS, rate=rate, random=True
            )
            point = self._point(driver, replica, job, 1, seconds)
            points.append(point)
            held = "held" if profiles.holds(point, self.p99_ms) else "did not hold"
            self.saying.say(f"{rate:,.0f} requests/s at random moments {held}: {_latency(point)}")
        return points

    def _left(self) -> float:
        return self.started + self.request.budget - time.monotonic()

    # --- one measurement --------------------------------------------------------------------------------------

    def _job(self, replica: Running, inputs: Inputs, rows: int) -> Job:
        first = inputs.body(rows)
        count = max(1, min(_MAX_BODIES, inputs.count, _MAX_BODY_BYTES // len(first)))
        bodies = [first, *(inputs.body(rows, rows * index) for index in range(1, count))]
        requests = [request_bytes(replica.path, "replica", body=body.encode()) for body in bodies]
        return Job(place={"unix": replica.socket}, requests=requests, connections=1, seconds=0.0)

    def _point(self, driver: Driver, replica: Running, job: Job, rows: int, seconds: float) -> ProfilePoint:
        answer, memory = self._ask(driver, replica, job, seconds)
        if answer.failed:
            seen = self.bench.look(replica.name)
            if seen.phase == "Exited":
                raise ReplicaEnded("the replica ended while it was measured", seen)
        took, requests = answer.latencies, answer.statuses[_OK]
        return ProfilePoint(
            rows=rows, connections=job.connections, rate=job.rate, requests=requests,
            failed=answer.failed, seconds=round(answer.seconds, 3),
            per_second=round(requests / answer.seconds, 3), p50_ms=round(1000 * took.quantile(0.5), 3),
            p99_ms=round(1000 * took.quantile(0.99), 3), max_ms=round(1000 * took.most, 3), memory=memory,
        )  # fmt: skip

    def _ask(self, driver: Driver, replica: Running, job: Job, seconds: float) -> tuple[Found, int]:
        """The driver's answer, and the most memory that the replica held meanwhile."""
        settle = min(_LONGEST_SETTLE, 0.2 * seconds)
        most = 0

        def tick() -> None:
            nonlocal most
            most = max(most, held_memory(replica.pid))
            self.saying.check()

        try:
            answer = driver.run(replace(job, settle=settle, seconds=seconds - settle), tick)
        except DriverFailed as error:
            raise Unavailable(str(error), next_step="profile again") from None
        tick()
        self.memory_peak = max(self.memory_peak, most)
        return answer, most

    # --- what to say of it ------------------------------------------------------------------------------------

    def _notes(self, inputs: Inputs, checks: list[ProfilePoint], load_before: float, cores: int) -> list[str]:
        notes = list(self.notes)
        if inputs.source == "made up":
            notes.append(
                "the inputs were made up from the signature: measure with real rows (--rows) before relying on it"
            )
        if load_before > 0.5 * cores:
            notes.append(
                f"the machine was busy before it began (load average {load_before:.1f} on {cores} processors): "
                "figures are worse than they need be"
            )
        if cores <= self.request.cpus:
            notes.append(
                "the replica shared its processors with what asked it: figures are worse than they need be"
            )
        if checks and checks[-1].requests < _FEW:
            notes.append(
                f"the p99 of the last check rests on {checks[-1].requests} requests only: raise --budget"
            )
        return notes

    def _packages(self) -> list[str]:
        """The model's own requirements with the versions of the lock."""
        manifest = self.version.spec.manifest
        lock = self.parts.blobs.read(manifest.lock.sha256, _MAX_LOCK_BYTES).decode()
        names = [re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0] for text in manifest.requirements]
        pinned = {
            _canonical(name): version
            for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.MULTILINE)
        }
        return [f"{name}=={pinned[_canonical(name)]}" for name in names if _canonical(name) in pinned]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _latency(point: ProfilePoint) -> str:
    failed = f", {point.failed} failed" if point.failed else ""
    return f"p50 {point.p50_ms:.3g} ms, p99 {point.p99_ms:.3g} ms{failed}"


def _words(error: str) -> str:
    return " ".join(error.split())[:400]


def _machine() -> str:
    """Architecture and processor."""
    name = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        name = found.group(1).strip() if found else ""
    return f"{platform.machine()}, {name}" if name else platform.machine()
