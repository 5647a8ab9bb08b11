"""From a replica that should run to the confined program that does. Called by `target`; pure but for reading paths.

Calls `commands` for servers of the user's choice.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podium.processes.sandbox import Box, Limits, python_roots, scrubbed_environment
from podium.processes.supervision import Dormant, Program, private_folder
from podium.resources.deployment import RuntimeSettings
from podium.resources.errors import Unavailable
from podium.resources.warmup import Warmup
from podium.targets.port import ReplicaWish
from podium.targets.process import commands, records
from podium.targets.process.checked_start import DAMAGED
from podium.targets.process.health import Question

_LISTENER = 3
_RECORDS_VARIABLE = "PODIUM_RECORDS"
"""Where the model server writes down answers that a shadow gives too."""
_OWN_FINAL = (2, 3)
"""Exit codes of Podium's own model server that another start would not mend: a bad configuration, damaged files."""
AFTER_DRAIN_SECONDS = 5.0
"""The model server drains by itself and then ends; the shim's patience is that much longer."""


def configuration(wish: ReplicaWish, folder: Path, ports: Mapping[str, int]) -> dict[str, Any]:
    """The model server's own configuration file, or that of the program that starts another one."""
    spec = wish.spec
    if spec.runtime.command is not None:
        return commands.configuration(wish, commands.values(wish, folder, _LISTENER, ports))
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
        # Who has woken it waits until it can answer; a build that does not know this refuses it, and says so.
        "listen": {"fd": _LISTENER, "hold": True} if wish.dormant else {"fd": _LISTENER},
        "batch": {"maxSize": spec.runtime.max_batch, "maxDelayMs": spec.runtime.max_delay * 1000},
        "queue": {"maxLength": spec.runtime.queue_length},
        "maxBodyBytes": spec.runtime.max_body,
        "drainSeconds": spec.runtime.drain_seconds,
        "requestTimeoutSeconds": spec.runtime.request_timeout,
        "threads": spec.resources.cpus,
        **_where_set(spec.runtime),
    }


def _where_set(runtime: RuntimeSettings) -> dict[str, Any]:
    """Settings whose defaults are the model server's own. A revision may pin an earlier build of it, which would refuse
    the names of later ones."""
    warmup = runtime.warmup or Warmup()
    given: dict[str, Any] = {
        "watchdogSeconds": runtime.watchdog,
        "maxStreams": runtime.max_streams,
        "maxTensorElements": runtime.max_tensor_elements,
    }
    return {
        "warmup": {"requests": warmup.requests, "example": warmup.example.body() if warmup.example else None},
        **{name: value for name, value in given.items() if value is not None},
    }


def program(
    wish: ReplicaWish, folder: Path, socket: Path, cpus: tuple[int, ...], ports: Mapping[str, int]
) -> Program:
    """The model server in its walls; its configuration is `config.json` in `folder`. `cpus`: empty for all. `ports`:
    those that it listens on, by name; none: it gets `socket`.

    Raises Unavailable when the environment's interpreter is gone.
    """
    spec, config = wish.spec, folder / "config.json"
    try:
        roots = python_roots(wish.python)
    except FileNotFoundError:
        raise Unavailable(
            f"the environment of {wish.revision} is gone", next_step="it is made again by itself"
        ) from None
    # -I: nothing of the working folder or of variables gets into the path. -B: it could write no byte code anyway.
    argv: tuple[str, ...] = (str(wish.python), "-I", "-B", "-m", "podium_runtime", "serve", str(config))
    read = (wish.model_path, wish.manifest_path, config, *wish.extra_read_paths)
    private = private_folder(folder)
    # A variable, because builds that a revision may pin refuse fields of the configuration that they do not know.
    extra: Mapping[str, str] = {**spec.runtime.env, _RECORDS_VARIABLE: str(private / records.FOLDER)}
    if spec.runtime.command is not None:
        # -S: no package's start-up code runs before the files are checked.
        argv = (str(wish.python), "-I", "-S", "-B", str(commands.START), str(config))
        read = (*read, commands.START)
        extra = commands.environment(wish, commands.values(wish, folder, _LISTENER, ports), ports)
    return Program(
        argv=argv,
        env=scrubbed_environment(wish.python, private, threads=spec.resources.cpus, extra=extra),
        box=Box(
            read=read,
            run=roots,
            connect_ports=tuple(spec.sandbox.connect_ports),
            bind_ports=tuple(ports.values()),
            require=spec.sandbox.require,
        ),
        limits=Limits(
            memory=spec.resources.memory,
            open_files=spec.resources.open_files,
            niceness=spec.resources.niceness,
            cpus=cpus,
        ),
        socket=None if ports else socket,
        dormant=_dormant(spec.runtime, socket) if wish.dormant else None,
        grace=spec.runtime.drain_seconds + AFTER_DRAIN_SECONDS,
    )


def _dormant(runtime: RuntimeSettings, socket: Path) -> Dormant:
    return Dormant(
        start_timeout=runtime.startup_timeout,
        final=_OWN_FINAL if runtime.command is None else (DAMAGED,),
        question=Question(socket, runtime.probe_path).request.decode(),
    )


def choose_processors(count: int, available: set[int], taken: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The `count` processors that the fewest others are bound to; all of them if there are no more than that."""
    uses = {one: sum(one in others for others in taken) for one in available}
    return tuple(sorted(sorted(available, key=lambda one: (uses[one], one))[:count]))
