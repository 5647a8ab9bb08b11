"""Ends a process whose model hangs, or whose model thread has died, so that another one is started in its place.

Started by `server`. A thread of its own, because a model that hangs in a call from the event loop stops that too.
Looks at `calling.Caller.entered` only: loading and warming up may take as long as they like.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable

from podium_runtime.calling import Caller
from podium_runtime.logs import frames

EXIT_CODE = 5
GOODBYE_SECONDS = 0.5
"""Between the failing of readiness and the end of the process, for the answers that can still be given."""

log = logging.getLogger(__name__)


class Watchdog:
    """Watches one caller. `on_hang` is called once, GOODBYE_SECONDS before the end, from any thread but the loop's."""

    def __init__(self, caller: Caller, limit: float, on_hang: Callable[[], object]) -> None:
        self._caller = caller
        self._limit = limit
        """Seconds that one call may take."""
        self._on_hang = on_hang
        self._stopped = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop watching. A drain has a limit of its own."""
        self._stopped.set()

    def thread_died(self, error: BaseException) -> None:
        """End the process, because the model's thread ends by an error of ours; called by that thread."""
        extra = {"exception": type(error).__name__, "frames": frames(error.__traceback__)}
        log.critical("the model's thread has died; the process ends", extra=extra)
        self._end(f"the model's thread has died: {type(error).__name__}")

    def _watch(self) -> None:
        tick = min(1.0, self._limit / 4)
        call, spent, last = 0.0, 0.0, time.monotonic()
        while not self._stopped.wait(tick):
            now, entered = time.monotonic(), self._caller.entered
            # What was seen is added up, a tick at a time: a process that was stopped for an hour, or a machine that
            # slept, was not in the model for an hour.
            passed = min(now - last, 2 * tick)
            last = now
            if not entered:
                spent = 0.0
            elif entered != call:
                spent = min(now - entered, passed)
            else:
                spent += passed
            call = entered
            if entered and spent > self._limit:
                extra = {"seconds": round(spent, 3), "limit_seconds": self._limit}
                log.error("the model hangs; the process ends", extra=extra)
                self._end(
                    f"the model was in one call for more than {self._limit:g} seconds (watchdogSeconds)"
                )

    def _end(self, words: str) -> None:
        self._on_hang()
        time.sleep(GOODBYE_SECONDS)
        print(f"podium-runtime: {words}", file=sys.stderr, flush=True)  # noqa: T201 - the last words, as in __main__
        os._exit(EXIT_CODE)
