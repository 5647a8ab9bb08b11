"""Gets route entries loaded in Envoy, in an order in which no request meets a route without its cluster:

    add clusters -> limits, adaptive limits -> weights -> routes -> (after a grace) remove clusters

Each is seen loaded before the next one. A shift of weights is one of these alone, and so is another limit.

Called by `agent`, from one task. Calls `render` for fragments, `files` to put them in place, `admin` and Envoy's log
to see what became of them. When Envoy refuses a change, the guilty entry is found by halving the change; the last
good fragment stays in force for it, everything else goes on.
"""

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from podium import __version__
from podium.gateway.admin import Admin
from podium.gateway.envoy_log import EnvoyLog
from podium.gateway.files import WatchedFiles
from podium.gateway.fleet import Key, Wish, route_key
from podium.gateway.render import access, adaptive, limits
from podium.gateway.render.clusters import cluster
from podium.gateway.render.document import Document, document
from podium.gateway.render.listener import listener
from podium.gateway.render.read_back import clusters_of, entries_of, is_configured, resources_of
from podium.gateway.render.routes import EntryRoutes, entry_routes, has_own, route_table
from podium.gateway.render.rules import published_routes, published_weights
from podium.gateway.render.tls import certificate
from podium.gateway.render.weights import over, prefix, read_weights, weights_document, weights_of
from podium.gateway.settings import (
    ACCESS,
    ADAPTIVE,
    CERTIFICATES,
    CLUSTERS,
    LIMITS,
    LISTENERS,
    REVOKED,
    ROUTES,
    TOKENS,
    WEIGHTS,
    GatewaySettings,
)
from podium.planning.routes import RoutePlan
from podium.resources.errors import PodiumError, Unavailable

if TYPE_CHECKING:
    from podium.gateway.certificates import Certificate

log = logging.getLogger(__name__)

_ACKNOWLEDGE_SECONDS = 10.0
_FIRST_POLL, _LAST_POLL = 0.001, 0.05
_COUNTERS_AFTER = 0.25
_GRACE = 5.0
_ADOPTED_GRACE = 60.0


class RefusedByEnvoy(PodiumError):
    """Envoy did not take a configuration; the message is its own."""

    code = "refusedByEnvoy"


@dataclass(frozen=True)
class Refusal:
    """An entry that Envoy does not take: what was refused, and in whose words."""

    wish: Wish
    error: str


@dataclass(frozen=True)
class Piece:
    """What one Deployment or Route adds to the files."""

    wish: Wish | None
    """None: read back from the files of an agent before this one."""
    clusters: Mapping[str, bytes]
    weights: Mapping[str, int]
    routes: EntryRoutes
    buckets: Mapping[bytes, int] = field(default_factory=dict)
    """What `render.limits` counts for it. None of one that was read back: what they were is in force together."""
    controllers: Mapping[str, bytes] = field(default_factory=dict)
    """What `render.adaptive` holds for it. None of one that was read back, likewise."""

    @property
    def chosen_by_caller(self) -> bool:
        """Whether who calls has a part in taking one of its routes, or in where it leads."""
        routes = (*self.routes.pinned, *self.routes.main, *self.routes.published)
        return any(access.chosen_by_caller(route) for route in routes)


