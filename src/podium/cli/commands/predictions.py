"""predict: one request to the gateway. Called by `application`; calls the client."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from podium.cli.display import clean, print_table
from podium.cli.inputs import inputs_of, rows_of
from podium.cli.output import emit
from podium.cli.session import Session, command
from podium.resources.errors import InvalidInput, Issue

_MAX_BYTES = 64 * 2**20
_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "predict")(predict)


def predict(
    session: Session,
    deployment: Annotated[str, typer.Argument(help="The Deployment to ask.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="JSON", help='{"TENSOR": values}, rows, or a whole request of the protocol.'
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="As --data, from a file; - is stdin.")
    ] = None,
    row: Annotated[
        list[str] | None,
        typer.Option("--row", metavar="VALUES", help="One row such as 1,2,null; may be repeated."),
    ] = None,
) -> None:
    """Ask for a prediction, through the gateway as any client would. null is a missing value."""
    if sum(given is not None and given != [] for given in (data, file, row)) != 1:
        raise typer.BadParameter("expected exactly one of --data, --file and --row")
    with session.client() as client:
        if row:
            inputs: Any = rows_of(client, deployment, session.place, row)
        else:
            text, source = (data, "--data") if data is not None else (_content(file), str(file))
            inputs = inputs_of(client, deployment, session.place, text, source)
        answer = client.predict(deployment, inputs)
    emit(session, answer, lambda: _show(answer))


def _content(file: Path | None) -> str:
    if str(file) == "-":
        return sys.stdin.read(_MAX_BYTES)
    assert file is not None  # noqa: S101 - one of the three was given
    try:
        return file.read_text()
    except FileNotFoundError:
        raise InvalidInput(Issue(str(file), "no such file")) from None
    except UnicodeDecodeError:
        raise InvalidInput(Issue(str(file), "expected UTF-8 text")) from None


def _show(answer: dict[str, Any]) -> None:
    """A row per prediction where the outputs are that regular, else each tensor on a line."""
    outputs = answer.get("outputs") or []
    columns: list[tuple[str, list[Any]]] = []
    for tensor in outputs:
        shape, values = tensor.get("shape") or [], tensor.get("data") or []
        if len(shape) == 1 and len(values) == shape[0]:
            columns.append((str(tensor["name"]), list(values)))
        elif len(shape) == 2 and len(values) == shape[0] * shape[1]:
            columns += [
                (
                    f"{tensor['name']}[{index}]" if shape[1] > 1 else str(tensor["name"]),
                    values[index :: shape[1]],
                )
                for index in range(shape[1])
            ]
    lengths = {len(values) for _, values in columns}
    if len(columns) >= len(outputs) > 0 and len(lengths) == 1 and len(columns) <= _SHOWN:
        print_table(
            [name for name, _ in columns],
            [list(values) for values in zip(*(v for _, v in columns), strict=True)],
        )
        return
    for tensor in outputs:
        shape = f"{tensor.get('datatype')} {tensor.get('shape')}"
        print(f"{clean(tensor.get('name'))} {clean(shape)}: {clean(json.dumps(tensor.get('data')))}")
