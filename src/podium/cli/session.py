"""What every command has: the global options, the way to the server, and errors as lines with an exit code.

`command` registers a function as a Typer command and gives it a `Session` as its first argument. Called by all
modules under `commands`; calls `reporting` and, when a command asks for it, `podium.client`.
"""

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from podium.client import Client

Handler = Callable[..., None]
HOME_VARIABLE = "PODIUM_HOME"
HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


class Format(StrEnum):
    """How a result is written to stdout."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True)
class Session:
    """The global options of one call."""

    output: Format = Format.TABLE
    workspace: str | None = None
    """None: not given, so `default` where one is needed."""
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    verbose: int = 0

    @property
    def place(self) -> str:
        """The workspace to work in."""
        return self.workspace or "default"

    @property
    def is_table(self) -> bool:
        """Whether a person reads the result."""
        return self.output is Format.TABLE

    def client(self) -> "Client":
        """A client for the server; use it in a `with`. Raises Unavailable where no server is known."""
        from podium.client import Client

        return Client(url=self.url, token=self.token, workspace=self.place, ca_file=self.ca_file)


OutputOption = Annotated[
    Format, typer.Option("-o", "--output", help="How to print the result.", show_default=True)
]
WorkspaceOption = Annotated[
    str | None,
    typer.Option("-w", "--workspace", metavar="NAME", help="The workspace; `default` if left out."),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The server; else PODIUM_URL, else the one of `podium up`."),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        help="Discouraged: others on this machine can read a command line. Use PODIUM_TOKEN, or `podium up`'s file.",
    ),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        help="Who may have signed the server's certificate (PEM), beside those that the system knows; "
        "else PODIUM_CA_FILE.",
    ),
]
VerboseOption = Annotated[
    int, typer.Option("-v", "--verbose", count=True, help="Say more on stderr; -vv with tracebacks.")
]
_LOCAL: Mapping[str, tuple[Any, Any]] = {
    "output": (OutputOption, Format.TABLE),
    "verbose": (VerboseOption, 0),
}
_REMOTE: Mapping[str, tuple[Any, Any]] = {
    "output": (OutputOption, Format.TABLE),
    "workspace": (WorkspaceOption, None),
    "url": (UrlOption, None),
    "token": (TokenOption, None),
    "ca_file": (CaFileOption, None),
    "verbose": (VerboseOption, 0),
}
GLOBAL_OPTIONS = ("--output", "--workspace", "--url", "--token", "--ca-file", "--verbose")


def command(
    app: typer.Typer, name: str, *, local: bool = False, passes_on: bool = False
) -> Callable[[Handler], Handler]:
    """Register `function(session, ...)` as the command `name`.

    `local`: it talks to no server, so it has no options to find one. `passes_on`: what follows it on the command
    line goes to another program unread.
    """
    settings = {"allow_extra_args": True, "ignore_unknown_options": True} if passes_on else {}

    def register(function: Handler) -> Handler:
        # What a list of commands says of it: the first sentence, whole.
        about = " ".join((function.__doc__ or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")
        run = _with_session(function, _LOCAL if local else _REMOTE)
        app.command(name, context_settings=settings, short_help=about)(run)
        return function

    return register


def _with_session(function: Handler, options: Mapping[str, tuple[Any, Any]]) -> Handler:
    @functools.wraps(function)
    def run(**given: Any) -> None:
        session = Session(**{name: given.pop(name) for name in options})
        _configure_logging(session.verbose)
        from podium.cli.reporting import reported

        with reported(session.verbose):
            function(session, **given)

    own = list(inspect.signature(function).parameters.values())[1:]
    taken = {parameter.name for parameter in own} & set(options)
    assert not taken, f"{function.__name__}: {taken} are global options"  # noqa: S101 - a mistake of ours
    own += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in options.items()
    ]
    # Typer reads both to find out what to parse.
    run.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in own}
    return run


def _configure_logging(verbose: int) -> None:
    if verbose:
        level = logging.DEBUG if verbose > 1 else logging.INFO
        logging.basicConfig(level=level, stream=sys.stderr, format="%(name)s: %(message)s")
        # Its debug lines are about sockets, not about what Podium does.
        logging.getLogger("httpcore").setLevel(logging.INFO)


def group(name: str, about: str) -> typer.Typer:
    """An empty group of commands, set up like the whole."""
    return typer.Typer(
        name=name,
        help=about,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings=HELP,
    )


def home_folder(given: Path | None = None) -> Path:
    """The installation on this machine: what was given, PODIUM_HOME, or `~/.podium`."""
    home = (given or Path(os.environ.get(HOME_VARIABLE) or Path.home() / ".podium")).expanduser()
    return home if home.is_absolute() else Path.cwd() / home
