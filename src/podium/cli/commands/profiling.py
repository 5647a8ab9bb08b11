"""model profile: how fast a version is, and what follows from it. Called by `models`; calls the client."""

import json
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.display import clean, clock, coloured, print_table, size
from podium.cli.following import seconds_of
from podium.cli.output import as_yaml, emit
from podium.cli.progress import Activity
from podium.cli.reporting import note
from podium.cli.session import Session, command
from podium.resources.errors import InvalidInput, Issue

if TYPE_CHECKING:
    from podium.resources.kinds import ModelVersion
    from podium.resources.profile import Profile, ProfilePoint

_MAX_BYTES = 64 * 2**20
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:/(s|m|h))?")
_PER = {"s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "profile")(profile)


def profile(
    session: Session,
    version: Annotated[
        str, typer.Argument(metavar="NAME:VERSION", help="Such as churn:3 or churn:@champion.")
    ],
    rows: Annotated[
        Path | None,
        typer.Option(
            "--rows",
            metavar="FILE",
            help="Real rows to ask with, as JSON: rows, objects by column, or a request of the protocol.",
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option("--rate", metavar="RATE", help="Requests to carry, such as 200/s or 5000/m."),
    ] = None,
    p99: Annotated[
        str | None,
        typer.Option(
            "--p99", metavar="TIME", help="The latency that 99 of 100 requests must keep, such as 50ms."
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="How long to measure; making ready comes on top.")
    ] = "60s",
    cpus: Annotated[
        int, typer.Option("--cpus", metavar="N", min=1, max=1024, help="Processors of a replica.")
    ] = 1,
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="What the measured replica may use at most.")
    ] = "8Gi",
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Also draw it as a picture, an SVG file.")
    ] = None,
    kept: Annotated[
        bool, typer.Option("--kept", help="Measure nothing: show what was measured last.")
    ] = False,
) -> None:
    """Measure latency, throughput and memory of a version, and propose replicas, batch size and memory.

    One replica is started and asked. The result is kept with the version; the next one takes its place.
    """
    if plot is not None:
        _check_plot(plot)
    options = _asked(budget, cpus, memory, rate, p99, rows)
    found, measured = _measure(session, _reference(version), None if kept else options)
    title = f"{found.spec.model} version {found.spec.version}"
    if plot is not None:
        from podium.cli.plot import svg

        plot.write_text(svg(measured, title))
        note(f"the picture is in {plot}")
    document = {"name": found.metadata.name, "digest": found.spec.digest,
                "profile": measured.model_dump(mode="json", by_alias=True)}  # fmt: skip
    emit(session, document, lambda: _show(title, measured))


def _asked(
    budget: str, cpus: int, memory: str, rate: str | None, p99: str | None, rows: Path | None
) -> dict[str, Any]:
    """The fields of a ProfileRequest. Raises InvalidInput."""
    return {
        "budget": seconds_of(budget, "--budget"), "cpus": cpus, "memory": _size(memory),
        **({} if rate is None else {"rate": _rate(rate)}),
        **({} if p99 is None else {"p99": seconds_of(p99, "--p99")}),
        **({} if rows is None else _given(rows)),
    }  # fmt: skip


def _measure(
    session: Session, reference: tuple[str, str], options: dict[str, Any] | None
) -> "tuple[ModelVersion, Profile]":
    """The version and its profile: measured now, or what is kept where there are no options."""
    from podium.cli.commands.models import find_version

    name, number = reference
    with session.client() as client:
        found = find_version(client, name, number)
        number = found.spec.version
        if options is None:
            return found, client.kept_profile(name, number)
        with Activity(f"profiling {name} version {number}", quiet=not session.is_table) as activity:
            after = client.profile(
                name, number, progress=lambda progress: activity.say(progress.message), **options
            )
        return found, after.status.profile or client.kept_profile(name, number)


def _reference(text: str) -> tuple[str, str]:
    name, separator, number = text.partition(":")
    if not separator or not name or not re.fullmatch(r"[1-9][0-9]{0,8}|@.+", number):
        raise InvalidInput(
            Issue(
                "NAME:VERSION",
                f"expected a model and a version such as churn:3 or churn:@champion, got {text[:80]!r}",
            )
        )
    return name, number


def _check_plot(file: Path) -> None:
    """Before a minute is spent on measuring."""
    if file.suffix.lower() != ".svg":
        raise InvalidInput(Issue("--plot", f"{file}: expected a name that ends with .svg"))
    if file.is_dir() or not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        raise InvalidInput(Issue("--plot", f"{file} cannot be written"))


