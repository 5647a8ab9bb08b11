"""What is going on, on stderr: a bar or a spinner on a terminal once something takes longer than a second, else plain
lines. Nothing where the output is for a program (`-o json`) and nobody watches.

Called by up, down, push, pull, import and --wait.
"""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from podium.cli.display import clean, console, wants_colour

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE = 1.0
"""Seconds that something may take before it is shown."""


class Activity:
    """A context manager around something that takes a while. Not thread-safe; `say` and `advance` are cheap."""

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self._title = title
        self._quiet = quiet
        self._live = wants_colour(sys.stderr)
        self._started = time.monotonic()
        self._said = ""
        self._at = (0, 0)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._shown = 0.0

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, words: str) -> None:
        """What is being done now. On a terminal it replaces what was said before, elsewhere it is a line."""
        words = clean(words)
        if words == self._said:
            return
        self._said = words
        if self._quiet:
            return
        if self._live:
            self._show()
        else:
            print(f"{self._title}: {words}", file=sys.stderr, flush=True)

    def advance(self, done: int, total: int) -> None:
        """So many bytes of so many. Shown as a bar on a terminal only."""
        self._at = (done, total)
        if self._live and not self._quiet:
            self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._started < PATIENCE or now - self._shown < 0.05:
            return
        self._shown = now
        if self._progress is None:
            self._progress = _bar()
            self._progress.start()
            self._task = self._progress.add_task(self._title, total=None)
        if self._task is not None:
            done, total = self._at
            text = f"{self._title}: {self._said}" if self._said else self._title
            self._progress.update(self._task, description=text, completed=done, total=total or None)


def _bar() -> "Progress":
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        console=console(sys.stderr),
        transient=True,
    )
