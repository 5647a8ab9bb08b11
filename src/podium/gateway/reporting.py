"""What one gateway tells the server: what is loaded, at once; what Envoy counted, at each heartbeat.

Made and run by `agent`, which writes down here what it loaded and what is wrong. Calls `stats`, `load_report`,
`counter_room` and the port of `feed`.
"""

import asyncio
import contextlib
import logging
import random
import time
from dataclasses import replace
from typing import Any

from podium.gateway.admin import Admin
from podium.gateway.counter_room import CounterRoom
from podium.gateway.envoy_process import EnvoyProcess
from podium.gateway.feed import Report, Reporter
from podium.gateway.files import WatchedFiles
from podium.gateway.fleet import Fleet, Key, Measured, WatchedRollout, route_name
from podium.gateway.instance import instance_of
from podium.gateway.load_report import LoadCounters
from podium.gateway.loader import Loader
from podium.gateway.render.buckets import edge_for
from podium.gateway.settings import CLUSTERS, ROUTES, GatewaySettings
from podium.gateway.stats import read_counters
from podium.resources.errors import Refused, Unavailable

log = logging.getLogger(__name__)

_SHORTEST_WAIT, _LONGEST_WAIT = 0.05, 2.0
_CLAIM_SECONDS = 8.0
"""An agent that was killed and started elsewhere has its name again when the one before has been silent for 5 s: so
one whose name is taken tries for longer than that."""

_LEAVE_SECONDS = 2.0


