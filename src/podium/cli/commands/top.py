"""top: what goes on right now. Called by `application`; calls `cli.top`."""

import contextlib
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.display import wants_colour
from podium.cli.following import seconds_of
from podium.cli.output import emit_document
from podium.cli.session import Session, command
from podium.resources.errors import Forbidden, InvalidInput, Issue

if TYPE_CHECKING:
    from podium.cli.top import View
    from podium.client import Client

_FASTEST, _SLOWEST = 0.5, 3600.0


class Sort(StrEnum):
    """By which column, the highest first."""

    NAME = "name"
    RATE = "rate"
    ERRORS = "errors"
    REFUSED = "refused"
    P50 = "p50"
    P95 = "p95"
    P99 = "p99"
    CONCURRENCY = "concurrency"
    REPLICAS = "replicas"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "top")(top)


def top(
    session: Session,
    match: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A Deployment's or a Route's name, else a part of one, or a pattern with *.",
        ),
    ] = None,
    window: Annotated[
        str, typer.Option("--window", metavar="TIME", help="Over how long figures are taken, 5s to 15m.")
    ] = "30s",
    every: Annotated[str, typer.Option("--every", metavar="TIME", help="How often to look again.")] = "2s",
    sort: Annotated[Sort, typer.Option("--sort", help="By which column, the highest first.")] = Sort.NAME,
    once: Annotated[
        bool, typer.Option("--once", help="One look, as plain text; so it is where stdout is no terminal.")
    ] = False,
) -> None:
    """Requests/s, errors, latencies, replicas and weights of all Deployments and Routes, live. Ctrl-C ends it."""
    from podium.cli.top import follow, lines, view

    pause = seconds_of(every, "--every")
    if not _FASTEST <= pause <= _SLOWEST:
        raise InvalidInput(Issue("--every", f"expected {_FASTEST:g} s to {_SLOWEST:g} s, got {pause:g} s"))
    with session.client() as client:
        if not session.is_table:
            found = client.traffic(window, workspace=session.workspace)
            emit_document(session, found.model_dump(mode="json", by_alias=True))
            return

        def look() -> "View":
            traffic = client.traffic(window, workspace=session.workspace)
            return view(traffic, _gateways(client), sort=sort.value, match=match)

        if once or not wants_colour(sys.stdout):
            print("\n".join(lines(look())))
        else:
            follow(look, pause)


def _gateways(client: "Client") -> list[dict[str, object]]:
    """None where the token may not look at them: the figures are there all the same."""
    with contextlib.suppress(Forbidden):
        return list(client.gateways())
    return []
