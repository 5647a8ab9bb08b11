"""From a replica that should run to the confined program that does. Called by `target`; pure but for reading paths."""

from pathlib import Path
from typing import Any

from podium.processes.sandbox import Box, Limits, python_roots, scrubbed_environment
from podium.processes.supervision import Program, private_folder
from podium.resources.errors import Unavailable
from podium.targets.port import ReplicaWish

_LISTENER = 3
AFTER_DRAIN_SECONDS = 5.0
"""The model server drains by itself and then ends; the shim's patience is that much longer."""


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
        "drainSeconds": spec.runtime.drain_seconds,
        "requestTimeoutSeconds": spec.runtime.request_timeout,
        "threads": spec.resources.cpus,
    }


def program(wish: ReplicaWish, folder: Path, socket: Path, cpus: tuple[int, ...]) -> Program:
    """The model server in its walls; its configuration is `config.json` in `folder`. `cpus`: empty for all.

    Raises Unavailable when the environment's interpreter is gone.
    """
    spec, config = wish.spec, folder / "config.json"
    try:
        roots = python_roots(wish.python)
    except FileNotFoundError:
        raise Unavailable(
            f"the environment of {wish.revision} is gone", next_step="it is made again by itself"
        ) from None
    return Program(
        # -I: nothing of the working folder or of variables gets into the path. -B: it could write no byte code anyway.
        argv=(str(wish.python), "-I", "-B", "-m", "podium_runtime", "serve", str(config)),
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
            cpus=cpus,
        ),
        socket=socket,
        grace=spec.runtime.drain_seconds + AFTER_DRAIN_SECONDS,
    )


def choose_processors(count: int, available: set[int], taken: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The `count` processors that the fewest others are bound to; all of them if there are no more than that."""
    uses = {one: sum(one in others for others in taken) for one in available}
    return tuple(sorted(sorted(available, key=lambda one: (uses[one], one))[:count]))
