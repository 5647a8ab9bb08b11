"""gateway run, list, forget: one more gateway, who routes, and who has gone silent. Called by `application`."""

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from podium.cli.display import age, as_time, clean, coloured, print_table
from podium.cli.output import emit, emit_list
from podium.cli.reporting import note
from podium.cli.session import Session, command, group, home_folder
from podium.resources.errors import InvalidInput, Issue

if TYPE_CHECKING:
    from podium.client import Client

_MONTH = 30 * 86400
_SILENT_SECONDS = 5.0
"""As the server has it: docs/gateway.md."""
_GATEWAY_TLS = {"PODIUM_GATEWAY_TLS_CERT": "PODIUM_TLS_CERT", "PODIUM_GATEWAY_TLS_KEY": "PODIUM_TLS_KEY"}
_API_TLS = {"PODIUM_API_TLS_CERT": "PODIUM_TLS_CERT", "PODIUM_API_TLS_KEY": "PODIUM_TLS_KEY"}
"""Certificates: the part's own, else the one for both."""


def build() -> typer.Typer:
    """The group `gateway`."""
    app = group("gateway", "Gateways: what each one has loaded, and which have gone silent.")
    command(app, "run")(run)
    command(app, "list")(list_gateways)
    command(app, "forget")(forget)
    return app


def run(
    session: Session,
    name: Annotated[
        str, typer.Argument(help="What the server is to know it by; `local` is the one of `podium up`.")
    ],
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", help="Where it listens; 0 is any free one.")
    ] = 0,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="The address that it listens on.")
    ] = "127.0.0.1",
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", metavar="DIR", help="Its files and its token; else PODIUM_HOME/gateways/NAME."
        ),
    ] = None,
) -> None:
    """Run one more gateway of this server, in the foreground. Ctrl-C or SIGTERM lets requests under way end and
    stops it."""
    place = (folder or home_folder() / "gateways" / name).absolute()
    with session.client() as client:
        _require_free(client, name, place)
        server = urlsplit(client.connection.url)
        told = _told(name, secure=server.scheme == "https")
        if server.path:
            raise InvalidInput(Issue("--url", f"expected http://host:port, got {client.connection.url}"))
        token_file = place / "gateway.token"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not token_file.exists():
            issued = client.create_token(name, "gateway", workspaces=["*"], lifetime="365d")
            handle = os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(issued.token)
    port = port or _free_port(host)
    scheme = "https" if "PODIUM_GATEWAY_TLS_CERT" in told else "http"
    note(f"gateway {name}: {scheme}://{f'[{host}]' if ':' in host else host}:{port}, files in {place}")
    sys.stdout.flush()
    # Nothing else of the caller's own: this gateway has a home, a port and a token of its own.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PODIUM_")}
    arguments = [
        "--home", str(place), "--api-host", server.hostname or "127.0.0.1", "--api-port", str(server.port or 80),
        "--gateway-host", host, "--gateway-port", str(port), "--alone",
    ]  # fmt: skip
    command_line = [sys.executable, "-m", "podium.app", "gateway", *arguments]
    os.execve(sys.executable, command_line, environment | told)  # noqa: S606 - no shell


def _require_free(client: "Client", name: str, place: Path) -> None:
    """Two gateways of one name would take each other's place on record: nobody could say what is loaded where."""
    taken = next((row for row in client.gateways() if row["name"] == name), None)
    if taken is None or place.joinpath("gateway.token").exists():
        return
    seen = as_time(taken["seenAt"])
    if seen is not None and (_now() - seen).total_seconds() <= _SILENT_SECONDS:
        address = (taken.get("envoy") or {}).get("address", "")
        raise InvalidInput(
            Issue("NAME", f"a gateway {name} reports already, from {address}: give this one another name")
        )


def _told(name: str, *, secure: bool) -> dict[str, str]:
    """What of the environment is this gateway's: its name, and certificates as for `podium up`."""
    told = {"PODIUM_GATEWAY_NAME": name}
    if port := os.environ.get("PODIUM_GATEWAY_METRICS_PORT"):
        told["PODIUM_GATEWAY_METRICS_PORT"] = port
    for variable, both in {**_GATEWAY_TLS, **(_API_TLS if secure else {})}.items():
        if found := os.environ.get(variable) or os.environ.get(both):
            told[variable] = found
    if secure and "PODIUM_API_TLS_CERT" not in told:
        raise InvalidInput(
            Issue("--url", "the server speaks TLS: its certificate is needed to follow it"),
            next_step="set PODIUM_API_TLS_CERT and PODIUM_API_TLS_KEY as for the server",
        )
    return told


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


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
    problems += [
        f"{one.get('deployment') or one.get('route')}: {one.get('error')}"
        for one in item.get("rejected") or []
    ]
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
