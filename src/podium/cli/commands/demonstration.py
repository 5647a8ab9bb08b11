"""demo: the whole story on real data. Called by `application`; calls `podium.demo`."""

from pathlib import Path
from typing import Annotated

import typer

from podium.cli.session import Session, command


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "demo", local=True)(demo)


def demo(
    session: Session,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running at the end, to look around.")
    ] = False,
    home: Annotated[
        Path | None,
        typer.Option("--home", metavar="FOLDER", help="Where; else a folder that is removed at the end."),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Also write what was printed as a picture.")
    ] = None,
) -> None:
    """A model goes live, bad versions are taken back by themselves. Runs a Podium of its own, under live traffic."""
    from rich.console import Console

    from podium.demo.story import run

    # A picture has a width of its own, and no spinner in it.
    screen = (
        Console(highlight=False, record=True, width=118, force_interactive=False)
        if svg
        else Console(highlight=False)
    )
    code = run(screen, home=home, keep=keep, svg=svg)
    if code:
        raise typer.Exit(code)
