"""state.json: what the shim knows, for whoever asks later. Written whole or not at all.

Called by `supervise`. `processes.supervision` reads it.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TOKEN_VARIABLE = "PODIUM_PROCESS_TOKEN"  # noqa: S105 - the variable's name


def shim_identity() -> dict[str, Any]:
    """This process as `processes.identity` describes one."""
    stat = Path("/proc/self/stat").read_bytes()
    ticks = int(stat[stat.rindex(b")") + 2 :].split()[19])
    return {"pid": os.getpid(), "start_ticks": ticks, "token": os.environ[TOKEN_VARIABLE]}


def now() -> str:
    """UTC in ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat()


def write(folder: Path, document: dict[str, Any]) -> None:
    """Replace state.json, readable by the owner only. Raises OSError (a full disk); the old one then stays.

    It is not forced to the disk: what ends with the machine's power is this process too.
    """
    scratch = folder / ".state.json.new"
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(document, file)
    scratch.replace(folder / "state.json")
