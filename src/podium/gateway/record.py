"""The file of the access record: private, bounded, and there when Envoy opens it.

Used by `agent`, before each start of Envoy and then every second or so; calls `admin`. Envoy appends and never looks at
the file's name again: it goes on in a file that was renamed until it is told to open the name anew. So a full file is
put aside by renaming it, and no line is lost. A file that somebody else has renamed or removed is begun anew as well.
Where a full one cannot be put aside, it goes on to what all of them together may take, and is emptied there.

Nothing here keeps a gateway from its work. What cannot be done is a `problem`, and is tried again; Envoy drops the
lines that it cannot write, and counts them.
"""

import contextlib
import fcntl
import itertools
import logging
import os
import re
import stat
import time
from pathlib import Path

from podium.gateway.admin import Admin
from podium.gateway.settings import AccessRecord, GatewaySettings
from podium.resources.errors import Unavailable

log = logging.getLogger(__name__)

_LOST = "filesystem.write_failed"
_LOST_EVERY = 10.0
"""Seconds between looks at Envoy's counter of what it could not write."""
_AGAIN_AFTER = 5.0
"""Seconds before a file that could not be had, or put aside, is tried again."""
_SHARED = 0o640
"""Bits of a file's mode that the next one takes over, so that a group that was let in by hand stays in."""


class Record:
    """One gateway's. `hold` before Envoy starts, `tend` while it runs, `close` at the end."""

    def __init__(self, settings: GatewaySettings, admin: Admin) -> None:
        self._rules: AccessRecord | None = settings.record
        self._place: Path | None = settings.record_file
        self._admin = admin
        self._file: int | None = None
        # Whoever was here before may have renamed the file, and ended before it could say so.
        self._reopen = True
        self._next_try = 0.0
        self._next_turn = 0.0
        self._next_look = 0.0
        self._failed: int | None = None
        self._problems = {"file": "", "full": "", "whole": "", "lost": ""}

    @property
    def problem(self) -> str:
        """What is wrong, in words; empty if nothing is."""
        return "; ".join(words for words in self._problems.values() if words)

    @property
    def held(self) -> bool:
        """There is a file for Envoy, and no other gateway has it."""
        return self._file is not None

    def hold(self) -> bool:
        """See to it that the file is there, as ours; False if there is to be none, or `problem` says why not."""
        if self._place is None:
            return False
        try:
            if self._file is None or not _is_same(self._file, self._place):
                self._begin(_opened(self._place))
        except OSError as error:
            self._let_go()
            self._next_try = time.monotonic() + _AGAIN_AFTER
            self._say("file", f"no access record: {self._place}: {error.strerror or error}")
        else:
            self._problems["file"] = ""
        return self.held

    async def tend(self) -> None:
        """Put a full file aside, begin one that has gone, tell Envoy, and look whether lines were lost."""
        if self._place is None or self._rules is None:
            return
        if (self.held or time.monotonic() >= self._next_try) and self.hold():
            self._rotate(self._place, self._rules)
        if not self.held:
            return
        with contextlib.suppress(Unavailable):  # Envoy starts, or hangs: the same again next time
            if self._reopen:
                await self._admin.reopen_logs()
                self._reopen = False
            if time.monotonic() >= self._next_look:
                await self._look()
                self._next_look = time.monotonic() + _LOST_EVERY

    def close(self) -> None:
        """Let another agent have the file. Envoy goes on writing."""
        self._let_go()

    def _rotate(self, place: Path, rules: AccessRecord) -> None:
        if self._file is None:
            return
        # After a failure also one that is not full: so it is known when there is nothing in the way any more.
        if os.fstat(self._file).st_size < rules.size and not self._problems["full"]:
            return
        most = rules.size * (rules.kept + 1)
        if time.monotonic() >= self._next_turn:
            try:
                self._begin(_turned(place, self._file, rules.kept))
            except OSError as error:
                self._next_turn = time.monotonic() + _AGAIN_AFTER
                self._say(
                    "full",
                    f"the access record {place} is not put aside: {error.strerror or error}; until it can be, it is "
                    f"emptied at {most} bytes",
                )
        if self._problems["full"]:
            self._keep_bounded(self._file, most)

    def _keep_bounded(self, file: int, most: int) -> None:
        """Empty a file that cannot be put aside. Envoy only ever appends, so it goes on at the beginning."""
        if os.fstat(file).st_size < most:
            return
        try:
            os.ftruncate(file, 0)
        except OSError as error:
            # One that may only be appended to, say: whoever has seen to that has to see to its size.
            self._say("whole", f"the access record cannot be emptied either: {error.strerror or error}")
        else:
            self._problems["whole"] = ""
            log.error("the access record was emptied at %d bytes: it could not be put aside", most)

    def _begin(self, fresh: int) -> None:
        """Envoy is to go on in this file."""
        self._let_go()
        self._file, self._reopen, self._next_turn = fresh, True, 0.0
        self._problems["full"] = self._problems["whole"] = ""

    def _say(self, which: str, words: str) -> None:
        """A problem is logged when it comes, and not with each try."""
        if words and self._problems[which] != words:
            log.error("%s", words)
        self._problems[which] = words

    async def _look(self) -> None:
        """Envoy counts from zero after each start."""
        found = await self._admin.statistics(f"^{re.escape(_LOST)}$")
        failed = sum(int(one["value"]) for one in found if one.get("name") == _LOST)
        before, self._failed = self._failed, failed
        lost = failed > 0 if before is None else failed > before
        words = "lines of the access record are lost: Envoy cannot write them (a full disk?)"
        self._say("lost", words if lost else "")

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _opened(path: Path, mode: int = 0o600) -> int:
    """The file, made if it is not there, and locked for this gateway. Raises OSError: also where it is no plain file
    of this user's, which Envoy would hang at or write into for somebody else."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags, 0o600)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise OSError("not a plain file of this user")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError("another gateway writes there") from None
        if found.st_size == 0:
            os.fchmod(handle, mode)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _turned(place: Path, file: int, kept: int) -> int:
    """A new file at the place of this one, which is put aside. Raises OSError; then there is none, and most often
    nothing has changed."""
    scratch = place.with_name(f".{place.name}.new")
    scratch.unlink(missing_ok=True)
    fresh = _opened(scratch, mode=stat.S_IMODE(os.fstat(file).st_mode) & _SHARED)
    try:
        _put_aside(place, kept)
        scratch.replace(place)
    except OSError:
        os.close(fresh)
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise
    return fresh


def _is_same(handle: int, path: Path) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _put_aside(path: Path, kept: int) -> None:
    """`path` becomes `path.1`, `path.1` becomes `path.2`, and so on as far as they follow each other; what is moved to
    `path.kept` takes its place. Every other file stays, whatever its number: it may be anybody's. Raises OSError: also
    where one of these is no plain file of this user's, before anything has moved."""
    places = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, kept + 1))]
    there = list(itertools.takewhile(os.path.lexists, places))
    for one in there:
        found = one.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise OSError(f"{one} is not a plain file of this user")
    for one, following in reversed(list(zip(there, places[1:], strict=False))):
        one.replace(following)
