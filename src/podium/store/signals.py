"""Who waits for a commit or for work is woken at once in this process, by a cheap poll of the clock for other servers.

Called by `store`; calls nothing.
"""

import threading
import time
from collections.abc import Callable

POLL_SECONDS = 0.1


class Signals:
    """Two counters that threads can wait on: the newest version known, and how often work was woken.

    `read_clock` is polled by one of the waiters at a time, and only where `shared` says that others may write.
    """

    def __init__(self, read_clock: Callable[[], int], *, shared: bool) -> None:
        self._read_clock = read_clock
        self._shared = shared
        self._condition = threading.Condition()
        self._version = 0
        self._wakes = 0
        self._polled_at = 0.0
        self._claimed = threading.local()

    def committed(self, version: int, *, woke: bool) -> None:
        """After a commit: `version` is readable now."""
        with self._condition:
            self._version = max(self._version, version)
            self._wakes += woke
            self._condition.notify_all()

    def woke(self) -> None:
        """Rows became due without a new version."""
        with self._condition:
            self._wakes += 1
            self._condition.notify_all()

    def claiming(self) -> None:
        """This thread is about to look for due rows: wakes up to here are no news to it."""
        with self._condition:
            self._claimed.wakes = self._wakes

    def wait_for_version(self, after: int, timeout: float) -> int:
        """The newest version, as soon as it is above `after`, or when `timeout` seconds have passed."""
        self._poll()
        deadline = time.monotonic() + timeout
        while True:
            with self._condition:
                if self._wait(lambda: self._version > after, deadline):
                    return self._version
            self._poll()

    def wait_for_work(self, timeout: float) -> None:
        """Returns when work was woken since this thread last claimed, at the latest after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._condition:
            seen = getattr(self._claimed, "wakes", self._wakes)
        while True:
            with self._condition:
                if self._wait(lambda: self._wakes > seen, deadline):
                    return
            self._poll()

    def _wait(self, done: Callable[[], bool], deadline: float) -> bool:
        """True when it is over; False when it is this thread's turn to poll."""
        while not done():
            now = time.monotonic()
            if now >= deadline:
                return True
            pause = deadline - now
            if self._shared:
                due = self._polled_at + POLL_SECONDS
                if now >= due:
                    self._polled_at = now
                    return False
                pause = min(pause, due - now)
            self._condition.wait(pause)
        return True

    def _poll(self) -> None:
        # Another server's commit may have woken rows: whoever waits for work looks again.
        version = self._read_clock()
        with self._condition:
            if version > self._version:
                self._version = version
                self._wakes += self._shared
                self._condition.notify_all()
