"""What a person asks of a model, as the tensors that the model takes. Called by `commands.predictions` and `loading`.

Rows and JSON become what `Client.predict` sends; which tensors there are, the gateway says.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from podium.cli.display import clean
from podium.resources.errors import InvalidInput, Issue, NotFound

if TYPE_CHECKING:
    from podium.client import Client


def inputs_of(
    client: "Client", deployment: str, workspace: str, text: str, source: str, *, option: str = "--data"
) -> Any:
    """What a person gave as JSON, as `Client.predict` takes it: rows become the tensors that the model takes.

    Raises InvalidInput naming `source`, a file or `option`: the command's own for such a text.
    """
    given = _parsed(text, source)
    is_rows = isinstance(given, list) and not (given and isinstance(given[0], dict))
    if is_rows:
        return _as_inputs(client, deployment, workspace, given, source, option)
    return _tensors(given, source, option)


def rows_of(client: "Client", deployment: str, workspace: str, texts: Sequence[str]) -> dict[str, Any]:
    """Rows such as `1,2,null` as the tensors that the model takes. Raises InvalidInput."""
    return _as_inputs(client, deployment, workspace, [_values(text) for text in texts], "--row", "--data")


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


def _as_inputs(
    client: "Client", deployment: str, workspace: str, rows: Sequence[Any], source: str, option: str
) -> dict[str, Any]:
    """Rows as the tensors that the model says it takes: one matrix, or a column per input."""
    rows = [item if isinstance(item, list) else [item] for item in rows]
    width = len(rows[0]) if rows else 0
    for number, item in enumerate(rows):
        if len(item) != width:
            words = f"row {number + 1}: expected {width} values as in the first row, got {len(item)}"
            raise InvalidInput(Issue(source, words))
    inputs = metadata(client, deployment, workspace).get("inputs") or []
    if len(inputs) == 1 and len(inputs[0].get("shape", [])) != 1:
        return {inputs[0]["name"]: rows}
    if not inputs:
        raise InvalidInput(
            Issue(source, f"{deployment} does not say what it takes"),
            next_step=f"name the tensors: {option} '{{\"x\": [[1, 2]]}}'",
        )
    if width != len(inputs):
        names = ", ".join(str(item["name"]) for item in inputs)
        raise InvalidInput(
            Issue(source, f"expected {len(inputs)} values ({clean(names)[:300]}), got {width}")
        )
    return {item["name"]: _column(rows, index, item) for index, item in enumerate(inputs)}


def _column(rows: Sequence[list[Any]], index: int, tensor: dict[str, Any]) -> list[Any]:
    column = [row[index] for row in rows]
    return [[value] for value in column] if len(tensor.get("shape", [])) == 2 else column


def _tensors(given: Any, source: str, option: str) -> Any:
    """What `Client.predict` takes: `{"tensor": values}`, or the tensors of a whole request."""
    if isinstance(given, dict) and isinstance(given.get("inputs"), list) and given["inputs"]:
        first = given["inputs"][0]
        if isinstance(first, dict) and "datatype" in first:
            return given["inputs"]
    if not isinstance(given, dict | list) or not given:
        raise InvalidInput(
            Issue(source, "expected an object of tensors, a list of rows, or a request of the protocol"),
            next_step=f"for example {option} '{{\"x\": [[1, 2, null]]}}' or {option} '[[1, 2, null]]'",
        )
    return given


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
