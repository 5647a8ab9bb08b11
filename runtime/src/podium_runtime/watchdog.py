"""Ends a process whose model hangs, so that whoever keeps replicas running starts another one.

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

EXIT_CODE = 5
GOODBYE_SECONDS = 0.5
"""Between the failing of readiness and the end of the process, for the answers that can still be given."""

log = logging.getLogger(__name__)


class Watchdog:
    """Watches one caller. `on_hang` is called from the watching thread once, GOODBYE_SECONDS before the end."""

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

    def _watch(self) -> None:
        while not self._stopped.wait(min(1.0, self._limit / 4)):
            entered = self._caller.entered
            if entered and time.monotonic() - entered > self._limit:
                self._end(time.monotonic() - entered)

    def _end(self, seconds: float) -> None:
        extra = {"seconds": round(seconds, 3), "limit_seconds": self._limit}
        log.error("the model hangs; the process ends", extra=extra)
        self._on_hang()
        time.sleep(GOODBYE_SECONDS)
        words = f"the model was in one call for more than {self._limit:g} seconds (watchdogSeconds)"
        print(f"podium-runtime: {words}", file=sys.stderr, flush=True)  # noqa: T201 - the last words, as in __main__
        os._exit(EXIT_CODE)
