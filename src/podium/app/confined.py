"""Shuts itself in, then becomes another program: `python -m podium.app.confined SPEC.json`.

For a program that must be a direct child and listen on a descriptor that it inherits, which no shim can give it.
Started by `serving`. The spec: {"argv", "env", "cwd", "box" (as `shim.confine` takes it), "parent" (pid), "report"
(file that gets the level reached and what is missing)}. It is killed when its parent dies.
"""

import json
import os
import sys
from pathlib import Path

from podium.processes.shim import confine


def main(arguments: list[str]) -> int:
    """Does not return where all is well; 126 after a line that says what was not."""
    spec = json.loads(Path(arguments[1]).read_bytes())
    try:
        os.chdir(spec["cwd"])
        reached = confine.confine(spec["box"], lambda: confine.die_with(spec["parent"]))
        # Its own folder is the only place where it may still write.
        Path(spec["report"]).write_text(json.dumps({"level": reached.level, "missing": reached.missing}))
        os.execve(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606 - no shell, on purpose
    except (OSError, confine.Unreached) as error:
        sys.stderr.write(f"the model server could not be started: {error}\n")
    return 126


if __name__ == "__main__":
    sys.exit(main(sys.argv))
