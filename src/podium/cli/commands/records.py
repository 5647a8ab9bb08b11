"""logs, events, audit: what happened. Called by `application`; calls the client."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.display import clean, clean_line, clock, coloured, print_table
from podium.cli.output import emit_line, emit_list
from podium.cli.session import Session, command

if TYPE_CHECKING:
    from podium.client import Client

CountOption = Annotated[
    int, typer.Option("-n", "--limit", metavar="N", min=1, max=100_000, help="How many, the newest.")
]
ForOption = Annotated[
    str | None, typer.Option("--for", metavar="KIND[/NAME]", help="Only of this kind, or of this object.")
]
EverywhereOption = Annotated[
    bool, typer.Option("-A", "--all-workspaces", help="Of every workspace that the token covers.")
]
_LOOK_SECONDS = 1.0
_FOLLOWED_LINES = 2000
_OVERLAP = 50


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "logs")(logs)
    command(app, "events")(events)
    command(app, "audit")(audit)


def logs(
    session: Session,
    deployment: Annotated[str, typer.Argument(help="The Deployment.")],
    replica: Annotated[
        str | None, typer.Option("--replica", metavar="NAME", help="Only this replica's.")
    ] = None,
    lines: Annotated[
        int,
        typer.Option("-n", "--lines", metavar="N", min=1, max=10_000, help="The last lines of each replica."),
    ] = 100,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is written, until Ctrl-C.")
    ] = False,
) -> None:
    """What the replicas of a Deployment wrote."""
    with session.client() as client:
        found = client.logs(deployment, replica=replica, lines=lines)
        if not follow:
            items = [{"replica": log.replica, "lines": list(log.lines)} for log in found]
            emit_list(session, items, lambda: _print_logs({log.replica: list(log.lines) for log in found}))
            return
        seen: dict[str, list[str]] = {}
        while True:
            for log in found:
                fresh = after(seen.get(log.replica), list(log.lines))
                seen[log.replica] = list(log.lines)
                for line in fresh:
                    item = {"replica": log.replica, "line": line}
                    emit_line(session, item, _line(log.replica, line))
            time.sleep(_LOOK_SECONDS)
            found = client.logs(deployment, replica=replica, lines=_FOLLOWED_LINES)


def after(before: Sequence[str] | None, now: Sequence[str]) -> list[str]:
    """The lines of `now` that come after those of `before`; all of them where the two do not overlap."""
    if not before:
        return list(now)
    tail = list(before[-_OVERLAP:])
    for end in range(len(now), 0, -1):
        width = min(len(tail), end)
        if list(now[end - width : end]) == tail[-width:] and (width == len(tail) or end == width):
            return list(now[end:])
    return list(now)


def _line(replica: str, line: str) -> str:
    return f"{coloured(clean(replica), 'dim')} {clean_line(line)}"


def _print_logs(found: dict[str, list[str]]) -> None:
    from podium.cli.reporting import note

    if not found:
        note("no replica has written anything")
    for replica, lines in found.items():
        for line in lines:
            print(_line(replica, line))


def _target(text: str | None) -> tuple[str | None, str | None]:
    """`deployment/churn` as (kind, name). Raises InvalidInput for a kind that there is not."""
    if text is None:
        return None, None
    kind, _, name = text.partition("/")
    if kind.lower() in ("token", "tokens"):
        return "Token", name or None
    from podium.resources.kinds import kind_of

    return kind_of(kind).name, name or None


def events(
    session: Session,
    target: ForOption = None,
    limit: CountOption = 50,
    everywhere: EverywhereOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with new ones, until Ctrl-C.")] = False,
) -> None:
    """What happened to objects, the newest last."""
    kind, name = _target(target)
    workspace = None if everywhere else session.place
    with session.client() as client:
        found = list(reversed(client.events(workspace=workspace, kind=kind, name=name, limit=limit)))
        if watch:
            _watch_events(
                session,
                client,
                found,
                lambda: client.events(workspace=workspace, kind=kind, name=name, limit=200),
            )
            return

    def as_table() -> None:
        rows = [
            [clock(row["at"]), row["type"], row["reason"], f"{row['kind']}/{row['name']}",
             row["message"] + (f" (x{row['count']})" if row.get("count", 1) > 1 else "")]
            for row in found
        ]  # fmt: skip
        print_table(["AT", "TYPE", "REASON", "OBJECT", "MESSAGE"], rows)

    emit_list(session, found, as_table)


def _watch_events(
    session: Session,
    client: "Client",
    first: Sequence[dict[str, Any]],
    read: Callable[[], Sequence[dict[str, Any]]],
) -> None:
    """An event that repeats is counted up in its row, so a row is new when its count is."""
    seen: dict[int, int] = {}
    rows: Sequence[dict[str, Any]] = first
    while True:
        for row in rows:
            if seen.get(row["id"]) == row["count"]:
                continue
            seen[row["id"]] = row["count"]
            emit_line(session, row, _event_line(row))
        time.sleep(_LOOK_SECONDS)
        rows = list(reversed(read()))


def _event_line(row: dict[str, Any]) -> str:
    where = clean(f"{row['kind']}/{row['name']}")
    words = f"{clean(row['reason'])}  {where}  {clean(row['message'])}"
    return f"{clock(row['at'])}  {coloured(clean(row['type']))}  {words}"


def audit(
    session: Session,
    target: ForOption = None,
    limit: CountOption = 50,
    everywhere: EverywhereOption = False,
) -> None:
    """Who changed what, the newest last."""
    kind, name = _target(target)
    workspace = None if everywhere or kind == "Token" else session.place
    with session.client() as client:
        found = list(reversed(client.audit(workspace=workspace, kind=kind, name=name, limit=limit)))

    def as_table() -> None:
        rows = [
            [clock(row["at"]), row["actor"], row["verb"],
             "/".join(part for part in (row["kind"], row["name"]) if part), row["summary"]]
            for row in found
        ]  # fmt: skip
        print_table(["AT", "WHO", "WHAT", "OBJECT", "SUMMARY"], rows)

    emit_list(session, found, as_table)
