"""The wheel of podium-runtime that travels inside podium, and where to find it.

Whoever makes an environment for a model installs the runtime from this path, never by name from an index. The wheel
is put here by the build (hatch_build.py); this module calls nothing of podium.
"""

from pathlib import Path

_PATTERN = "podium_runtime-*-py3-none-any.whl"


class RuntimeWheelMissing(FileNotFoundError):
    """There is no wheel of podium-runtime, or more than one, inside this installation; the message says what to do."""


def runtime_wheel() -> Path:
    """The absolute path of the one podium-runtime wheel of this installation.

    Raises RuntimeWheelMissing when there is none, or when an interrupted build left several: which one would be
    served must never be a guess.
    """
    folder = Path(__file__).resolve().parent
    wheels = sorted(folder.glob(_PATTERN))
    if len(wheels) == 1:
        return wheels[0]
    found = "several" if wheels else "none"
    listed = "".join(f" {wheel.name}" for wheel in wheels)
    raise RuntimeWheelMissing(
        f"expected one {_PATTERN} in {folder}, found {found}{listed and ':' + listed}; "
        "in a checkout run `make setup`, otherwise reinstall podium"
    )
