"""A table per flavor: cold start to ready, memory, and how far predictions are from the framework's own.

`make bench-flavors` runs it (ARGS="--json FILE"). Each case of `cases` is pushed as the server does it, and served by
a `podium-runtime serve` process of this environment, which is there already. Its inputs go over HTTP as JSON, so the
deviation is what a client sees.

    start    seconds from the process's start to the first 200 of /v2/health/ready: the median of --runs
    memory   resident set of the process after its answer, in MB
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from podium_runtime.tensors import datatype_of
from runtime.tests.replica import Version, running
from tests.flavors.cases import CASES, Case
from tests.flavors.pushing import pushed


def measure(name: str, runs: int) -> dict[str, Any]:
    """Serve one case `runs` times; return its row of the table."""
    with tempfile.TemporaryDirectory(prefix="flavors-") as folder:
        made = Path(folder, "made")
        made.mkdir()
        case = CASES[name](made)
        draft = pushed(Path(folder, "blobs"), case.files)
        signature = draft.signature.model_dump(mode="json") if draft.signature else None
        version = Version(Path(folder), draft.flavor.model_dump(), case.files, signature, {"threads": 1})
        config = version.write()
        seconds, memory, deviation = [], 0.0, 0.0
        for _ in range(runs):
            started = time.perf_counter()
            with running(config) as replica:
                seconds.append(time.perf_counter() - started)
                answer = replica.infer({"inputs": [wire(key, array) for key, array in case.inputs.items()]})
                if answer.status != 200:
                    raise SystemExit(f"{name}: {answer.status} {answer.body.decode()}")
                deviation = max(deviation, largest_deviation(answer.json()["outputs"], case))
                memory = max(memory, psutil.Process(replica.process.pid).memory_info().rss / 1e6)
    return {
        "case": name,
        "flavor": draft.flavor.name,
        "start": round(statistics.median(seconds), 2),
        "memory": round(memory),
        "deviation": deviation,
        "tolerance": case.tolerance,
    }


def wire(name: str, array: Any) -> dict[str, Any]:
    """One input in the protocol's JSON form."""
    flat = [None if value != value else value for value in array.ravel().tolist()]
    return {"name": name, "datatype": datatype_of(array.dtype), "shape": list(array.shape), "data": flat}


def largest_deviation(outputs: list[dict[str, Any]], case: Case) -> float:
    """The largest difference of a number; infinity for another text, shape or name."""
    if {output["name"] for output in outputs} != case.expected.keys():
        return float("inf")
    worst = 0.0
    for output in outputs:
        wanted = np.asarray(case.expected[output["name"]])
        if list(wanted.shape) != output["shape"]:
            return float("inf")
        if wanted.dtype.kind in "OU":
            worst = max(worst, 0.0 if output["data"] == wanted.ravel().tolist() else float("inf"))
            continue
        # JSON holds the shortest decimal number that is the same in the output's own type.
        got = np.array(output["data"], dtype=wanted.dtype).reshape(wanted.shape)
        worst = max(worst, float(np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()))
    return worst


def main() -> int:
    """Entry point: 0 when every deviation is within its tolerance."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.add_argument("--runs", type=int, default=3, help="starts per case (default: 3)")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES), metavar="CASE")
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, {psutil.cpu_count()} processors")
    print(f"{'model':28}{'flavor':24}{'start s':>9}{'memory MB':>11}{'deviation':>12}{'tolerance':>11}")
    rows = []
    for name in options.only:
        row = measure(name, options.runs)
        rows.append(row)
        deviation = "none" if row["deviation"] == 0 else f"{row['deviation']:.1e}"
        tolerance = "last bit" if row["tolerance"] == 0 else f"{row['tolerance']:.0e}"
        print(
            f"{name:28}{row['flavor']:24}{row['start']:9.2f}{row['memory']:11}{deviation:>12}{tolerance:>11}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if all(row["deviation"] <= row["tolerance"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
