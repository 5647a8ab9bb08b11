"""Builds the wheel of podium-runtime into src/podium/_wheels, so that podium carries the model server it starts.

Hatchling calls `RuntimeWheelHook` whenever it builds podium (wheel or editable); `make` calls this file by hand
when the runtime's sources are newer than the wheel. It calls hatchling's own wheel builder, in this process.
The same sources give the same bytes, because a revision pins the digest of the wheel that serves it.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.wheel import WheelBuilder

# 2020-02-02, hatchling's own default; the caller's SOURCE_DATE_EPOCH (a distribution's build) must not leak in.
_EPOCH = "1580601600"
_WHEELS = Path("src") / "podium" / "_wheels"


class RuntimeWheelHook(BuildHookInterface[BuilderConfig]):
    """Hatchling's hook: builds the runtime's wheel and adds it to what podium's wheel holds."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Runs before each build. Nothing to do for the sdist: it holds the runtime's sources instead."""
        if self.target_name != "wheel":
            return
        wheel = build_runtime_wheel(Path(self.root))
        # Ignored by git, so hatchling would leave it out if it were not named as an artifact.
        build_data["artifacts"].append("/" + wheel.relative_to(self.root).as_posix())


def build_runtime_wheel(root: Path) -> Path:
    """Build `root`/runtime into `root`/src/podium/_wheels and return the wheel's path.

    Older wheels are removed only after the new one is in place, and it appears in one step: a second build at the
    same time, or a death in the middle, leaves a whole wheel. Raises FileNotFoundError without runtime/.
    """
    source = root / "runtime"
    if not (source / "pyproject.toml").is_file():
        raise FileNotFoundError(
            f"{source}: the runtime's sources are missing; build podium from a whole checkout"
        )
    target = root / _WHEELS
    # Beside the target, so that the move is a rename on one file system.
    with tempfile.TemporaryDirectory(dir=target, prefix=".build-") as folder, _fixed_epoch():
        built = Path(next(WheelBuilder(str(source)).build(directory=folder, versions=["standard"])))
        wheel = target / built.name
        os.utime(built)
        built.replace(wheel)
    for other in target.glob("podium_runtime-*.whl"):
        if other != wheel:
            other.unlink(missing_ok=True)
    return wheel


@contextlib.contextmanager
def _fixed_epoch() -> Iterator[None]:
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = _EPOCH
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]
        else:
            os.environ["SOURCE_DATE_EPOCH"] = before


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    print(build_runtime_wheel(here).relative_to(here))
    sys.exit(0)