class Loader:
    """What is loaded in one Envoy. `adopt_files` first; then `load` and `load_access` as often as wanted."""

    def __init__(self, settings: GatewaySettings, files: WatchedFiles, admin: Admin, words: EnvoyLog) -> None:
        self._settings = settings
        self._files = files
        self._admin = admin
        self._words = words
        self._good: dict[Key, Piece] = {}
        self._lingering: dict[str, tuple[bytes, float]] = {}
        self._limits = limits.Counted()
        self._controllers: Mapping[str, bytes] = {}
        self._configured = False
        self._rules: access.AccessRules | None = None
        self._choosing = False
        self._recording: bool | None = None
        self._counted: dict[str, int] = {}
        self.refused: dict[Key, Refusal] = {}
        """Entries that are not loaded as wished, by Deployment."""

    def loaded(self, key: Key) -> Wish | None:
        """What is loaded for a Deployment."""
        piece = self._good.get(key)
        return piece.wish if piece else None

    @property
    def keys(self) -> set[Key]:
        """Deployments that have routes."""
        return set(self._good)

    @property
    def configured(self) -> bool:
        """Has this gateway ever had its configuration from the server?"""
        return self._configured

    def adopt_files(self, *, recording: bool = True) -> None:
        """Start from what an agent before this one left: its routes stay until the server says otherwise, and its
        clusters a while longer, because requests may be under way in them. Without files, write the first ones."""
        for kind, content in _closed():
            # One that is missing among others is a kind that the version before this one did not have.
            if self._files.version(kind) is None:
                self._files.write(kind, content)
        table, clusters, weights = (self._files.read(kind) for kind in (ROUTES, CLUSTERS, WEIGHTS))
        if table is not None and clusters is not None and weights is not None:
            self._configured = is_configured(table)
            known = resources_of(clusters)
            until = time.monotonic() + _ADOPTED_GRACE
            self._lingering = {name: (content, until) for name, content in known.items()}
            split = read_weights(weights)
            self._limits = limits.read_counted(self._files.read(LIMITS) or b"")
            self._controllers = adaptive.read_controllers(self._files.read(ADAPTIVE) or b"")
            for key, routes in entries_of(table).items():
                own = {name: known[name] for name in clusters_of(routes) if name in known}
                shares = {name: share for name, share in split.items() if name.startswith(f"{prefix(*key)}.")}
                self._good[key] = Piece(None, own, shares, routes)
            self._choosing = any(piece.chosen_by_caller for piece in self._good.values())
            configured = self._configured
            if not has_own(table, configured=configured, version=__version__):
                # They belong to the listener, which is written anew below.
                kept = (piece.routes for piece in self._good.values())
                self._files.write(ROUTES, route_table(kept, configured=configured, version=__version__))
        if self._settings.certificate is not None and self._files.version(CERTIFICATES) is None:
            from podium.gateway.certificates import read_certificate

            # One that is there is renewed later, as any other: a bad file must not keep a gateway from its port.
            first = read_certificate(self._settings.certificate, datetime.datetime.now(datetime.UTC))
            self._files.write(CERTIFICATES, certificate(first.chain, first.key))
        self.write_listener(recording=recording)

    def write_listener(self, *, recording: bool) -> None:
        """In place before Envoy starts. `recording`: the access record's file is there for it."""
        self._files.write(LISTENERS, listener(self._settings, recording=recording))
        self._recording = None

    async def load_listener(self, *, recording: bool) -> None:
        """Bring the listener into force; nothing is done if it was seen loaded like this. Raises RefusedByEnvoy (the
        one before stays), Unavailable."""
        if self._recording is not recording:
            await self._put(LISTENERS, listener(self._settings, recording=recording))
            self._recording = recording

    def forget_counts(self) -> None:
        """Envoy was started anew: it counts refusals from zero."""
        self._counted = {}

    async def load(self, wishes: Mapping[Key, Wish | None]) -> None:
        """Bring these changes (None: the Deployment is gone) into force; entries that do not change are left out.

        Entries that Envoy refuses end in `refused`, with the others loaded. Raises Unavailable when Envoy does not
        answer in time: then nothing is known, and the same call can be made again.
        """
        changed: dict[Key, Piece | None] = {}
        for key, wish in wishes.items():
            self.refused.pop(key, None)
            try:
                changed[key] = None if wish is None else rendered(wish)
            except PodiumError as error:
                self._refuse(key, wish, error.message)
        await self._look_again(changed.values())
        await self._load_or_halve(changed)
        self._configured = True

    async def _look_again(self, pieces: Iterable[Piece | None]) -> None:
        """Before the first route that is chosen by the caller: Envoy has to look for routes when it knows who calls."""
        if self._choosing or not any(piece and piece.chosen_by_caller for piece in pieces):
            return
        if self._rules is not None:
            await self._put(TOKENS, access.tokens(self._rules, choosing=True))
        self._choosing = True

    async def load_access(self, rules: access.AccessRules, workspaces: Iterable[str]) -> None:
        """Bring token rules into force. Raises RefusedByEnvoy (the rules before stay in force) or Unavailable."""
        for kind, content in (
            (TOKENS, access.tokens(rules, choosing=self._choosing)),
            (REVOKED, access.revoked(rules)),
            (ACCESS, access.access(rules, workspaces)),
        ):
            await self._put(kind, content)
        self._rules = rules

    async def load_certificate(self, found: "Certificate") -> None:
        """New connections get this one; open ones go on. Raises RefusedByEnvoy (the one before stays), Unavailable."""
        await self._put(CERTIFICATES, certificate(found.chain, found.key))

    async def sweep(self) -> None:
        """Remove clusters whose grace is over, and weights that no route asks for."""
        now = time.monotonic()
        over = [name for name, (_, until) in self._lingering.items() if until <= now]
        if over:
            for name in over:
                del self._lingering[name]
            await self._put(CLUSTERS, self._cluster_file(self._good.values()))
        weights = weights_document(_weights(self._good.values()))
        if self._good and weights.version != self._files.version(WEIGHTS):
            await self._put(WEIGHTS, weights)

    async def _load_or_halve(self, changed: Mapping[Key, Piece | None]) -> None:
        try:
            await self._apply(changed)
        except RefusedByEnvoy as error:
            if len(changed) <= 1:
                for key, piece in changed.items():
                    self._refuse(key, piece.wish if piece else None, error.message)
                if not changed:
                    raise
                return
            for part in _parts(changed, error.message):
                await self._load_or_halve({key: changed[key] for key in part})

    async def _apply(self, changed: Mapping[Key, Piece | None]) -> None:
        """All of a change, or none of it: after a refusal the files are what they were."""
        wanted: dict[Key, Piece] = dict(self._good)
        for key, piece in changed.items():
            if piece is None:
                wanted.pop(key, None)
            else:
                wanted[key] = piece
        before = [self._good[key] for key in changed if key in self._good]
        # A shift of weights changes no cluster: then that file need not even be put together.
        if any(_clusters(self._good.get(key)) != _clusters(piece) for key, piece in changed.items()):
            await self._put(CLUSTERS, self._cluster_file([*before, *wanted.values()]))
        try:
            if any(piece and piece.buckets for piece in changed.values()):
                await self._put_limits(before, wanted.values())
            if any(piece and piece.controllers for piece in changed.values()):
                await self._put_adaptive(wanted.values())
            weights = _weights(wanted.values())
            for key in changed:
                weights |= over(_weights([self._good.get(key)]), _weights([wanted.get(key)]))
            await self._put(WEIGHTS, weights_document(weights))
            if not self._configured or any(
                _routes(self._good.get(key)) != _routes(piece) for key, piece in changed.items()
            ):
                routes = _in_force(wanted)
                await self._put(ROUTES, route_table(routes, configured=True, version=__version__))
        except RefusedByEnvoy:
            with contextlib.suppress(RefusedByEnvoy):
                await self._put(WEIGHTS, weights_document(_weights(self._good.values())))
                await self._put(CLUSTERS, self._cluster_file(self._good.values()))
            raise
        self._good = wanted
        now = time.monotonic()
        for piece in before:
            grace = _ADOPTED_GRACE if piece.wish is None else piece.wish.entry.timeout + _GRACE
            for name, content in piece.clusters.items():
                self._lingering[name] = (content, now + grace)
        for piece in changed.values():
            for name in _clusters(piece):
                self._lingering.pop(name, None)

    async def _put_limits(self, before: Sequence[Piece], after: Iterable[Piece]) -> None:
        """Before the routes that count by them. It fills all buckets, so only where something is missing.

        `before` is what those in `after` take the place of: until they have, both count. A Route that changes has the
        same callers before and after, so the larger room is enough, and not the sum.
        """
        after = list(after)
        wanted = limits.together(piece.buckets for piece in after)
        wanted = wanted.with_all_of(limits.together(piece.buckets for piece in before))
        if self._limits.has(wanted):
            return
        if any(piece.wish is None for piece in (*before, *after)):
            wanted = wanted.with_all_of(self._limits)
        await self._put(LIMITS, limits.limits_document(wanted))
        self._limits = wanted

    async def _put_adaptive(self, pieces: Iterable[Piece]) -> None:
        """Before the routes that are limited by them. All begin anew, so only where one is missing or another: what
        is too much does no harm."""
        pieces = list(pieces)
        wanted = {name: one for piece in pieces for name, one in piece.controllers.items()}
        if wanted.items() <= self._controllers.items():
            return
        if any(piece.wish is None for piece in pieces):
            wanted = {**self._controllers, **wanted}
        await self._put(ADAPTIVE, adaptive.adaptive_document(wanted))
        self._controllers = wanted

    def _cluster_file(self, pieces: Iterable[Piece]) -> Document:
        """Later pieces win over earlier ones, and all over what lingers. Sorted: equal sets are equal files."""
        clusters = {name: content for name, (content, _) in self._lingering.items()}
        for piece in pieces:
            clusters.update(piece.clusters)
        return document(clusters[name] for name in sorted(clusters))

    async def _put(self, kind: str, content: Document) -> None:
        """Write a file and wait until Envoy has loaded it. A refused one is taken back before RefusedByEnvoy."""
        if not self._counted:
            self._counted = await self._admin.refusals()
        mark = self._words.mark()
        self._files.write(kind, content)
        try:
            await self._acknowledged(kind, content.version, mark)
        except RefusedByEnvoy:
            self._files.restore(kind)
            self._counted = {}
            raise
        self._files.confirm(kind)

    async def _acknowledged(self, kind: str, version: str, mark: int) -> None:
        began = time.monotonic()
        wait = _FIRST_POLL
        while True:
            if await self._admin.version(kind) == version:
                return
            words = self._words.refusal_since(mark)
            passed = time.monotonic() - began
            # The log may be unwritable (full disk): the counters know of a refusal too, but not why.
            if words is None and passed > _COUNTERS_AFTER and await self._counts(kind):
                words = (
                    self._words.refusal_since(mark) or "refused without words; see the gateway's envoy.log"
                )
            if words is not None:
                raise RefusedByEnvoy(words)
            if passed > _ACKNOWLEDGE_SECONDS:
                raise Unavailable(f"Envoy did not load the {kind} within {_ACKNOWLEDGE_SECONDS:.0f} s")
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, _LAST_POLL)

    async def _counts(self, kind: str) -> bool:
        return (await self._admin.refusals())[kind] > self._counted.get(kind, 0)

    def _refuse(self, key: Key, wish: Wish | None, error: str) -> None:
        if wish is not None:
            self.refused[key] = Refusal(wish, error)
            log.warning("%s/%s is not loaded: %s", key[0], key[1], error)


