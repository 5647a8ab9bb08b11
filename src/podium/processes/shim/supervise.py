"""The shim's one loop: start the replica, pass on its output, watch its memory, stop it, say how it ended.

Called by `__main__`. One thread: the replica is to die with the thread that forked it. What it knows stands in
state.json; what it is asked comes as SIGTERM, with the grace in stop.json. Calls `confine`, `dormancy`, `family`,
`rotation` and `state`.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from . import confine, family, state
from .dormancy import LOOK_SECONDS, Dormancy
from .rotation import RotatingLog

# Ends of the shim itself; a server that started it twice learns nothing from them that it needs.
ALREADY_RUNS, ALREADY_ENDED, BAD_SPEC = 75, 76, 78
BACKLOG = 4096
_LISTENER = 3
_CHECK_SECONDS, _CLOSE_CHECK_SECONDS = 1.0, 0.1
_MIB = 2**20


def main(argv: list[str]) -> int:
    """Run the replica that the spec describes, to its end. One folder is run once in its life."""
    os.umask(0o077)
    spec_path = Path(argv[1])
    folder = spec_path.parent
    lock = _lock(folder)
    if lock is None:
        return ALREADY_RUNS
    if (folder / "state.json").exists():
        return ALREADY_ENDED
    try:
        spec = json.loads(spec_path.read_bytes())
        supervisor = Supervisor(folder, spec)
    except (OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"{spec_path}: {_words(error)}\n")
        return BAD_SPEC
    supervisor.run()
    return 0


def _lock(folder: Path) -> int | None:
    """Take the folder's lock for the rest of this process' life; None if another shim has it or the folder is gone."""
    path = folder / "lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The folder may have been removed, and even made anew, between the two calls.
        if os.path.samestat(os.fstat(handle), path.stat()):
            return handle
    except (FileNotFoundError, BlockingIOError):
        pass
    return None


class Supervisor:
    """One replica, from before its start to after its end."""

    def __init__(self, folder: Path, spec: dict[str, Any]) -> None:
        self._folder = folder
        self._spec = spec
        log = spec["log"]
        self._log = RotatingLog(folder / "log", log["maxBytes"], log["keep"])
        self._state: dict[str, Any] = {
            "phase": "starting", "shim": state.shim_identity(), "startedAt": state.now(),
            "pid": None, "woken": False, "sandbox": None, "exit": None, "logTail": [],
        }  # fmt: skip
        self._child: int | None = None
        self._code: int | None = None
        self._why: str | None = None
        self._why_stopped = ""
        self._stop_wanted = False
        self._kill_at: float | None = None
        self._next_check = 0.0
        self._dormancy: Dormancy | None = None
        self._stop_later = False
        self._unsaved = False
        self._captured = b""
        self._sources: dict[int, str] = {}
        self._poll = select.poll()

    def run(self) -> None:
        """Everything; whatever goes wrong stands in the state at the end."""
        try:
            self._catch_signals()
            family.become_subreaper()
            if self._spec.get("dormant") is None:
                state.write(self._folder, self._state)
            if (self._folder / "stop.json").exists():
                self._why = "stopped before it was started"
            else:
                self._run_once_or_when_asked()
        except (OSError, ValueError, KeyError, confine.Unreached) as error:
            what = "not started" if self._child is None else "given up by its shim"
            self._why = f"{what}: {_words(error)}"
        finally:
            self._finish()

    def _run_once_or_when_asked(self) -> None:
        listener = self._listen()
        if self._spec.get("dormant") is None or listener is None:
            self._start(listener)
            self._watch()
            return
        self._dormancy = Dormancy(self._spec["dormant"], self._spec["socket"], listener)
        while self._sleep(self._dormancy):
            self._dormancy.begin()
            self._start(listener)
            self._watch()
            if not self._may_try_again(self._dormancy):
                return

    # --- dormant -----------------------------------------------------------------------------------------------

    def _sleep(self, dormancy: Dormancy) -> bool:
        """Until somebody waits; True then. False: asked to stop, and nobody waits."""
        if not dormancy.somebody_waits():
            dormancy.rest()
            self._state.update(phase="dormant", pid=None)
            self._save()
            self._poll.register(dormancy.listener, select.POLLIN)
            while not (self._stop_wanted or dormancy.somebody_waits()):
                for handle, _ in self._poll.poll():
                    if handle != dormancy.listener:
                        self._read(handle)
            self._poll.unregister(dormancy.listener)
        if dormancy.somebody_waits():
            # Also where it was asked to stop: they came first, and are answered before it goes.
            if self._state["phase"] != "waking":
                self._state.update(phase="waking", startedAt=state.now(), woken=True)
            return True
        self._why = "stopped before a request woke it"
        return False

    def _look_at_queue(self, dormancy: Dormancy, now: float) -> None:
        """While it starts: has the program taken those who wait?"""
        if dormancy.look(now):
            self._state["phase"] = "running"
            self._save()
        elif dormancy.is_late(now):
            self._end(dormancy.late_words)
        if self._stop_later and not dormancy.somebody_waits():
            self._stop_later = False
            dormancy.release()
            self._stop()

    def _may_try_again(self, dormancy: Dormancy) -> bool:
        """The program has ended. If that was while it started, the next one takes over who waits."""
        if self._why is not None or self._kill_at is not None or not dormancy.is_held:
            return False
        words = f"{dormancy.count} for requests that wait: {_in_words(self._code, stopped=False)}"
        if not dormancy.may_try_again(self._code):
            self._why = words
            return False
        self._log.say("warning", words)
        self._end_family()
        self._child = self._code = None
        resume_at = time.monotonic() + dormancy.pause
        while not self._stop_wanted and (left := resume_at - time.monotonic()) > 0:
            for handle, _ in self._poll.poll(int(1000 * left) + 1):
                self._read(handle)
        return True

    # --- start -------------------------------------------------------------------------------------------------

    def _start(self, listener: int | None) -> None:
        log_read, log_write = os.pipe()
        out_read, out_write = os.pipe() if self._spec["captureStdout"] else (log_read, log_write)
        report_read, report_write = os.pipe()
        shim = os.getpid()
        every = signal.valid_signals()
        # A signal between fork and the reset of its handlers would be swallowed in the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, every)
        child = os.fork()
        if child == 0:
            self._become(shim, {0: None, 1: out_write, 2: log_write, _LISTENER: listener}, report_write)
        self._child = child
        signal.pthread_sigmask(signal.SIG_UNBLOCK, every)
        for handle in {log_write, out_write, report_write}:
            os.close(handle)
        if listener is not None and self._dormancy is None:
            # Kept here, connections would wait for ever in the queue of a replica that is dead.
            os.close(listener)
        self._read_report(report_read)
        self._listen_to(log_read, "log")
        if out_read != log_read:
            self._listen_to(out_read, "stdout")
        self._state.update(phase="running" if self._dormancy is None else "waking", pid=child)
        if self._dormancy is None:
            state.write(self._folder, self._state)
        else:
            # Requests wait: a disk that is full is no reason to turn them away.
            self._save()

    def _listen(self) -> int | None:
        path = self._spec["socket"]
        if path is None:
            return None
        Path(path).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        Path(path).chmod(0o600)
        listener.listen(BACKLOG)
        return listener.detach()

    def _become(self, shim: int, descriptors: dict[int, int | None], report: int) -> None:
        """In the child: shut in, then the program. Never returns."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (
                signal.SIGTERM,
                signal.SIGINT,
                signal.SIGHUP,
                signal.SIGCHLD,
                signal.SIGPIPE,
                signal.SIGXFSZ,
            ):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.chdir(self._spec["cwd"])
            report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, 10)
            _place(descriptors)
            confine.limit(self._spec["limits"])
            env = {**self._spec["env"], state.TOKEN_VARIABLE: self._state["shim"]["token"]}
            reached = confine.confine(self._spec["box"], lambda: confine.die_with(shim))
            os.write(report, json.dumps({"sandbox": reached.document()}).encode() + b"\n")
            os.execve(self._spec["argv"][0], self._spec["argv"], env)  # noqa: S606 - no shell, on purpose
        except BaseException as error:
            os.write(report, json.dumps({"error": _words(error)}).encode() + b"\n")
        finally:
            os._exit(126)

    def _read_report(self, report: int) -> None:
        """What the child said before it became the program; the pipe closes with exec."""
        with os.fdopen(report, "rb") as lines:
            for line in lines:
                said = json.loads(line)
                if "sandbox" in said:
                    self._state["sandbox"] = said["sandbox"]
                else:
                    self._child = None
                    raise confine.Unreached(said["error"])

    # --- watch -------------------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._want_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._listen_to(wake_read, "wake")

    def _want_stop(self, *_: object) -> None:
        self._stop_wanted = True

    def _listen_to(self, handle: int, what: str) -> None:
        os.set_blocking(handle, False)
        self._sources[handle] = what
        self._poll.register(handle, select.POLLIN)

    def _watch(self) -> None:
        """Until the program has ended."""
        started = time.monotonic()
        give_up_at = started + self._spec["timeout"] if self._spec["timeout"] else None
        while not self._has_ended():
            now = time.monotonic()
            look_at = now + LOOK_SECONDS if self._dormancy is not None and self._dormancy.is_held else None
            wake_at = min(
                at for at in (self._next_check, self._kill_at, give_up_at, look_at) if at is not None
            )
            for handle, _ in self._poll.poll(max(0, int(1000 * (wake_at - now)) + 1)):
                self._read(handle)
            if self._stop_wanted:
                self._stop_wanted = False
                self._stop()
            self._collect()
            if not self._has_ended():
                self._keep_limits(time.monotonic(), give_up_at)

    def _has_ended(self) -> bool:
        return self._code is not None

    def _keep_limits(self, now: float, give_up_at: float | None) -> None:
        if self._kill_at is not None and now >= self._kill_at:
            self._end("did not end within its grace after SIGTERM and was killed")
        elif give_up_at is not None and now >= give_up_at:
            self._end(f"ended by Podium: no result within {self._spec['timeout']:g} s")
        elif self._dormancy is not None and self._dormancy.is_held:
            self._look_at_queue(self._dormancy, now)
        if not self._has_ended() and now >= self._next_check:
            self._check_memory(now)

    def _read(self, handle: int, most: int = 65536) -> bool:
        """Take what is there. False: nothing more."""
        try:
            chunk = os.read(handle, most)
        except BlockingIOError:
            return False
        if not chunk:
            self._poll.unregister(handle)
            del self._sources[handle]
            os.close(handle)
            return False
        if self._sources[handle] == "log":
            self._log.write(chunk)
        elif self._sources[handle] == "stdout":
            self._captured = (self._captured + chunk)[: self._spec["captureStdout"]]
        return True

    def _collect(self) -> None:
        for pid, code in family.reap():
            if pid == self._child:
                self._code = code

    def _check_memory(self, now: float) -> None:
        limit = self._spec["limits"]["memory"]
        if self._unsaved:
            self._save()
        used = family.resident_data()
        if used > limit:
            amounts = (
                f"{used / _MIB:.0f} MiB of resident data, over its memory limit of {limit / _MIB:.0f} MiB"
            )
            self._end(f"ended by Podium: {amounts}")
        self._next_check = now + (_CLOSE_CHECK_SECONDS if used > 0.7 * limit else _CHECK_SECONDS)

    # --- stop --------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Pass SIGTERM on; the grace is the one asked for last, and it never grows."""
        assert self._child is not None  # noqa: S101 - signals are looked at while a child is watched only
        grace = float(self._spec["grace"])
        with contextlib.suppress(FileNotFoundError):
            asked = json.loads((self._folder / "stop.json").read_bytes())
            grace, self._why_stopped = float(asked["grace"]), asked["why"]
        kill_at = time.monotonic() + grace
        self._kill_at = kill_at if self._kill_at is None else min(kill_at, self._kill_at)
        if self._dormancy is not None and self._dormancy.is_held:
            # Requests wait for it: it is told when it has taken them, and answers them while it drains.
            self._stop_later = True
            return
        if self._state["phase"] != "stopping":
            self._state["phase"] = "stopping"
            self._save()
        os.kill(self._child, signal.SIGTERM)

    def _end(self, why: str) -> None:
        """SIGKILL the replica and wait for it: it is this process' child, so the pid is surely its own."""
        assert self._child is not None  # noqa: S101 - called while a child is watched only
        self._why = why
        self._log.say("error", why)
        os.kill(self._child, signal.SIGKILL)
        while self._code is None:
            self._poll.poll(100)
            self._collect()

    def _finish(self) -> None:
        """Nobody is left behind, the last words are kept, and the state says how it ended."""
        signal.set_wakeup_fd(-1)
        if self._dormancy is not None:
            self._dormancy.release()
        self._end_family()
        if self._spec["socket"] is not None:
            Path(self._spec["socket"]).unlink(missing_ok=True)
        why = (
            self._why_stopped
            or self._why
            or _in_words(self._code, stopped=self._state["phase"] == "stopping")
        )
        self._state.update(
            phase="exited",
            exit={"code": self._code, "reason": why, "at": state.now()},
            logTail=self._log.tail(),
        )
        if self._spec["captureStdout"]:
            (self._folder / "stdout").write_bytes(self._captured)
        deadline = time.monotonic() + 30.0
        while not self._save() and time.monotonic() < deadline:
            time.sleep(0.5)

    def _end_family(self) -> None:
        """End whoever the replica left, and take its last words."""
        if not family.kill_all(10.0):
            self._log.say("error", "processes that the replica started could not be ended")
        for handle in [handle for handle, what in self._sources.items() if what != "wake"]:
            while self._read(handle):
                pass

    def _save(self) -> bool:
        """False on a full disk: the replica goes on all the same."""
        try:
            state.write(self._folder, self._state)
        except OSError as error:
            if not self._unsaved:
                self._log.say("warning", f"the state could not be written: {error}")
            self._unsaved = True
            return False
        self._unsaved = False
        return True


def _place(descriptors: dict[int, int | None]) -> None:
    """Put descriptors at their numbers. First all of them out of the way: a source may stand where another goes."""
    sources: dict[int, int] = {}
    for number, handle in descriptors.items():
        if number == 0:
            handle = os.open(os.devnull, os.O_RDONLY)  # noqa: PLW2901 - standard input has no source of its own
        if handle is not None:
            sources[number] = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 10)
    for number, handle in sources.items():
        os.dup2(handle, number)


def _words(error: BaseException) -> str:
    """An error as a person reads it: without numbers, with the file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) if isinstance(error, confine.Unreached) else f"{type(error).__name__}: {error}"


def _in_words(code: int | None, *, stopped: bool) -> str:
    if code is None:
        return "given up by its shim"
    if stopped and code in (0, -signal.SIGTERM):
        return "stopped"
    if code == -signal.SIGKILL:
        return "killed by SIGKILL from outside; without a person's doing, the machine ran out of memory"
    if code < 0:
        return f"ended by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"


if __name__ == "__main__":
    sys.exit("run the folder of this file, not the file")
