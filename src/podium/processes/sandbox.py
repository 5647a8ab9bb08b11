"""What a confined process may do, as its caller says it: paths, ports, limits, environment.

Called by `targets` and by whoever runs a model's code once (`supervision.run_once`). The rules themselves are put in
force by `shim`, in the process that they bind. What is always allowed, whatever a `Box` says, is listed in
`shim.confine`: the system's programs and libraries, and a private folder for temporary files.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["none", "files", "full"]

# Settings of the host that change how programs talk to people, and nothing else.
_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Box:
    """The walls. Folders stand for all below them; a path that does not exist allows nothing."""

    read: tuple[Path, ...] = ()
    run: tuple[Path, ...] = ()
    """Read, and execute programs: the environment and the Python installation under it."""
    connect_ports: tuple[int, ...] = ()
    """TCP ports that it may connect to, on any host. With ports, UDP is open too, because names could not be resolved
    without. Neither these nor `bind_ports`: it cannot make an IP socket at all."""
    bind_ports: tuple[int, ...] = ()
    """TCP ports that it may listen on. Which of the host's addresses it takes, no rule of the kernel's can say."""
    require: Level = "none"
    """The least that must be reached, else the program is not started."""


@dataclass(frozen=True)
class Limits:
    """What it may use."""

    memory: int
    """Bytes of resident data (anonymous, shared and swapped memory, of it and of all its descendants)."""
    open_files: int = 4096
    niceness: int = 0
    cpus: tuple[int, ...] = ()
    """Processors that it is bound to; empty: all."""


def python_roots(python: Path) -> tuple[Path, ...]:
    """What an interpreter needs to run: its virtual environment, and the installation that this one stands on.

    An installation in the root folder or in the user's home folder does not open all of it: only the interpreter and
    its library folders. Raises FileNotFoundError without such an interpreter.
    """
    real = python.resolve(strict=True)
    environment = Path(os.path.abspath(python)).parent.parent
    roots = [environment] if (environment / "pyvenv.cfg").is_file() else []
    prefix = real.parent.parent
    if prefix in (Path("/"), Path.home()):
        roots += [real, *sorted(prefix.glob("lib/python3.*")), *sorted(prefix.glob("lib/libpython3*"))]
    else:
        roots.append(prefix)
    return tuple(roots)


def scrubbed_environment(
    python: Path, private: Path, *, threads: int, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The whole environment of a confined Python program: nothing of ours but locale and time zone.

    `private` is its folder for temporary files, home and caches; `threads` the size of native thread pools; `extra`
    comes last and wins.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    folder = str(private)
    return {
        "LANG": "C.UTF-8",
        **kept,
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "HOME": folder,
        "TMPDIR": folder,
        "XDG_CACHE_HOME": f"{folder}/cache",
        "XDG_CONFIG_HOME": f"{folder}/config",
        **dict.fromkeys(_THREADS, str(threads)),
        **(extra or {}),
    }
