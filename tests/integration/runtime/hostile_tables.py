"""Rows and columns as MLflow's and KServe's first protocol send them, right and wrong. Called by `hostile`."""

import json
import random
from typing import Any

from tests.integration.runtime.case import STRANGE, Case, post

_V1 = "/v1/models/churn:predict"
_MLFLOW = "/invocations"
_NOT_WHOLE: list[Any] = ["7", 1.5, True, 2**31, 10**400, None, [1, 2], {"a": 1}, "", "\u0663"]
"""What no INT32 may be."""


def _columns(chance: random.Random, rows: int) -> dict[str, list[Any]]:
    """Values by column that suit the model."""
    columns: dict[str, list[Any]] = {"n": [chance.randint(-(2**31), 2**31 - 1) for _ in range(rows)]}
    if chance.random() < 0.5:
        columns["x"] = [[chance.uniform(-9, 9) for _ in range(3)] for _ in range(rows)]
    if chance.random() < 0.3:
        columns["flag"] = [chance.random() < 0.5 for _ in range(rows)]
    if chance.random() < 0.3:
        columns["text"] = [chance.choice(["", "a", "é\n"]) for _ in range(rows)]
    return columns


def _broken(chance: random.Random, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The same columns with something that has to be refused."""
    match chance.randrange(4):
        case 0:
            columns["n"][chance.randrange(len(columns["n"]))] = chance.choice(_NOT_WHOLE)
        case 1:
            del columns["n"]
            columns["text"] = ["a"]
        case 2:
            columns[chance.choice(["nobody", "", "N"])] = [1] * len(columns["n"])
        case _:
            columns["text"] = [1] * len(columns["n"])
    return columns


def _document(chance: random.Random, columns: dict[str, list[Any]]) -> tuple[str, dict[str, Any]]:
    """A path and a document that has these columns in one of the forms that the path takes."""
    names = list(columns)
    # Where a column has been broken its length may be another one: rows end with the shortest.
    rows = [list(row) for row in zip(*columns.values(), strict=False)]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    forms: list[tuple[str, dict[str, Any]]] = [
        (_V1, {"instances": records}),
        (_V1, {"inputs": columns}),
        (_MLFLOW, {"instances": records}),
        (_MLFLOW, {"inputs": columns}),
        (_MLFLOW, {"dataframe_records": records}),
        (_MLFLOW, {"dataframe_split": {"columns": names, "data": rows}}),
    ]
    return chance.choice(forms)


def documents(chance: random.Random) -> Case:
    """Tables in JSON, some of them right, some with a value, a column or a form that must be refused."""
    columns, right = _columns(chance, chance.choice([1, 2, 5])), chance.random() < 0.4
    path, document = _document(chance, columns if right else _broken(chance, columns))
    if right and chance.random() < 0.3:
        right = False
        broken: list[Any] = [
            {**document, "inputs": {"n": [1]}, "instances": [{"n": 1}]}, [document], {}, {"instances": []},
            {"inputs": {}}, {"instances": [{"n": 1}, {"n": 1, "text": "a"}]}, {"inputs": {"n": [1], "text": []}},
            {"dataframe_split": {"columns": ["n", "n"], "data": [[1, 1]]}}, {"predict": {"n": [1]}}, None,
            {"dataframe_split": {"columns": ["n"], "data": [[1, 2]]}}, {"inputs": {"n": [[[[1]]]]}},
        ]  # fmt: skip
        document = chance.choice(broken)
    body = json.dumps(document).encode()
    return Case(f"{path[:4]} documents", post(body, path), refused=not right, accepted=right)


def changed_tables(chance: random.Random) -> Case:
    """A right table with values replaced by strange ones, or bytes changed: no 5xx, whatever is made of it."""
    path, document = _document(chance, _columns(chance, 2))
    if chance.random() < 0.5:
        holder: Any = document
        while isinstance(holder, dict | list) and holder:
            key = chance.choice(list(holder) if isinstance(holder, dict) else list(range(len(holder))))
            if chance.random() < 0.4 or not isinstance(holder[key], dict | list):
                holder[key] = chance.choice(STRANGE)
                break
            holder = holder[key]
        return Case(f"{path[:4]} changed", post(json.dumps(document).encode(), path))
    body = bytearray(json.dumps(document).encode())
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(body))
        body[at : at + chance.randint(0, 3)] = chance.choice(
            [b"", b"\0", b"]", b"{", b"NaN", b"\xff", b"1e999", b'"']
        )
        body = body or bytearray(b" ")
    try:
        json.loads(bytes(body))
        refused = False
    except (ValueError, RecursionError):
        refused = True
    return Case(f"{path[:4]} changed", post(bytes(body), path), refused=refused)


def csv(chance: random.Random) -> Case:
    """CSV with cells that are no numbers, rows of another length, columns that are not there; some are right."""
    rows = chance.choice([1, 2, 5])
    table = [["n", "flag"], *([str(chance.randint(-(2**31), 2**31 - 1)), chance.choice(["True", "False"])]
             for _ in range(rows))]  # fmt: skip
    right = chance.random() < 0.4
    if not right:
        match chance.randrange(6):
            case 0:
                cells = [
                    "1_000",
                    "\u0663",
                    "9" * 400,
                    "1.5",
                    "x",
                    "0x10",
                    "1e3.5",
                    "",
                    "nan",
                    "inf",
                    str(2**31),
                    "--1",
                ]
                table[chance.randint(1, rows)][0] = chance.choice(cells)
            case 1:
                table[chance.randint(1, rows)].append("1")
            case 2:
                table[0][0] = chance.choice(["nobody", "N", "flag"])
            case 3:
                table = table[:1]
            case 4:
                table[chance.randint(1, rows)][1] = chance.choice(["yes", "2", "\0"])
            case _:
                table[0][1] = "x"
    body = "".join(",".join(row) + "\n" for row in table).encode()
    charset = chance.random()
    kind = (
        "text/csv"
        if charset < 0.8
        else "text/csv; charset=utf-8"
        if charset < 0.9
        else "text/csv; charset=latin-1"
    )
    if charset >= 0.9:
        right = False
    return Case("/inv csv", post(body, _MLFLOW, content_type=kind), refused=not right, accepted=right)
