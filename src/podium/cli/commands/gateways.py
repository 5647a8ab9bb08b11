"""gateway run, list, forget: one more gateway, who routes, and who has gone silent. Called by `application`."""

import os
import secrets
import socket
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.display import age, as_time, clean, coloured, print_table
from podium.cli.options import grouped
from podium.cli.output import emit, emit_list
from podium.cli.reporting import note
from podium.cli.session import Session, command, group, home_folder
from podium.resources.errors import InvalidInput, Issue, Refused

if TYPE_CHECKING:
    from podium.client import Client
    from podium.client.connection import Connection

_MONTH = 30 * 86400
_SILENT_SECONDS = 5.0
"""As the server has it: docs/gateway.md."""
_LOOK_SECONDS = 0.2
_GATEWAY_TLS = {"PODIUM_GATEWAY_TLS_CERT": "PODIUM_TLS_CERT", "PODIUM_GATEWAY_TLS_KEY": "PODIUM_TLS_KEY"}
"""Its own certificate, else the one for both parts."""
_PASSED_ON = (
    "PODIUM_GATEWAY_METRICS_PORT",
    "PODIUM_GATEWAY_MEMORY",
    "PODIUM_GATEWAY_RECORD_SIZE",
    "PODIUM_GATEWAY_RECORD_KEPT",
)
"""Settings that are as for the gateway of `podium up`."""


def build() -> typer.Typer:
    """The group `gateway`."""
    app = group("gateway", "Gateways: what each one has loaded, and which have gone silent.")
    command(app, "run")(run)
    command(app, "list")(list_gateways)
    command(app, "forget")(forget)
    return app


@dataclass(frozen=True)
class Serving:
    """Where it listens, and what it does about its clients."""

    port: Annotated[
        int, typer.Option("--port", metavar="PORT", help="Where it listens; 0 is any free one.")
    ] = 0
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="The address that it listens on.")
    ] = "127.0.0.1"
    notice: Annotated[
        int,
        typer.Option(
            "--notice",
            metavar="SECONDS",
            min=0,
            max=3600,
            help="When it is stopped: how long /v2/health/ready says no before new connections are refused, so that "
            "load balancers notice. A second Ctrl-C cuts it short.",
        ),
    ] = 5
    access_record: Annotated[
        str,
        typer.Option(
            "--access-record",
            metavar="PATH|off",
            help="Where a line about each request is written; `on` is gateway/access.log in its folder.",
        ),
    ] = "on"

    def told(self) -> dict[str, str]:
        """As the gateway's own settings have it."""
        return {
            "PODIUM_GATEWAY_HOST": self.host,
            "PODIUM_GATEWAY_PORT": str(self.port or _free_port(self.host)),
            "PODIUM_GATEWAY_NOTICE": str(self.notice),
            "PODIUM_GATEWAY_RECORD": _record_place(self.access_record),
        }


@grouped
def run(
    session: Session,
    name: Annotated[
        str, typer.Argument(help="What the server is to know it by; `local` is the one of `podium up`.")
    ],
    serving: Serving,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", metavar="DIR", help="Its files and its token; else PODIUM_HOME/gateways/NAME."
        ),
    ] = None,
    server_ca: Annotated[
        Path | None,
        typer.Option(
            "--server-ca",
            metavar="FILE",
            help="Who may have signed the server's certificate (PEM), beside those that the system knows; else "
            "PODIUM_SERVER_CA, else as --ca-file.",
        ),
    ] = None,
) -> None:
    """Run one more gateway of this server, in the foreground. Ctrl-C or SIGTERM stops it without losing a request:
    it says that it is going, serves on for --notice, lets requests under way end, and stops."""
    place = (folder or home_folder() / "gateways" / name).absolute()
    told = serving.told()
    signers = server_ca or os.environ.get("PODIUM_SERVER_CA")
    with (replace(session, ca_file=Path(signers)) if signers else session).client() as client:
        _require_free(client, name, place)
        told |= _told(name, client.connection)
        _require_token(client, name, place)
    scheme = "https" if "PODIUM_GATEWAY_TLS_CERT" in told else "http"
    host = f"[{serving.host}]" if ":" in serving.host else serving.host
    note(f"gateway {name}: {scheme}://{host}:{told['PODIUM_GATEWAY_PORT']}, files in {place}")
    sys.stdout.flush()
    # Nothing else of the caller's own: this gateway has a home, a port and a token of its own.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PODIUM_")}
    # With the token, `podium down` knows this very process again.
    told["PODIUM_PROCESS_TOKEN"] = secrets.token_hex(16)
    command_line = [sys.executable, "-m", "podium.app", "gateway", "--home", str(place), "--alone"]
    os.execve(sys.executable, command_line, environment | told)  # noqa: S606 - no shell


