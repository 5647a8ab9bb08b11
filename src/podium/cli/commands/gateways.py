"""gateway list, forget: who routes, and who has gone silent. Called by `application`."""

from typing import Annotated, Any

import typer

from podium.cli.display import age, as_time, clean, coloured, print_table
from podium.cli.output import emit, emit_list
from podium.cli.session import Session, command, group

_MONTH = 30 * 86400
_SILENT_SECONDS = 5.0
"""As the server has it: docs/gateway.md."""


def build() -> typer.Typer:
    """The group `gateway`."""
    app = group("gateway", "Gateways: what each one has loaded, and which have gone silent.")
    command(app, "list")(list_gateways)
    command(app, "forget")(forget)
    return app


def list_gateways(
    session: Session,
    everyone: Annotated[
        bool,
        typer.Option(
            "--all", help="Also those that were silent for over ten minutes: nothing waits for them."
        ),
    ] = False,
) -> None:
    """The gateways: the version that each has loaded, how far behind it is, and when it last reported."""
    with session.client() as client:
        found = client.gateways(since=_MONTH if everyone else None)
        version = int(client.ready().get("resourceVersion") or 0)
    items = [_item(row, version) for row in found]

    def as_table() -> None:
        if not items:
            print("no gateway has reported lately; podium gateway list --all shows older ones")
            return
        print_table(
            ["NAME", "ADDRESS", "LOADED", "BEHIND", "SEEN", "STATE", "PROBLEM"],
            [_row(item) for item in items],
        )

    emit_list(session, items, as_table)


def _item(row: dict[str, Any], version: int) -> dict[str, Any]:
    """As the API has it, with `silent` and `behind` (commits that it has not loaded yet)."""
    seen = as_time(row["seenAt"])
    now = _now()
    silent = seen is None or (now - seen).total_seconds() > _SILENT_SECONDS
    return {**row, "silent": silent, "behind": max(0, version - int(row["observedVersion"]))}


def _now() -> Any:
    import datetime

    return datetime.datetime.now(datetime.UTC)


def _row(item: dict[str, Any]) -> list[object]:
    envoy = item.get("envoy") or {}
    problems = [str(envoy.get("problem") or "")]
    problems += [f"{one.get('deployment')}: {one.get('error')}" for one in item.get("rejected") or []]
    state = "silent" if item["silent"] else str(envoy.get("state") or "serving")
    return [
        item["name"], envoy.get("address", ""), item["observedVersion"], item["behind"] or "",
        f"{age(item['seenAt'])} ago", coloured(state, "red" if item["silent"] else None),
        "; ".join(clean(problem) for problem in problems if problem)[:200],
    ]  # fmt: skip


def forget(
    session: Session,
    name: Annotated[str, typer.Argument(help="As `gateway list` shows it.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also one that still reports: until its next report.")
    ] = False,
) -> None:
    """Wait no longer for a gateway that is gone. An Envoy that still runs there goes on with what it had loaded."""
    with session.client() as client:
        was = client.forget_gateway(name, force=force)
    emit(
        session, was, lambda: print(f"gateway {clean(name)} is forgotten; last seen {age(was['seenAt'])} ago")
    )
