"""Processes of this machine that outlive whoever started them, and the box that model code runs in.

`identity` says which process is meant and whether it still runs, `spawn` starts one, `exits` tells when one
has ended, `sandbox` and `shim` run a replica. Called by `targets` (replicas) and `gateway` (Envoy).
"""

from podium.processes.exits import ExitWatcher
from podium.processes.identity import (
    TOKEN_VARIABLE,
    ProcessIdentity,
    identify,
    is_alive,
    new_token,
    read_identity,
    send_signal,
    terminate,
    wait_exit,
    write_identity,
)
from podium.processes.spawn import spawn_detached

__all__ = [
    "TOKEN_VARIABLE",
    "ExitWatcher",
    "ProcessIdentity",
    "identify",
    "is_alive",
    "new_token",
    "read_identity",
    "send_signal",
    "spawn_detached",
    "terminate",
    "wait_exit",
    "write_identity",
]
