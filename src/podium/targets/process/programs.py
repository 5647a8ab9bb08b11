"""From a replica that should run to the confined program that does. Called by `target`; pure but for reading paths."""

import os
from pathlib import Path
from typing import Any

from podium.processes.sandbox import Box, Limits, python_roots, scrubbed_environment
from podium.processes.supervision import Program, private_folder
from podium.resources.errors import Unavailable
from podium.targets.port import ReplicaWish

_LISTENER = 3


def configuration(wish: ReplicaWish) -> dict[str, Any]:
    """The model server's own configuration file."""
    spec = wish.spec
    return {
        "served": {
            "name": wish.deployment,
            "version": spec.version,
            "workspace": wish.workspace,
            "revision": wish.revision,
        },
        "modelPath": str(wish.model_path),
        "manifestPath": str(wish.manifest_path),
        "manifestDigest": spec.manifest_digest,
        "listen": {"fd": _LISTENER},
        "batch": {"maxSize": spec.runtime.max_batch, "maxDelayMs": spec.runtime.max_delay * 1000},
        "queue": {"maxLength": spec.runtime.queue_length},
        "maxBodyBytes": spec.runtime.max_body,
        "warmup": {"requests": 1, "example": None},
        "drainSeconds": spec.runtime.drain,
        "requestTimeoutSeconds": spec.runtime.request_timeout,
        "threads": spec.resources.cpus,
    }


def program(wish: ReplicaWish, folder: Path, config: Path, socket: Path) -> Program:
    """The model server in its walls. Raises Unavailable when the environment's interpreter is gone."""
    spec = wish.spec
    try:
        roots = python_roots(wish.python)
    except FileNotFoundError:
        raise Unavailable(
            f"the environment of {wish.revision} is gone", next_step="it is made again by itself"
        ) from None
    return Program(
        argv=(str(wish.python), "-m", "podium_runtime", "serve", str(config)),
        env=scrubbed_environment(
            wish.python, private_folder(folder), threads=spec.resources.cpus, extra=spec.runtime.env
        ),
        box=Box(
            read=(wish.model_path, wish.manifest_path, config, *wish.extra_read_paths),
            run=roots,
            connect_ports=tuple(spec.sandbox.connect_ports),
            require=spec.sandbox.require,
        ),
        limits=Limits(
            memory=spec.resources.memory,
            open_files=spec.resources.open_files,
            niceness=spec.resources.niceness,
            cpus=_processors(wish) if spec.resources.pin_cpus else (),
        ),
        socket=socket,
        # The model server drains by itself; the shim ends it only when that takes clearly longer.
        grace=spec.runtime.drain + 5.0,
    )


def _processors(wish: ReplicaWish) -> tuple[int, ...]:
    """As many as wanted, spread over the machine by the replica's number, so that neighbours get different ones."""
    available = sorted(os.sched_getaffinity(0))
    count = min(wish.spec.resources.cpus, len(available))
    last = wish.name.rpartition("-")[2]
    first = (int(last) if last.isdigit() else 0) * count
    return tuple(available[(first + index) % len(available)] for index in range(count))
