"""predict: one request to the gateway. Called by `application`; calls the client."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from podium.cli.display import clean, print_table
from podium.cli.output import emit
from podium.cli.session import Session, command
from podium.resources.errors import InvalidInput, Issue, NotFound

if TYPE_CHECKING:
    from podium.client import Client

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
            inputs: Any = _as_inputs(client, deployment, session.place, [_values(text) for text in row])
        else:
            text, source = (data, "--data") if data is not None else (_content(file), str(file))
            inputs = inputs_of(client, deployment, session.place, text, source)
        answer = client.predict(deployment, inputs)
    emit(session, answer, lambda: _show(answer))


def inputs_of(client: "Client", deployment: str, workspace: str, text: str, source: str) -> Any:
    """What a person gave as JSON, as `Client.predict` takes it: rows become the tensors that the model takes.

    Raises InvalidInput naming `source`.
    """
    given = _parsed(text, source)
    is_rows = isinstance(given, list) and not (given and isinstance(given[0], dict))
    return _as_inputs(client, deployment, workspace, given) if is_rows else _tensors(given)


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


def _parsed(text: str, source: str) -> Any:
    try:
        return json.loads(text, parse_constant=_constant)
    except json.JSONDecodeError as error:
        words = f"expected JSON: {error.msg} at line {error.lineno} column {error.colno}"
        raise InvalidInput(Issue(source, words)) from None


def _values(text: str) -> list[Any]:
    """`1,2.5,null,true,abc` as values; quotes as in JSON keep commas and digits text."""
    try:
        return list(json.loads(f"[{text}]", parse_constant=_constant))
    except ValueError:
        return [_value(part.strip()) for part in text.split(",")]


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_constant)
    except ValueError:
        return None if text in ("", "nan", "None") else text


def _constant(text: str) -> None:
    """NaN is a missing value, as null is; an infinity is nothing that JSON can say."""
    if text != "NaN":
        raise InvalidInput(Issue("data", f"{text} cannot be sent: JSON knows no infinity"))


def _tensors(given: Any) -> Any:
    """What `Client.predict` takes: `{"tensor": values}`, or the tensors of a whole request."""
    if isinstance(given, dict) and isinstance(given.get("inputs"), list) and given["inputs"]:
        first = given["inputs"][0]
        if isinstance(first, dict) and "datatype" in first:
            return given["inputs"]
    if not isinstance(given, dict | list) or not given:
        raise InvalidInput(
            Issue("--data", "expected an object of tensors, a list of rows, or a request of the protocol"),
            next_step="for example --data '{\"x\": [[1, 2, null]]}' or --row 1,2,null",
        )
    return given


def _as_inputs(client: "Client", deployment: str, workspace: str, rows: Sequence[Any]) -> dict[str, Any]:
    """Rows as the tensors that the model says it takes: one matrix, or a column per input."""
    rows = [item if isinstance(item, list) else [item] for item in rows]
    width = len(rows[0]) if rows else 0
    for number, item in enumerate(rows):
        if len(item) != width:
            raise InvalidInput(
                Issue(f"--row {number + 1}", f"expected {width} values as in the first row, got {len(item)}")
            )
    inputs = metadata(client, deployment, workspace).get("inputs") or []
    if len(inputs) == 1 and len(inputs[0].get("shape", [])) != 1:
        return {inputs[0]["name"]: rows}
    if not inputs:
        raise InvalidInput(
            Issue("--row", f"{deployment} does not say what it takes"),
            next_step="name the tensors: --data '{\"x\": [[1, 2]]}'",
        )
    if width != len(inputs):
        names = ", ".join(str(item["name"]) for item in inputs)
        raise InvalidInput(
            Issue("--row", f"expected {len(inputs)} values ({clean(names)[:300]}), got {width}")
        )
    return {item["name"]: _column(rows, index, item) for index, item in enumerate(inputs)}


def _column(rows: Sequence[list[Any]], index: int, tensor: dict[str, Any]) -> list[Any]:
    column = [row[index] for row in rows]
    return [[value] for value in column] if len(tensor.get("shape", [])) == 2 else column


def metadata(client: "Client", deployment: str, workspace: str) -> dict[str, Any]:
    """What the Deployment takes, as its gateway says: a token that may only predict may ask for it."""
    from podium.cli.installation import ask

    gateway = client.connection.gateway
    if gateway is None:
        raise InvalidInput(Issue("gateway", "no gateway is known"), next_step="set PODIUM_GATEWAY_URL")
    prefix = "" if workspace == "default" else f"/ws/{quote(workspace, safe='')}"
    answer = ask(
        gateway,
        f"{prefix}/v2/models/{quote(deployment, safe='')}",
        timeout=30,
        headers=client.connection.headers,
        ca_file=client.connection.ca_file,
    )
    if not answer.ok:
        words = str(
            answer.body.get("error")
            or answer.body.get("detail")
            or f"{gateway} answers {answer.status or 'nothing'}"
        )
        raise NotFound(words, next_step=f"podium get deployments, podium describe deployment {deployment}")
    return answer.body


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
