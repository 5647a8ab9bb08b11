"""Tells when processes have ended: one thread watches any number of them.

Called by `spawn` (to reap children) and `targets` (to wake the reconciler at once). Calls pidfds through a
selector; where the kernel has none, it looks at each process every 200 ms.
"""

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable

from podium.processes.identity import ProcessIdentity, is_alive, open_pidfd

log = logging.getLogger(__name__)

Callback = Callable[[ProcessIdentity], None]
_HAS_PIDFD = hasattr(os, "pidfd_open") and hasattr(select, "epoll")
_POLL_SECONDS = 0.2


class ExitWatcher:
    """Watches processes and calls back, once per watch, in its own thread, when one has ended.

    The thread is a daemon and starts with the first watch. A callback should be short; what it raises is
    logged and harms no other watch. `close` ends the thread; watches that are still open are dropped without
    a call.
    """

    def __init__(self, name: str = "exits") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._watched: dict[int, tuple[ProcessIdentity, Callback]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if _HAS_PIDFD else (-1, -1)
        self._epoll = select.epoll() if _HAS_PIDFD else None
        if self._epoll is not None:
            self._epoll.register(self._wake_read, select.EPOLLIN)
        self._serial = 0

    def watch(self, identity: ProcessIdentity, callback: Callback) -> None:
        """Call `callback(identity)` when the process has ended; soon, if it already has."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the watcher is closed")
            key = self._register(identity)
            if key is not None:
                self._watched[key] = (identity, callback)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        if key is None:
            self._call(identity, callback)

    def close(self) -> None:
        """Stop watching and end the thread. May be called more than once, also from a callback."""
        with self._lock:
            if self._closed:
                return
            if self._epoll is not None:
                # Before it counts as closed: the thread gives the descriptors back as soon as it sees that.
                os.write(self._wake_write, b"x")
            self._closed = True
            thread = self._thread
        if thread is None:
            self._release()
        elif thread is not threading.current_thread():
            thread.join()

    def _register(self, identity: ProcessIdentity) -> int | None:
        """A key for the watch: the pidfd, or a running number without pidfds. None: the process is gone."""
        if self._epoll is None:
            self._serial += 1
            return self._serial
        handle = open_pidfd(identity)
        if handle is not None:
            self._epoll.register(handle, select.EPOLLIN)
        return handle

    def _run(self) -> None:
        while not self._closed:
            for key in self._ended():
                with self._lock:
                    entry = self._watched.pop(key, None)
                if self._epoll is not None:
                    self._epoll.unregister(key)
                    os.close(key)
                if entry is not None:
                    self._call(*entry)
        self._release()

    def _ended(self) -> list[int]:
        if self._epoll is not None:
            return [key for key, _ in self._epoll.poll() if key != self._wake_read]
        time.sleep(_POLL_SECONDS)
        with self._lock:
            watched = list(self._watched.items())
        return [key for key, (identity, _) in watched if not is_alive(identity)]

    def _call(self, identity: ProcessIdentity, callback: Callback) -> None:
        try:
            callback(identity)
        except Exception:
            log.exception("the callback for the end of process %d failed", identity.pid)

    def _release(self) -> None:
        with self._lock:
            left, self._watched = list(self._watched), {}
        if self._epoll is not None:
            for key in left:
                with contextlib.suppress(OSError):
                    os.close(key)
            self._epoll.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._epoll = None
