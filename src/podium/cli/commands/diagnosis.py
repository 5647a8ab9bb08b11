"""doctor: is this machine fit to run Podium? Called by `application`; calls `checks`."""

import typer

from podium.cli.commands.local import HomeOption
from podium.cli.display import clean, coloured
from podium.cli.exits import Exit
from podium.cli.output import emit
from podium.cli.session import Session, command, home_folder


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "doctor", local=True)(doctor)


def doctor(session: Session, home: HomeOption = None) -> None:
    """Check this machine: each check says ok, warn or fail, and what to do about it. Exit code 1 if any fails."""
    from podium.cli.checks import run_all
    from podium.cli.installation import Installation

    checks = run_all(Installation(home_folder(home)))
    failed = [check for check in checks if check.level == "fail"]

    def as_table() -> None:
        width = max(len(check.name) for check in checks)
        for check in checks:
            level = coloured(f"{check.level:<4}", style_for(check.level))
            print(f"{level}  {check.name:<{width}}  {clean(check.message)}")
            if check.next_step:
                print(f"{'':<4}  {'':<{width}}  next: {clean(check.next_step)}")

    emit(session, {"healthy": not failed, "checks": [check.document() for check in checks]}, as_table)
    if failed:
        raise typer.Exit(Exit.ERROR)


def style_for(level: str) -> str:
    """The colour of a level."""
    return {"ok": "green", "warn": "yellow", "fail": "red"}[level]