def _rate(text: str) -> float:
    match = _RATE.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        raise InvalidInput(Issue("--rate", f"expected a rate such as 200/s or 5000/m, got {text[:40]!r}"))
    return float(match[1]) / _PER[match[2]]


def _size(text: str) -> int:
    from podium.resources.quantities import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise InvalidInput(Issue("--memory", str(error))) from None


def _given(file: Path) -> dict[str, Any]:
    """`rows` or `inputs` of a ProfileRequest."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InvalidInput(Issue("--rows", f"{file}: expected at most {_MAX_BYTES // 2**20} MiB"))
        value = json.loads(file.read_text(), parse_constant=_constant)
    except FileNotFoundError:
        raise InvalidInput(Issue("--rows", f"{file}: no such file")) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(Issue("--rows", f"{file}: expected JSON: {str(error)[:200]}")) from None
    if isinstance(value, list) and value:
        return {"rows": value}
    if isinstance(value, dict) and isinstance(value.get("inputs"), list):
        return {"inputs": {item["name"]: _nested(item, index) for index, item in enumerate(value["inputs"])
                           if _is_tensor(item, index)}}  # fmt: skip
    if isinstance(value, dict) and value:
        return {"inputs": value}
    raise InvalidInput(
        Issue(
            "--rows", f"{file}: expected a list of rows, an object of tensors, or a request of the protocol"
        )
    )


def _constant(text: str) -> None:
    """NaN is a missing value, as null is."""
    if text != "NaN":
        raise ValueError(f"{text} cannot be sent: JSON knows no infinity")


def _is_tensor(item: Any, index: int) -> bool:
    if (
        not isinstance(item, dict)
        or not {"name", "shape", "data"} <= item.keys()
        or not isinstance(item["data"], list)
    ):
        raise InvalidInput(
            Issue(f"--rows: inputs[{index}]", "expected a tensor with name, shape, datatype and data")
        )
    return True


def _nested(item: dict[str, Any], index: int) -> Any:
    """The data of a tensor as lists inside each other, as its shape says."""
    shape, data = item["shape"], item["data"]
    if not isinstance(shape, list) or not shape or not all(isinstance(one, int) and one > 0 for one in shape):
        raise InvalidInput(Issue(f"--rows: inputs[{index}].shape", "expected whole numbers above 0"))
    if data and isinstance(data[0], list):
        return data
    if len(data) != math.prod(shape):
        words = f"expected {math.prod(shape)} values as the shape says, got {len(data)}"
        raise InvalidInput(Issue(f"--rows: inputs[{index}].data", words))
    for length in reversed(shape[1:]):
        data = [data[start : start + length] for start in range(0, len(data), length)]
    return data


# --- for people ---------------------------------------------------------------------------------------------------


def _show(title: str, measured: "Profile") -> None:
    print(f"{title}, measured {clock(measured.measured_at)} for {measured.seconds:.0f} s")
    print(f"  on       {clean(measured.machine)}; {measured.cpus} of {measured.cores} processors")
    print(f"  with     {clean(', '.join([f'Python {measured.python}', *measured.packages]))}")
    print(f"  inputs   {measured.inputs}")
    print(
        f"  started  in {measured.start_seconds:.1f} s, held {size(measured.memory_idle)} before the first request"
    )
    for headers, points in (
        (["ROWS", "ROWS/S"], measured.batches),
        (["CONNECTIONS", "REQUESTS/S"], measured.load),
        (["AT RANDOM", "ANSWERED/S"], measured.checks),
    ):
        if points:
            print()
            print_table(
                [*headers, "P50 MS", "P99 MS", "MAX MS", "MEMORY", "FAILED"],
                [_row(p, headers[0]) for p in points],
            )
    print()
    _show_proposal(measured)


def _row(point: "ProfilePoint", first: str) -> list[object]:
    key = {"ROWS": point.rows, "CONNECTIONS": point.connections}.get(first, f"{point.rate or 0:,.0f}/s")
    per_second = point.per_second * point.rows
    return [
        key,
        f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.2g}",
        *(
            f"{value:.3g}" if value < 100 else f"{value:,.0f}"
            for value in (point.p50_ms, point.p99_ms, point.max_ms)
        ),
        size(point.memory),
        point.failed or "",
    ]


def _show_proposal(measured: "Profile") -> None:
    proposal = measured.proposal
    if proposal.replicas is None:
        print(coloured("No Deployment can be proposed:", "bold"))
    else:
        print(coloured("Proposed:", "bold"))
    for reason in proposal.reasons:
        print(f"  {clean(reason)}")
    for words in measured.notes:
        print(f"  Note: {clean(words)}")
    if proposal.deployment:
        print()
        print(as_yaml(proposal.deployment), end="")
