"""A replica that sleeps: its socket is listened on, and its program starts when somebody connects.

Called by `supervise`. Nothing is accepted here: connections wait in the kernel's queue, with all that was written into
them, until the program takes them from there. The queue is kept (by a descriptor of this process) until it does and a
moment longer, so that a program that dies while it starts loses nobody who waits.

Whether the program accepts is seen in two ways: the queue is empty (a listening socket can be read as long as it is
not), or a question that was put into the queue behind those who woke it has been answered.
"""

import os
import select
import socket
import time
from typing import Any

LOOK_SECONDS = 0.05
"""How often the queue is looked at while the program starts."""
_PAUSE_SECONDS = 0.5
_YOUNG_SECONDS = 1.0
"""So long after its first accepted connection a program that dies is still one that died while it started."""


class Dormancy:
    """`listener` until the program accepts. `spec`: {attempts, startTimeout (seconds), final (exit codes), question (a
    request that a program of this kind answers)}."""

    def __init__(self, spec: dict[str, Any], path: str, listener: int) -> None:
        self.listener = listener
        self._path = path
        self._question = spec["question"].encode()
        self._asked: socket.socket | None = None
        self._attempts = spec["attempts"]
        self._start_seconds = spec["startTimeout"]
        self._final = spec["final"]
        self._tried = 0
        self._accept_by = 0.0
        self._accepted_at: float | None = None
        self._queue = select.poll()
        self._queue.register(listener, select.POLLIN)

    @property
    def is_held(self) -> bool:
        """Is the queue kept here, so that another start can take it over?"""
        return self.listener >= 0

    @property
    def has_accepted(self) -> bool:
        """Has the program taken who waited?"""
        return self._accepted_at is not None

    @property
    def pause(self) -> float:
        """Seconds before the next start."""
        return self._tried * _PAUSE_SECONDS

    @property
    def count(self) -> str:
        """Which start this was."""
        return f"start {self._tried} of {self._attempts}"

    def somebody_waits(self) -> bool:
        """Is a connection in the queue? One whose client has gone counts too."""
        return bool(self._queue.poll(0))

    def begin(self) -> None:
        """A start for those who wait. All starts in a row share one time limit: it is those who wait that have it."""
        self._ask()
        if not self._accept_by:
            self._accept_by = time.monotonic() + self._start_seconds
        self._tried += 1
        self._accepted_at = None

    def look(self, now: float) -> bool:
        """While a program runs and the queue is held: True when it has just taken who waited."""
        if self._accepted_at is None:
            if self.somebody_waits() and not self._is_answered():
                return False
            self._accepted_at, self._accept_by = now, 0.0
            self._ask_no_more()
            return True
        if now >= self._accepted_at + _YOUNG_SECONDS and not self.somebody_waits():
            self.release()
        return False

    def rest(self) -> None:
        """Nobody waits any more."""
        self._accept_by = 0.0

    def is_late(self, now: float) -> bool:
        """Has the time to accept run out?"""
        return not self.has_accepted and now >= self._accept_by

    @property
    def late_words(self) -> str:
        return (
            f"ended by Podium: it accepted no request within its startup timeout of {self._start_seconds:g} s"
        )

    def may_try_again(self, code: int | None) -> bool:
        """After a start that ended with this code."""
        return self.is_held and self._tried < self._attempts and code not in self._final

    def release(self) -> None:
        """Let go of the queue: it is the program's alone now, or those who wait are told that nobody comes."""
        self._ask_no_more()
        if self.is_held:
            os.close(self.listener)
            self.listener = -1

    def _ask(self) -> None:
        if self._asked is not None and not self._is_answered():
            return  # still in the queue from the start before, near its head
        self._ask_no_more()
        asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        asked.setblocking(False)
        try:
            asked.connect(self._path)
            asked.send(self._question)
        except OSError:
            # The queue is full: then its becoming empty has to do.
            asked.close()
        else:
            self._asked = asked

    def _is_answered(self) -> bool:
        """Whatever it says, and also where it hangs up: it has accepted."""
        if self._asked is None:
            return False
        answered = select.poll()
        answered.register(self._asked, select.POLLIN)
        return bool(answered.poll(0))

    def _ask_no_more(self) -> None:
        if self._asked is not None:
            self._asked.close()
            self._asked = None
