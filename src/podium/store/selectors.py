"""Label and field selectors: from their text to SQL over the table `selectors`, and the rows of that table.

Called by `resources`; calls nothing. The syntax is Kubernetes': `a=b`, `a==b`, `a!=b`, `a in (x,y)`, `a notin (x)`,
`a` (is set) and `!a` (is not set), joined by commas. As there, `!=` and `notin` also match where nothing is set.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, delete, exists, insert

from podium.resources.errors import InvalidInput, Issue
from podium.resources.kinds import Kind
from podium.store.tables import resources
from podium.store.tables import selectors as table

MAX_LENGTH = 4096
MAX_TERMS = 32
_METADATA = {"metadata.name": resources.c.name, "metadata.workspace": resources.c.workspace}
_TERM = re.compile(
    r"""\s*(?:
        !\s*(?P<unset>[^\s,()=!]+)
      | (?P<set_path>[^\s,()=!]+)\s+(?P<set_operator>in|notin)\s*\(\s*(?P<values>[^()]*)\)
      | (?P<path>[^\s,()=!]+)\s*(?:(?P<operator>==|!=|=)\s*(?P<value>[^\s,()=!]*))?
    )\s*""",
    re.VERBOSE,
)
Source = Literal["label", "field"]


@dataclass(frozen=True)
class Term:
    """One condition: `path` has one of `values` (None: has any), or not so if `negated`."""

    path: str
    values: tuple[str, ...] | None
    negated: bool = False


def parse(text: str, parameter: str) -> list[Term]:
    """The terms of a selector. Raises InvalidInput that names the parameter and the place."""
    if len(text) > MAX_LENGTH:
        raise InvalidInput(Issue(parameter, f"expected at most {MAX_LENGTH} characters"))
    terms = list(_scan(text, parameter)) if text.strip() else []
    if len(terms) > MAX_TERMS:
        raise InvalidInput(Issue(parameter, f"expected at most {MAX_TERMS} terms"))
    return terms


def _scan(text: str, parameter: str) -> Iterator[Term]:
    position = 0
    while True:
        match = _TERM.match(text, position)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            rest = text[position:].strip()[:40]
            raise InvalidInput(
                Issue(
                    parameter, f"can't read {rest!r}; expected a=b, a!=b, a in (x,y), a notin (x,y), a or !a"
                )
            )
        yield _term(match)
        if match.end() == len(text):
            return
        position = match.end() + 1


def _term(match: re.Match[str]) -> Term:
    if match["unset"] is not None:
        return Term(match["unset"], None, negated=True)
    if match["set_path"] is not None:
        values = tuple(value.strip() for value in match["values"].split(","))
        return Term(match["set_path"], values, negated=match["set_operator"] == "notin")
    if match["operator"] is None:
        return Term(match["path"], None)
    return Term(match["path"], (match["value"],), negated=match["operator"] == "!=")


def conditions(kind: Kind, labels: str | None, fields: str | None) -> list[ColumnElement[bool]]:
    """What a query over `resources` has to ask for. Raises InvalidInput; for an unknown field it lists the known."""
    found = [_condition("label", term) for term in parse(labels or "", "labelSelector")]
    known = (*_METADATA, *kind.fields)
    for term in parse(fields or "", "fieldSelector"):
        if term.path not in known:
            raise InvalidInput(
                Issue(
                    "fieldSelector",
                    f"unknown field {term.path[:80]!r} of {kind.name}; known: {', '.join(known)}",
                )
            )
        found.append(_metadata_condition(term) if term.path in _METADATA else _condition("field", term))
    return found


def _metadata_condition(term: Term) -> ColumnElement[bool]:
    column = _METADATA[term.path]
    matches = column != "" if term.values is None else column.in_(term.values)
    return ~matches if term.negated else matches


def _condition(source: Source, term: Term) -> ColumnElement[bool]:
    here = (table.c.uid == resources.c.uid) & (table.c.source == source) & (table.c.path == term.path)
    if term.values is None:
        matches: ColumnElement[bool] = exists().where(here)
    else:
        matches = exists().where(here & table.c.value.in_(term.values))
        if source == "field" and "" in term.values:
            matches = matches | ~exists().where(
                here
            )  # a field that is not set is the empty text, as in Kubernetes
    return ~matches if term.negated else matches


def entries(kind: Kind, row: Mapping[str, Any]) -> dict[tuple[Source, str], str]:
    """What the table holds for an object, by source and path. `row`: its columns, see `resources.to_row`."""
    found: dict[tuple[Source, str], str] = {("label", key): value for key, value in row["labels"].items()}
    for path in kind.fields:
        value: Any = row
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found["field", path] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def write(
    connection: Connection,
    uid: str,
    before: Mapping[tuple[Source, str], str],
    after: Mapping[tuple[Source, str], str],
) -> None:
    """Only what differs is written: most changes of a status move no selector."""
    for source, path in [key for key, value in before.items() if after.get(key) != value]:
        connection.execute(
            delete(table).where(table.c.uid == uid, table.c.source == source, table.c.path == path)
        )
    added = [
        {"uid": uid, "source": key[0], "path": key[1], "value": value}
        for key, value in after.items()
        if before.get(key) != value
    ]
    if added:
        connection.execute(insert(table), added)