def _closed() -> Sequence[tuple[str, Document]]:
    """The first files: nothing is served until the server has said what, and to whom."""
    shut = access.open_access()
    return (
        (CLUSTERS, document([])),
        (WEIGHTS, weights_document({})),
        (ROUTES, route_table((), configured=False, version=__version__)),
        (REVOKED, access.revoked(shut)),
        (ACCESS, access.access(shut, ())),
        (TOKENS, access.tokens(shut)),
        (LIMITS, limits.limits_document(limits.Counted())),
        (ADAPTIVE, adaptive.adaptive_document({})),
    )


def _parts(changed: Mapping[Key, Piece | None], words: str) -> tuple[list[Key], list[Key]]:
    """A refused change in two. Where Envoy's words name clusters, theirs are apart from all others, and come last."""
    suspects = [key for key, piece in changed.items() if any(name in words for name in _clusters(piece))]
    if 0 < len(suspects) < len(changed):
        return [key for key in changed if key not in suspects], suspects
    keys = list(changed)
    return keys[: len(keys) // 2], keys[len(keys) // 2 :]


def _clusters(piece: Piece | None) -> Mapping[str, bytes]:
    return piece.clusters if piece else {}


def _weights(pieces: Iterable[Piece | None]) -> dict[str, int]:
    return {key: weight for piece in pieces if piece for key, weight in piece.weights.items()}


def _in_force(pieces: Mapping[Key, Piece]) -> Iterable[EntryRoutes]:
    """All routes. A Deployment whose path a Route takes over answers no version by number there: that way led around
    the Route's limits."""
    for key, piece in pieces.items():
        taken_over = route_key(*key) in pieces
        yield replace(piece.routes, pinned=()) if taken_over else piece.routes


def _routes(piece: Piece | None) -> EntryRoutes | None:
    return piece.routes if piece else None


def rendered(wish: Wish) -> Piece:
    """What one Deployment or Route adds to the files. Raises InvalidInput for an address that is none."""
    if isinstance(wish.entry, RoutePlan):
        clusters = {arm.cluster: cluster(arm) for arm in wish.entry.own_arms}
        weights, routes = published_weights(wish.entry), published_routes(wish.entry)
        limited = wish.entry.limits
        held = adaptive.controllers(limited, wish.entry.workspace, wish.entry.route)
        return Piece(wish, clusters, weights, routes, limits.buckets(limited), held)
    split = wish.split if len(wish.split) > 1 and wish.entry.live else ()
    return Piece(
        wish=wish,
        clusters={arm.cluster: cluster(arm) for arm in (*wish.entry.arms, *wish.split)},
        weights=weights_of(split, wish.entry.deployment),
        routes=entry_routes(wish.entry, split),
    )