def _record_place(said: str) -> str:
    """As PODIUM_GATEWAY_RECORD has it. The one of the environment is the other gateway's file: none is shared."""
    if said.lower() in ("on", "off"):
        return said.lower()
    path = Path(said).expanduser().absolute()
    if path.is_dir() or not path.parent.is_dir():
        wanted = "expected on, off, or a file in a folder that is there"
        raise InvalidInput(Issue("--access-record", f"{wanted}, not {said[:200]!r}"))
    return str(path)


def _require_free(client: "Client", name: str, place: Path) -> None:
    """Raises Refused where another gateway of that name is alive. The server sees to it as well, but only once this one
    runs; and one that was killed a moment ago is no obstacle."""
    if place.joinpath("gateway.token").exists():
        return  # started again
    deadline, first = time.monotonic() + _SILENT_SECONDS + 1.0, None
    while (taken := next((row for row in client.gateways() if row["name"] == name), None)) is not None:
        first = first or taken
        seen = as_time(taken["seenAt"])
        if seen is None or (_now() - seen).total_seconds() > _SILENT_SECONDS or time.monotonic() > deadline:
            return
        if taken["seenAt"] != first["seenAt"]:
            raise Refused(
                f"a gateway {name} reports already, from {_whereabouts(taken)}",
                next_step="give this one another name, or stop that one first",
            )
        time.sleep(_LOOK_SECONDS)


def _whereabouts(row: dict[str, Any]) -> str:
    """Host, process and address, as far as it tells them."""
    instance, address = row.get("instance") or {}, (row.get("envoy") or {}).get("address", "")
    process = f"{instance['host']} (pid {instance['pid']})" if instance else ""
    return clean(", ".join(part for part in (process, f"address {address}" * bool(address)) if part))


def _require_token(client: "Client", name: str, place: Path) -> None:
    """A token of its own, which a gateway started again in the same folder keeps."""
    token_file = place / "gateway.token"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if token_file.exists():
        return
    issued = client.create_token(name, "gateway", workspaces=["*"], lifetime="365d")
    handle = os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(issued.token)


def _told(name: str, server: "Connection") -> dict[str, str]:
    """What this gateway needs to know: its name, its own certificate, the server, and how that is known."""
    from podium.client.trust import known_certificate

    told = {"PODIUM_GATEWAY_NAME": name, "PODIUM_SERVER_URL": server.url}
    told |= {variable: os.environ[variable] for variable in _PASSED_ON if os.environ.get(variable)}
    for variable, both in _GATEWAY_TLS.items():
        if found := os.environ.get(variable) or os.environ.get(both):
            told[variable] = str(Path(found).absolute())
    if not server.url.startswith("https:"):
        return told
    if server.ca_file is not None:
        told["PODIUM_SERVER_CA"] = str(server.ca_file.absolute())
    elif own := known_certificate(server.url, server.home) or os.environ.get("PODIUM_API_TLS_CERT"):
        told["PODIUM_SERVER_CERTIFICATE"] = str(Path(own).absolute())
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
