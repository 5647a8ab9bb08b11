"""The gateway's loop: follow the server, get it loaded in Envoy, keep Envoy alive, report what is loaded.

Started by `main.run`. Calls `fleet`, `loader`, `envoy_process`, `reporting` and the feed. While the server
is gone nothing changes and Envoy is kept alive from the files in place; nothing here waits for the server but the
tasks that talk to it.
"""

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from podium.gateway.admin import Admin
from podium.gateway.binary import find_binary
from podium.gateway.envoy_log import EnvoyLog
from podium.gateway.envoy_process import EnvoyProcess
from podium.gateway.feed import Feed, Reporter
from podium.gateway.files import WatchedFiles
from podium.gateway.fleet import Fleet, Key, Wish, route_name
from podium.gateway.loader import Loader, RefusedByEnvoy
from podium.gateway.record import Record
from podium.gateway.render.access import AccessRules
from podium.gateway.reporting import Reporting, longer
from podium.gateway.settings import KINDS, CertificateFiles, GatewaySettings
from podium.resources.errors import Expired, InvalidInput, Refused, Unavailable

if TYPE_CHECKING:
    from podium.gateway.certificates import Watched

log = logging.getLogger(__name__)

_ACCESS_SECONDS = 1.0
_SHORTEST_WAIT = 0.05
_YOUNG_SECONDS = 5.0
_LONGEST_RESTART_WAIT = 5.0


