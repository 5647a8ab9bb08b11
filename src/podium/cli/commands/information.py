"""version and schema: need no server. Called by `application`."""

import platform
import sys
from typing import Annotated

import typer

from podium.cli.output import emit, emit_document
from podium.cli.session import Format, Session, command


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "schema", local=True)(schema)
    command(app, "version", local=True)(version)


def version(session: Session) -> None:
    """The version of Podium, and of the Python that runs it."""
    from podium import __version__

    found = {"podium": __version__, "python": platform.python_version(), "platform": sys.platform}
    emit(session, found, lambda: print(f"podium {__version__} (Python {found['python']}, {sys.platform})"))


def schema(
    session: Session,
    kind: Annotated[str | None, typer.Argument(help="Left out: which kinds there are.")] = None,
) -> None:
    """The JSON Schema of a kind, for editors and checks; without a kind the list of them."""
    from podium.resources.kinds import KINDS, json_schema, kind_of

    if kind is not None:
        # A schema is JSON: there is no table of it.
        wanted = Session(output=Format.JSON if session.is_table else session.output)
        emit_document(wanted, json_schema(kind_of(kind)))
        return
    items = [
        {
            "kind": entry.name,
            "plural": entry.plural,
            "short": entry.short,
            "applied": entry.applied,
            "description": entry.description,
        }
        for entry in KINDS.values()
    ]

    def as_table() -> None:
        from podium.cli.display import print_table

        print_table(
            ["KIND", "PLURAL", "SHORT", "APPLIED", "DESCRIPTION"],
            [
                [i["kind"], i["plural"], i["short"], "yes" if i["applied"] else "no", i["description"]]
                for i in items
            ],
        )

    emit(session, {"items": items}, as_table)
