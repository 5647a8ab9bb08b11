"""Starts a process that outlives this one.

Called by `targets` (a replica's shim) and `gateway` (Envoy). Calls `identity`, and `exits` to reap what ends
while this process still runs; what ends later is reaped by whoever inherits it.
"""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from podium.processes.exits import ExitWatcher
from podium.processes.identity import TOKEN_VARIABLE, ProcessIdentity, identify, new_token
from podium.resources.errors import Unavailable

_children: dict[ProcessIdentity, subprocess.Popen[bytes]] = {}
_reaper: ExitWatcher | None = None
_lock = threading.Lock()


def spawn_detached(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    log: Path,
    token: str | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> ProcessIdentity:
    """Start `argv` in a session of its own, so that it lives on when this process ends or its terminal
    closes.

    `env` is the whole environment (nothing is inherited) but for the token's variable, which is added.
    Standard output and error are appended to `log` (made with mode 0600), standard input is /dev/null;
    `pass_fds` stay open under their numbers. It leaves no zombie. Raises OSError when the program cannot be
    started (FileNotFoundError, PermissionError), and Unavailable when it ended before it could be identified;
    the message names the log.
    """
    token = token or new_token()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            [os.fspath(part) for part in argv],
            env={**env, TOKEN_VARIABLE: token},
            cwd=cwd or "/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    finally:
        os.close(output)
    # Popen returns when exec closes its pipe; the new environment can be read a moment later.
    while (identity := identify(child.pid, token)) is None:
        if (code := child.poll()) is not None:
            raise Unavailable(f"{argv[0]} ended at once with code {code}; its words are in {log}")
        time.sleep(0.0005)
    _reap_later(identity, child)
    return identity


def _reap_later(identity: ProcessIdentity, child: subprocess.Popen[bytes]) -> None:
    global _reaper  # noqa: PLW0603 - one thread for the whole process, started with the first child
    with _lock:
        _children[identity] = child
        if _reaper is None:
            _reaper = ExitWatcher("reaper")
    _reaper.watch(identity, _reap)


def _reap(identity: ProcessIdentity) -> None:
    with _lock:
        child = _children.pop(identity, None)
    if child is not None:
        child.wait()
