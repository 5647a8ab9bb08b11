"""Servers of the user's choice: what their command becomes, and whether they listen where they may.

Called by `target` and `programs`. Calls `processes.sockets` for what listens.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from podium.processes.sockets import Listener
from podium.processes.supervision import private_folder
from podium.resources.command import fill
from podium.resources.deployment import RuntimeSettings
from podium.targets.port import ReplicaWish
from podium.targets.process.health import LOOPBACK

START = Path(__file__).with_name("checked_start.py")
SERVED = ""
"""Name of the port that requests go to, among a replica's ports."""


def port_names(runtime: RuntimeSettings) -> list[str]:
    """The ports that a replica needs: the one that is served first, then the others by name."""
    return [] if runtime.takes_descriptor else [SERVED, *runtime.extra_ports]


def values(wish: ReplicaWish, folder: Path, descriptor: int, ports: Mapping[str, int]) -> dict[str, str]:
    """What the placeholders stand for."""
    found = {
        "python": str(wish.python),
        "model": str(wish.model_path),
        "tmp": str(private_folder(folder)),
        "name": wish.deployment,
        "version": wish.spec.version,
        "host": LOOPBACK,
        "fd": str(descriptor),
    }
    return found | {f"port.{name}" if name else "port": str(port) for name, port in ports.items()}


def environment(wish: ReplicaWish, filled: Mapping[str, str], ports: Mapping[str, int]) -> dict[str, str]:
    """Variables of the server: where to listen and what to serve, then those of the spec."""
    told = {
        "PODIUM_MODEL": filled["model"],
        "PODIUM_NAME": filled["name"],
        "PODIUM_VERSION": filled["version"],
        "PODIUM_HOST": filled["host"],
        # It could write no byte code anyway, and its words are wanted when they are said.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    told |= {
        f"PODIUM_PORT_{name.upper()}" if name else "PODIUM_PORT": str(port) for name, port in ports.items()
    }
    if not ports:
        told["PODIUM_FD"] = filled["fd"]
    return told | {name: fill(text, filled) for name, text in wish.spec.runtime.env.items()}


def configuration(wish: ReplicaWish, filled: Mapping[str, str]) -> dict[str, Any]:
    """What `checked_start` reads."""
    return {
        "modelPath": str(wish.model_path),
        "manifestPath": str(wish.manifest_path),
        "manifestDigest": wish.spec.manifest_digest,
        "command": [fill(text, filled) for text in wish.spec.runtime.command or ()],
    }


def misplaced(ports: Mapping[str, int], listening: Sequence[Listener], own: frozenset[int] | set[int]) -> str:
    """Why this replica must not be served, in words; empty where all is well.

    `listening`: what listens on this machine. `own`: inodes of the sockets of the replica's processes.
    """
    for one in listening:
        if one.inode in own:
            if not one.is_loopback:
                return (
                    f"it listens on {one.address}:{one.port}, which other machines can reach past the gateway; "
                    f"make it listen on {{host}} ({LOOPBACK})"
                )
            if one.port not in ports.values():
                return f"it listens on port {one.port}, which is none of its own"
    served = [one for one in listening if one.port == ports[SERVED]]
    if any(one.inode not in own for one in served):
        return f"another program answers on its port {ports[SERVED]}"
    return ""
