"""The Typer application: which commands there are. Called by `podium.cli.main`."""

import sys
from typing import Annotated

import typer

from podium.cli.commands import (
    applying,
    comparing,
    demonstration,
    diagnosis,
    gateways,
    information,
    load,
    local,
    models,
    objects,
    predictions,
    records,
    rollouts,
    routes,
    tokens,
    top,
)
from podium.cli.session import HELP, Session

_ABOUT = "Podium: puts model versions into production, watches them, and takes bad ones back by itself."


def _tell_version(context: typer.Context, wanted: bool) -> None:
    # A shell that completes a command line only asks what could come.
    if wanted and not context.resilient_parsing:
        information.version(Session())
        raise typer.Exit


def build() -> typer.Typer:
    """The whole tree of commands."""
    # Plain help: Rich's takes longer to import than `podium --help` may take as a whole.
    app = typer.Typer(
        name="podium",
        help=_ABOUT,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=HELP,
    )
    app.callback()(_before)
    for part in (
        local,
        diagnosis,
        applying,
        objects,
        rollouts,
        routes,
        comparing,
        records,
        predictions,
        load,
        top,
    ):
        part.register(app)
    app.add_typer(models.build(), name="model")
    app.add_typer(tokens.build(), name="token")
    app.add_typer(gateways.build(), name="gateway")
    for last in (information, demonstration):
        last.register(app)
    return app


def _before(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="The version, and exit.")
    ] = False,
) -> None:
    pass  # What stands before the command: only what ends by itself.


def run() -> None:
    """Parse the command line and exit with the command's code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows a question mark instead of ending the command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    build()(prog_name="podium")