class Reporting:
    """The reports of one gateway. `run` until cancelled."""

    def __init__(
        self,
        settings: GatewaySettings,
        reporter: Reporter,
        admin: Admin,
        envoy: EnvoyProcess,
        fleet: Fleet,
        loader: Loader,
        files: WatchedFiles,
    ) -> None:
        self._settings = settings
        self._reporter = reporter
        self._admin = admin
        self._envoy = envoy
        self._fleet = fleet
        self._loader = loader
        self._files = files
        self._counters = LoadCounters(admin)
        self._room = CounterRoom(admin)
        self._instance = instance_of(settings.layout)
        self.gives_way = False
        """End where another gateway has this one's name and keeps it, instead of serving on unheard."""
        self._refused_since: float | None = None
        self._known = False
        """The server has taken a report of this agent."""
        self.observed = 0
        """Everything up to this version is in force."""
        self.rejected_at: dict[Key, int] = {}
        self.problems = dict.fromkeys(
            ("loading", "access", "certificate", "listener", "upgrade", "record", "counters"), ""
        )
        """What is wrong, in words; the first one is told."""
        self.shifted = False
        """Weights have changed: what was counted until now is of other weights."""
        self.due = asyncio.Event()
        """Something new is to be told."""
        self.serving = asyncio.Event()
        """Envoy is up."""

    async def run(self) -> None:
        """What was loaded is told at once; counters go at each heartbeat, however often there is something new, and
        after each shift of weights. Raises Refused where it gives way and another gateway has had this one's name from
        the beginning; one that was known once serves on, and says so."""
        wait, count_at = 0.0, 0.0
        while True:
            if not self.shifted:
                left = max(0.0, count_at - time.monotonic())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(wait, left)):
                        await self.due.wait()
            told = self.due.is_set()
            self.due.clear()
            try:
                if told:
                    await self._deliver(self._document([]))
                if self.shifted or time.monotonic() >= count_at:
                    self.shifted = False
                    count_at = time.monotonic() + self._settings.heartbeat
                    samples, load = await self._samples(), await self._load()
                    await self._deliver(self._document(samples, load))
                    self._counters.delivered(load)
                wait = 0.0
            except Unavailable as error:
                log.info("the report was not delivered: %s", error.message)
                wait = longer(wait)
                await asyncio.sleep(min(wait, self._settings.heartbeat))
            except Refused as error:
                self._name_is_taken(error)
                await asyncio.sleep(self._settings.heartbeat)

    async def leave(self) -> None:
        """Tell the server that Envoy has ended, so that nothing waits for this gateway; a server that cannot be told
        gives it up in time."""
        if not self._known:
            return
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._reporter.report(replace(self._document([]), leaving=True))
        except (Unavailable, Refused, TimeoutError) as error:
            log.info("the server was not told that this gateway has ended: %r", error)

    async def _deliver(self, report: Report) -> None:
        await self._reporter.report(report)
        if self._refused_since is not None:
            log.info("the reports are taken again")
        self._known, self._refused_since = True, None

    def _name_is_taken(self, error: Refused) -> None:
        """Raises it when there is no hope that the name comes free."""
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
            log.error("%s: nobody waits for what is loaded here; next: %s", error.message, error.next_step)
        if self.gives_way and not self._known and now - self._refused_since > _CLAIM_SECONDS:
            raise error

    def measured(self, key: Key, rollout: WatchedRollout) -> Measured | None:
        """What a rollout's counters are of now; None before this agent has loaded the Deployment, too."""
        wish = self._loader.loaded(key)
        return None if wish is None else wish.measured(rollout)

    def _rejected(self) -> list[dict[str, Any]]:
        refused = {key: (self.rejected_at.get(key), one.error) for key, one in self._loader.refused.items()}
        refused |= {key: (version, error) for key, (version, error) in self._fleet.refused_routes.items()}
        return [
            {
                "workspace": key[0],
                **({"deployment": key[1]} if route_name(key) is None else {"route": route_name(key)}),
                "version": self._fleet.version if version is None else version,
                "error": error,
            }
            for key, (version, error) in refused.items()
        ]

    def _document(self, samples: list[dict[str, Any]], load: dict[str, Any] | None = None) -> Report:
        current = self._envoy.current
        return Report(
            observed_version=self.observed,
            rejected=self._rejected(),
            envoy={
                "state": "serving" if self.serving.is_set() else "restarting",
                "version": current.version if current else "",
                "epoch": current.epoch if current else "",
                "pid": current.pid if current else 0,
                "restarts": self._envoy.restarts,
                "address": f"{self._settings.host}:{self._settings.port}",
                "problem": next((words for words in self.problems.values() if words), ""),
                "routesVersion": self._files.version(ROUTES),
                "clustersVersion": self._files.version(CLUSTERS),
            },
            samples=samples,
            load=load,
            instance=self._instance,
        )

    async def _load(self) -> dict[str, Any] | None:
        """The load of all clusters, every other second or so; None if it was just read, or Envoy does not answer."""
        current = self._envoy.current
        if current is None or not self.serving.is_set():
            return None
        try:
            load = await self._counters.read(current.epoch)
            self.problems["counters"] = await self._room.problem()
        except Unavailable as error:
            log.info("no load: %s", error.message)
            return None
        return load if current is self._envoy.current else None

    async def _samples(self) -> list[dict[str, Any]]:
        watched = self._fleet.watched_rollouts()
        current = self._envoy.current
        if not watched or current is None or not self.serving.is_set():
            return []
        before = {key: self.measured(key, rollout) for key, rollout in watched.items()}
        clusters = {
            name for rollout in watched.values() for name in (rollout.stable, rollout.candidate) if name
        }
        try:
            counters = await read_counters(self._admin, clusters)
        except Unavailable as error:
            log.info("no samples: %s", error.message)
            return []
        if current is not self._envoy.current:
            return []
        at = time.time()
        return [
            {
                "rolloutUid": rollout.uid,
                "at": at,
                "gateway": self._settings.name,
                "epoch": current.epoch + measured[1],
                "weightBp": measured[0],
                "latencyEdgeMs": None
                if rollout.latency_threshold is None
                else edge_for(rollout.latency_threshold) * 1000,
                "stable": counters[rollout.stable] if rollout.stable else {},
                "candidate": counters[rollout.candidate],
            }
            for key, rollout in watched.items()
            # A shift during the reading: these counts are of two weights. And without a weight they tell nothing.
            if (measured := before[key]) is not None and self.measured(key, rollout) == measured
        ]


def longer(wait: float) -> float:
    """Twice as long, within bounds, and not in step with other agents."""
    return min(max(_SHORTEST_WAIT, wait * 2), _LONGEST_WAIT) * random.uniform(0.8, 1.2)  # noqa: S311
