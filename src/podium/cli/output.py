"""Results in the three formats of `-o`. JSON and YAML are the API's objects, or the shapes that docs/cli.md describes.

Called by all commands.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from podium.cli.session import Format, Session


def emit(session: Session, result: Any, as_table: Callable[[], None]) -> None:
    """The result as JSON or YAML, or whatever `as_table` prints."""
    if session.output is Format.TABLE:
        as_table()
    else:
        emit_document(session, result)


def emit_document(session: Session, result: Any) -> None:
    """One value as JSON, or as one YAML document; for `table`, too, since there is no better table of it."""
    print(as_yaml(result) if session.output is not Format.JSON else as_json(result), end="")


def emit_list(session: Session, items: Sequence[Mapping[str, Any]], as_table: Callable[[], None]) -> None:
    """Objects: `{"items": [...]}` in JSON; in YAML one document each, so that the output can be applied again."""
    if session.output is Format.TABLE:
        as_table()
    elif session.output is Format.JSON:
        print(as_json({"items": list(items)}), end="")
    else:
        print("---\n".join(as_yaml(item) for item in items), end="")


def emit_line(session: Session, item: Mapping[str, Any], line: str) -> None:
    """One of a stream: a line of JSON, a YAML document, or a line for people. Written at once."""
    if session.output is Format.TABLE:
        print(line, flush=True)
    elif session.output is Format.JSON:
        print(json.dumps(item, ensure_ascii=False), flush=True)
    else:
        print(f"---\n{as_yaml(item)}", end="", flush=True)


def as_json(value: Any) -> str:
    """Indented, with a newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def as_yaml(value: Any) -> str:
    """In the order of the API, with a newline at the end."""
    import yaml

    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=100))
