"""Makes one virtual environment from its lock. Called by `uv`, which holds the environment's lock file meanwhile.

The order matters. A package may carry a `.pth` file, whose code runs whenever the environment's interpreter starts.
So that interpreter is looked at once, by uv, before anything is installed; everything is installed in that one call;
byte code is compiled by the installation's own interpreter without the environment (`-I -S`); and the metadata is read
as files. The first to run it on the packages is a replica, in its sandbox.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from podium.environments.consistency import conflicts
from podium.environments.installer import Installer, Say, UvFailed
from podium.resources.errors import IntegrityError, Unavailable

# Tests inside packages are never imported by a model: a third of the files of scikit-learn, pandas and scipy.
_NOT_COMPILED = r"/tests?/"


def build(
    folder: Path, *, lock: str, python: str, wheel: Path, installer: Installer, say: Say, held: int
) -> None:
    """Make the environment in place (virtual environments hold their own path).

    `held` is the descriptor of the lock: uv keeps it too, so that nobody builds here while an orphan of a dead server
    still does. Raises UvFailed with uv's words, InvalidInput (no such Python here), IntegrityError, Unavailable.
    """
    shutil.rmtree(folder, ignore_errors=True)
    say(f"making an environment with Python {python}")
    interpreter = installer.find_python(python)
    installer.call(["venv", "--python", str(interpreter), "--no-project", str(folder)], say=say, keep=[held])
    inside = folder / "bin" / "python"
    everything = folder / "requirements.lock"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != wheel.parent.name:
        raise IntegrityError(f"the kept wheel {wheel.name} is not what it was: its sha256 is {digest[:12]}…")
    distribution = wheel.name.split("-")[0].replace("_", "-")
    everything.write_text(f"{lock}{distribution} @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    say("installing packages")
    installer.call(
        ["pip", "install", "--python", str(inside), "--require-hashes", "--no-deps", "--only-binary", ":all:",
         "--no-sources", "--no-compile-bytecode", "-r", str(everything)],
        say=say, keep=[held],
    )  # fmt: skip
    version = _full_version(folder)
    if found := conflicts(_site_packages(folder, version), version):
        raise UvFailed("the packages of the lock do not fit together: " + "; ".join(found[:5]))
    say("compiling byte code")
    _compile(folder, inside.resolve(strict=True), held)


def _compile(folder: Path, interpreter: Path, held: int) -> None:
    """Byte code for all modules: a replica may not write any, and would compile them again at each start.

    A file that does not compile (some packages carry templates or other Pythons' code) is left as it is.
    """
    workers = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    subprocess.run(
        [interpreter, "-I", "-S", "-m", "compileall", "-qq", "-j", workers, "-x", _NOT_COMPILED, folder / "lib"],
        env={"LANG": "C.UTF-8"}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        cwd="/", check=False, pass_fds=[held],
    )  # fmt: skip


def _full_version(folder: Path) -> str:
    """`3.11.7`, as uv wrote it down."""
    for line in (folder / "pyvenv.cfg").read_text().splitlines():
        name, _, value = line.partition("=")
        if name.strip() in ("version_info", "version"):
            return ".".join(value.strip().split(".")[:3])
    raise Unavailable(f"{folder.name}/pyvenv.cfg names no version")


def _site_packages(folder: Path, version: str) -> Path:
    major, minor = version.split(".")[:2]
    return folder / "lib" / f"python{major}.{minor}" / "site-packages"
