"""Starts Envoy so that it outlives the agent. Called by `envoy_process`.

With hot restart enabled, Envoy asks the kernel for SIGTERM when its parent ends (`PR_SET_PDEATHSIG`, in its
hot_restart_impl.cc): as a child of the agent it would go down with the agent, also when that is killed. So its parent
is a shell that has ended before Envoy's first instruction: from then on its parent is init, which does not end.
"""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from podium.processes import TOKEN_VARIABLE, ProcessIdentity, identify
from podium.resources.errors import Unavailable

_SHELL = "/bin/sh"
_SCRIPT = """
umask 077
( while kill -0 $$ 2>/dev/null; do :; done; exec "$@" ) 1>&2 &
echo $!
"""
"""`$$` is the outer shell also inside the parentheses. It is gone for good once it was waited for, which happens as
soon as it has told the pid. Whatever file Envoy makes is this user's alone."""
_SECONDS = 10.0


def spawn_orphan(
    argv: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str], log: Path, token: str
) -> ProcessIdentity:
    """Start `argv` in a session of its own, as nobody's child, with its output appended to `log` (mode 0600).

    `env` is the whole environment but for the token's variable, which is added. A program that cannot be started says
    so in the log. Raises Unavailable when it ended before it could be identified, OSError when there is no shell.
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        told = subprocess.run(
            [_SHELL, "-c", _SCRIPT, "sh", *(os.fspath(part) for part in argv)],
            env={**env, TOKEN_VARIABLE: token},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
            check=True,
            timeout=_SECONDS,
        ).stdout
        pid = int(told)
    except (subprocess.SubprocessError, ValueError) as error:
        raise Unavailable(f"{argv[0]} was not started: {error}") from error
    finally:
        os.close(output)
    deadline = time.monotonic() + _SECONDS
    # The shell that is about to become the program carries the token too; who took it for the program would find it
    # gone in the middle of its exec, when a process shows neither arguments nor environment.
    while _is_shell(pid) or (identity := identify(pid, token)) is None:
        if not _exists(pid) or time.monotonic() > deadline:
            raise Unavailable(f"{argv[0]} ended at once; its words are in {log}")
        time.sleep(0.0005)
    return identity


def _is_shell(pid: int) -> bool:
    import psutil

    try:
        return _SCRIPT in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
