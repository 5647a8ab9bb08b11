"""One thread per application waits for commits and hands each one to every watcher, whatever their number.

`create` starts and stops the `WatchHub`; `routes/watch` makes a `Watcher` per request. A commit is read and
turned into bytes once; a watcher that cannot keep up reads what it missed from the store by itself.
"""

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from podium.api.wire import encode
from podium.resources.errors import PodiumError
from podium.store import Store

_log = logging.getLogger("podium.api")
_BATCH = 1000
"""Changes that are read at once."""
_STOP_LOOK = 0.25
"""Seconds after which the thread sees that it shall end."""
_QUEUE = 256
"""Batches that wait for a slow watcher before it has to read for itself."""


@dataclass(frozen=True)
class Frame:
    """One change as it goes out. `home`: the workspace whose readers may see it."""

    version: int
    kind: str
    home: str
    data: bytes


@dataclass(frozen=True)
class Batch:
    """All changes up to `version`, from some position on. `complete`: it reaches up to the store's present version."""

    version: int
    frames: tuple[Frame, ...]
    complete: bool


@dataclass(frozen=True)
class Interest:
    """What a watcher wants to see; None means all. `may_enter` says what it may."""

    kinds: frozenset[str] | None
    workspace: str | None
    may_enter: Callable[[str], bool]

    def wants(self, frame: Frame) -> bool:
        """Whether the frame goes to this watcher."""
        if self.kinds is not None and frame.kind not in self.kinds:
            return False
        if self.workspace is not None and frame.home != self.workspace:
            return False
        return self.may_enter(frame.home)


def bookmark(version: int) -> bytes:
    """Says: all that you may see up to this version was sent."""
    return b"id: %d\nevent: BOOKMARK\ndata: %s\n\n" % (
        version,
        encode({"version": version, "type": "BOOKMARK"}),
    )


def read_batch(store: Store, after: int) -> Batch:
    """The next changes. Raises Expired.

    The `id` of an event is a position that loses nothing when a client comes back with it: as long as more changes
    of the same commit follow, it is the version before.
    """
    with store.read() as tx:
        changes = tx.changes(after, limit=_BATCH)
        complete = len(changes) < _BATCH
        version = tx.version if complete else changes[-1].version
    frames = []
    for change, following in itertools.zip_longest(changes, changes[1:]):
        last = following is None or following.version != change.version
        payload = encode({"version": change.version, "type": change.type, "object": change.object})
        safe = change.version if last else change.version - 1
        data = b"id: %d\nevent: %s\ndata: %s\n\n" % (safe, change.type.encode(), payload)
        home = change.name if change.kind == "Workspace" else change.workspace
        frames.append(Frame(change.version, change.kind, home, data))
    return Batch(version, tuple(frames), complete)


class _Mailbox:
    """What waits for one watcher. Touched by the event loop's thread only."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._news = asyncio.Event()
        self.lost = False
        """It was full: what it missed is in the store."""
        self.closed = False

    def offer(self, batch: Batch) -> None:
        if len(self._batches) >= _QUEUE:
            self.lose()
        if not self.lost:
            self._batches.append(batch)
        self._news.set()

    def lose(self) -> None:
        self._batches.clear()
        self.lost = True
        self._news.set()

    def close(self) -> None:
        self.closed = True
        self._news.set()

    async def take(self, timeout: float) -> Batch | None:
        """The next batch, or None after `timeout` seconds or when there is something else to see to."""
        if not self._batches:
            self._news.clear()
            if not (self.closed or self.lost):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._news.wait()
        return self._batches.popleft() if self._batches else None


class WatchHub:
    """Start it on the event loop that serves the requests."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mailboxes: set[_Mailbox] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def watchers(self) -> int:
        """How many watch at present."""
        return len(self._mailboxes)

    @property
    def closed(self) -> bool:
        """Whether it takes no more watchers."""
        return self._stopping.is_set()

    async def start(self) -> None:
        """Begins to wait for commits."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="podium-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends every watch, from any thread; the clients come back to whoever serves then."""
        self._stopping.set()
        self._on_loop(self._close_mailboxes)

    async def stop(self) -> None:
        """`close`, and waits for the thread."""
        self.close()
        if self._thread is not None:
            await run_in_threadpool(self._thread.join, 5)

    async def frames(
        self, interest: Interest, first: Batch, *, heartbeat: float, still_allowed: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """Server-sent events from `first` on, until the client leaves, the hub closes or the token ends.

        heartbeat: seconds between two signs of life; as often, `still_allowed` is asked in a thread.
        """
        mailbox = _Mailbox()
        self._mailboxes.add(mailbox)
        try:
            yield _render(first, interest, -1)
            position, catching_up, checked = first.version, True, time.monotonic()
            while not (mailbox.closed or self._stopping.is_set()):
                if catching_up or mailbox.lost:
                    # Also once at the start: commits between `first` and the mailbox are in the store only.
                    mailbox.lost = False
                    batch: Batch | None = await run_in_threadpool(read_batch, self._store, position)
                    catching_up = batch is not None and not batch.complete
                else:
                    batch = await mailbox.take(heartbeat)
                    if batch is None and not mailbox.lost:
                        yield bookmark(position)
                if batch is not None and batch.version > position:
                    yield _render(batch, interest, position)
                    position = batch.version
                if time.monotonic() - checked >= heartbeat:
                    checked = time.monotonic()
                    if not await run_in_threadpool(still_allowed):
                        return
        except PodiumError as error:
            # The status is out already: the client comes back, and is told then.
            _log.warning("a watch ended: %s", error)
        finally:
            self._mailboxes.discard(mailbox)

    def _run(self) -> None:
        position = -1
        while not self._stopping.is_set():
            try:
                if position < 0:
                    position = self._store.current_version()
                    # What was committed before is not published any more: everybody reads up to here by himself.
                    self._on_loop(self._lose)
                version = self._store.wait_for_version(position, _STOP_LOOK)
                if version <= position:
                    continue
                if not self._mailboxes:
                    # Whoever comes now reads from the store first, and sees at least this version there.
                    position = version
                    continue
                batch = read_batch(self._store, position)
                self._on_loop(self._publish, batch)
                position = batch.version
            except PodiumError as error:
                # Expired cannot last (a position from the clock follows), nor may a database that is away end this.
                _log.warning("commits cannot be read for the watches: %s", error)
                position = -1
                self._stopping.wait(0.5)

    def _on_loop(self, function: Callable[..., None], *arguments: Batch) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                self._loop.call_soon_threadsafe(function, *arguments)

    def _publish(self, batch: Batch) -> None:
        for mailbox in self._mailboxes:
            mailbox.offer(batch)

    def _lose(self) -> None:
        for mailbox in self._mailboxes:
            mailbox.lose()

    def _close_mailboxes(self) -> None:
        for mailbox in self._mailboxes:
            mailbox.close()


def _render(batch: Batch, interest: Interest, position: int) -> bytes:
    """What this watcher sees of the batch, and then the bookmark that says so."""
    seen = [frame.data for frame in batch.frames if frame.version > position and interest.wants(frame)]
    return b"".join([*seen, bookmark(batch.version)])