class Agent:
    """One gateway. `run` until `end` or `stop_all` is called; `upgrade` hands Envoy over in place. `gives_way`: where
    another gateway has its name, it ends; else it serves on, unheard."""

    def __init__(
        self, settings: GatewaySettings, feed: Feed, report: Reporter, *, gives_way: bool = False
    ) -> None:
        self._settings = settings
        self._feed = feed
        self._admin = Admin(settings.layout.admin_socket)
        settings.layout.prepare()
        self._files = WatchedFiles(settings.layout)
        self._loader = Loader(settings, self._files, self._admin, EnvoyLog(settings.layout.log))
        self._envoy = EnvoyProcess(settings, find_binary(), self._admin)
        self._fleet = Fleet()
        self._dirty: set[Key] = set()
        self._listed = False
        self._access: AccessRules | None = None
        self._access_loaded: tuple[AccessRules, frozenset[str]] | None = None
        self._access_refused: tuple[AccessRules, frozenset[str]] | None = None
        self._reports = Reporting(
            settings, report, self._admin, self._envoy, self._fleet, self._loader, self._files
        )
        self._reports.gives_way = gives_way
        self._certificate = _watched(settings.certificate)
        self._record = Record(settings, self._admin)
        self._listener_refused: bool | None = None
        self._work = asyncio.Event()
        self._access_due = asyncio.Event()
        self._serving = self._reports.serving
        self._end = asyncio.Event()
        self._handing_over = asyncio.Lock()
        self._stop_envoy = False
        self._hurry = asyncio.Event()

    @property
    def observed_version(self) -> int:
        """What is reported."""
        return self._reports.observed

    @property
    def envoy(self) -> EnvoyProcess:
        """The process that it keeps alive."""
        return self._envoy

    def end(self) -> None:
        """Let `run` return; Envoy serves on."""
        self._end.set()

    def stop_all(self) -> None:
        """Drain and stop Envoy, then let `run` return. Called once more: without the notice before."""
        if self._stop_envoy:
            self._hurry.set()
        self._stop_envoy = True
        self._end.set()

    async def run(self) -> None:
        """Serve until told to end. Raises Unavailable if Envoy cannot be started at all at the beginning, and Refused
        when it has given way to another gateway of its name."""
        try:
            await self._bring_up()
            tasks = [
                asyncio.create_task(loop(), name=loop.__name__)
                for loop in (
                    self._supervise,
                    self._follow,
                    self._follow_access,
                    self._load,
                    self._report,
                )
            ]
            ending = asyncio.create_task(self._end.wait(), name="end")
            done, _ = await asyncio.wait([*tasks, ending], return_when=asyncio.FIRST_COMPLETED)
            if self._stop_envoy:
                # While it is announced, changes are followed as before: it serves.
                await self._envoy.announce(self._settings.notice, self._hurry)
            for task in (*tasks, ending):
                task.cancel()
            await asyncio.gather(*tasks, ending, return_exceptions=True)
            for task in done - {ending}:
                task.result()
        finally:
            if self._stop_envoy:
                await self._envoy.stop(self._settings.drain)
                await self._reports.leave()
            self._record.close()
            self._envoy.close()
            await self._admin.close()

    async def upgrade(self) -> None:
        """Hand over to a new Envoy in place, with the present settings and binary. Raises Refused, Unavailable."""
        async with self._handing_over:
            await self._envoy.hand_over()
            self._loader.forget_counts()
            self._listener_refused = None
        self._reports.due.set()

    # --- Envoy -------------------------------------------------------------------------------------------------

    async def _bring_up(self) -> None:
        adopted = self._envoy.adopt() and await self._still_serves()
        if adopted:
            await self._settle_adopted()
        else:
            self._restore_unconfirmed()
        self._loader.adopt_files(recording=self._record.hold())
        if not adopted:
            await self._envoy.start()
        self._serving.set()
        if adopted:
            await self._upgrade_if_outdated()

    async def _still_serves(self) -> bool:
        """The agent before this one may have died when it was about to stop Envoy: what it announced is taken back, and
        an Envoy that takes no connections any more is ended."""
        try:
            if (await self._admin.info()).state != "DRAINING":
                return True
            if await self._envoy.takes_connections():
                await self._admin.pass_health()
                return True
        except Unavailable as error:
            log.warning("the adopted Envoy's admin interface is silent: %s", error)
            return True
        await self._envoy.stop(self._settings.drain)
        return False

    def _restore_unconfirmed(self) -> None:
        """A fresh Envoy starts from what was seen loaded: a refused content would leave it without routes."""
        for kind in KINDS:
            if self._files.restore(kind):
                log.warning("the last %s were never seen loaded: back to the ones before", kind)

    async def _settle_adopted(self) -> None:
        """What the agent before this one wrote last may or may not be loaded: Envoy knows."""
        try:
            await self._confirm_or_restore()
        except Unavailable as error:
            log.warning("the adopted Envoy's admin interface is silent: %s", error)

    async def _confirm_or_restore(self) -> None:
        for kind in KINDS:
            if self._files.unconfirmed(kind):
                if await self._admin.version(kind) == self._files.version(kind):
                    self._files.confirm(kind)
                else:
                    self._files.restore(kind)

    async def _upgrade_if_outdated(self) -> None:
        if not self._envoy.outdated():
            return
        log.info("the running Envoy is handed over to version %s", find_binary().version)
        try:
            await self.upgrade()
        except (Refused, Unavailable) as error:
            self._reports.problems["upgrade"] = f"the Envoy that runs is outdated: {error.message}"
            log.warning("%s", self._reports.problems["upgrade"])

    async def _supervise(self) -> None:
        """Start Envoy again whenever it has died: at once, and with growing pauses if it keeps dying."""
        wait = 0.0
        while True:
            began = time.monotonic()
            await self._envoy.ended()
            async with self._handing_over:
                if self._envoy.alive():
                    continue
                self._serving.clear()
                log.warning("Envoy has ended; its last words: %s", self._envoy.last_words(5))
                wait = (
                    min(max(0.1, wait * 2), _LONGEST_RESTART_WAIT)
                    if time.monotonic() - began < _YOUNG_SECONDS
                    else 0.0
                )
                wait = await self._start_again(wait)
                self._envoy.restarts += 1
                self._loader.forget_counts()
                self._serving.set()
            self._reports.due.set()

    async def _start_again(self, wait: float) -> float:
        while True:
            await asyncio.sleep(wait)
            try:
                self._restore_unconfirmed()
                # Whatever has become of the record's file, Envoy has to come up.
                self._loader.write_listener(recording=self._record.hold())
                await self._envoy.start()
            except (Unavailable, OSError) as error:
                self._reports.problems["loading"] = f"Envoy does not start: {error}"
                log.error("%s", self._reports.problems["loading"])
                wait = min(max(0.1, wait * 2), _LONGEST_RESTART_WAIT)
            else:
                self._reports.problems["loading"] = ""
                self._listener_refused = None
                return wait

    async def _report(self) -> None:
        try:
            await self._reports.run()
        except Refused:
            # Nobody waits for what it has loaded: its Envoy must not go on without anybody who keeps it up to date.
            self.stop_all()
            self._hurry.set()
            raise

    # --- from the server ---------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        await _persistently(self._follow_once, "the server's changes")

    async def _follow_once(self, alive: Callable[[], None]) -> None:
        listing = await self._feed.listing()
        if listing.version < self._reports.observed:
            # The database was restored from an older copy: its versions will be counted a second time.
            self._reports.observed = 0
        self._dirty |= self._fleet.reset(listing.objects, listing.version) | self._loader.keys
        self._listed = True
        alive()
        self._work.set()
        after = listing.version
        wait = 0.0
        while True:
            try:
                async for changes in self._feed.watch(after):
                    wait = 0.0
                    alive()
                    self._dirty |= self._fleet.apply(changes)
                    if any(change.object is None for change in changes):
                        self._access_due.set()
                    after = max(after, *(change.position for change in changes))
                    self._work.set()
            except Unavailable as error:
                log.info("the watch broke off and goes on at %d: %s", after, error.message)
                wait = longer(wait)
            await asyncio.sleep(wait or _SHORTEST_WAIT)

    async def _follow_access(self) -> None:
        await _persistently(self._follow_access_once, "the token rules")

    async def _follow_access_once(self, alive: Callable[[], None]) -> None:
        while True:
            rules = await self._feed.access()
            alive()
            if rules != self._access:
                self._access = rules
                self._work.set()
            self._access_due.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ACCESS_SECONDS):
                    await self._access_due.wait()

    # --- into Envoy --------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        wait = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.heartbeat):
                    await self._work.wait()
            self._work.clear()
            await self._serving.wait()
            try:
                await self._record.tend()
                self._reports.problems["record"] = self._record.problem
                await self._load_certificate()
                await self._load_access()
                await self._load_routes()
                await self._loader.sweep()
                await self._load_listener()
                self._envoy.trim_log()
                wait = 0.0
                if self._reports.problems["loading"]:
                    self._reports.problems["loading"] = ""
            except (Unavailable, RefusedByEnvoy, OSError) as error:
                # Whatever it was, the wish stands and is tried again with whatever has come meanwhile.
                self._reports.problems["loading"] = f"not loaded yet: {error}"
                log.warning("%s", self._reports.problems["loading"])
                wait = longer(wait)
                await asyncio.sleep(wait)
                self._work.set()

    async def _load_listener(self) -> None:
        """Last, so that nothing waits for it: it differs only where the access record's file was lost or is back."""
        recording = self._record.held
        if self._listener_refused is recording:
            # This Envoy would refuse the same one again.
            return
        try:
            await self._loader.load_listener(recording=recording)
        except RefusedByEnvoy as error:
            self._listener_refused = recording
            self._reports.problems["listener"] = (
                f"the listener is refused, the one before stays in force: {error.message}"
            )
            log.error("%s", self._reports.problems["listener"])
        else:
            self._listener_refused, self._reports.problems["listener"] = None, ""

    async def _load_certificate(self) -> None:
        if self._certificate is None:
            return
        try:
            found = self._certificate.take(datetime.datetime.now(datetime.UTC))
            if found is None:
                return
            try:
                await self._loader.load_certificate(found)
            except RefusedByEnvoy as error:
                self._certificate.refuse(error.message)
                log.error("%s", self._certificate.problem)
            except Unavailable:
                self._certificate.again()
                raise
            else:
                log.info("the certificate is good until %s", found.ends)
        finally:
            self._reports.problems["certificate"] = self._certificate.problem

    async def _load_access(self) -> None:
        if self._access is None or not self._listed:
            return
        workspaces = frozenset(self._fleet.workspaces | {workspace for workspace, _ in self._loader.keys})
        wanted = (self._access, workspaces)
        if wanted in (self._access_loaded, self._access_refused):
            return
        try:
            await self._loader.load_access(*wanted)
        except RefusedByEnvoy as error:
            # Routes must go on: a rollback never waits for somebody to repair the token rules.
            self._access_refused = wanted
            self._reports.problems["access"] = (
                f"the token rules are refused, the ones before stay in force: {error}"
            )
            log.error("%s", self._reports.problems["access"])
        else:
            self._access_loaded, self._reports.problems["access"] = wanted, ""

    async def _load_routes(self) -> None:
        # A gateway that knows no rules yet must not show routes to everybody.
        if not self._listed or (self._access_loaded is None and not self._loader.configured):
            return
        version, dirty = self._fleet.version, self._dirty
        self._dirty = set()
        wishes: dict[Key, Wish | None] = {}
        for key in dirty:
            wish = self._fleet.wish(key)
            if not self._loader.configured or wish != self._loader.loaded(key) or key in self._loader.refused:
                wishes[key] = wish
        try:
            if wishes or not self._loader.configured:
                watched = self._fleet.watched_rollouts()
                before = {key: self._reports.measured(key, rollout) for key, rollout in watched.items()}
                await self._loader.load(wishes)
                self._reports.shifted |= any(
                    self._reports.measured(key, watched[key]) != weight for key, weight in before.items()
                )
        except BaseException:
            self._dirty |= dirty
            raise
        for key in wishes:
            refusal = self._loader.refused.get(key)
            if refusal is not None:
                self._reports.rejected_at[key] = version
            if route_name(key) is not None and self._fleet.settle_route(
                key, refusal.error if refusal else None, version
            ):
                # What was before goes on, and with the replicas of today.
                self._dirty.add(key)
                self._work.set()
        if version > self._reports.observed:
            self._reports.observed = version
            self._reports.due.set()


def _watched(files: CertificateFiles | None) -> "Watched | None":
    if files is None:
        return None
    from podium.gateway.certificates import Watched

    return Watched(files)


async def _persistently(once: Callable[[Callable[[], None]], Awaitable[None]], what: str) -> None:
    """Again and again: at once when the server has forgotten where we were, else with growing pauses. `once` is given a
    function to call when it got through."""
    wait = 0.0

    def alive() -> None:
        nonlocal wait
        wait = 0.0

    while True:
        try:
            await once(alive)
        except Expired:
            wait = 0.0
        except (Unavailable, InvalidInput) as error:
            wait = longer(wait)
            log.info("%s: %s; again in %.1f s", what, error.message, wait)
        await asyncio.sleep(wait)
