"""up, down, status: the Podium of this machine. Called by `application`; calls `installation` and the client."""

import os
import shlex
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.display import clean
from podium.cli.exits import Exit
from podium.cli.following import seconds_of
from podium.cli.output import emit
from podium.cli.progress import Activity
from podium.cli.reporting import note
from podium.cli.session import Session, command, home_folder
from podium.resources.errors import PodiumError, Refused, Unavailable

if TYPE_CHECKING:
    import subprocess

    from podium.cli.installation import Installation

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="FOLDER", help="This installation's folder; else PODIUM_HOME, else ~/.podium."
    ),
]
ApiPortOption = Annotated[
    int | None,
    typer.Option(
        "--api-port",
        metavar="PORT",
        min=0,
        max=65535,
        help="Else PODIUM_API_PORT, else 6780; 0: any free one.",
    ),
]
GatewayPortOption = Annotated[
    int | None,
    typer.Option(
        "--gateway-port",
        metavar="PORT",
        min=0,
        max=65535,
        help="Else PODIUM_GATEWAY_PORT, else 6781; 0: any free one.",
    ),
]
ApiHostOption = Annotated[
    str | None, typer.Option("--api-host", metavar="ADDRESS", help="Else PODIUM_API_HOST, else 127.0.0.1.")
]
GatewayHostOption = Annotated[
    str | None,
    typer.Option("--gateway-host", metavar="ADDRESS", help="Else PODIUM_GATEWAY_HOST, else 127.0.0.1."),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert",
        metavar="FILE",
        help="TLS for API and gateway with this certificate (PEM, with its chain), renewed when the file changes; "
        "else PODIUM_TLS_CERT.",
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-key", metavar="FILE", help="The certificate's private key (PEM); else PODIUM_TLS_KEY."
    ),
]
ReadyOption = Annotated[
    str, typer.Option("--timeout", metavar="TIME", help="How long server and gateway may take to be ready.")
]
_LOOK_SECONDS = 0.05
_COUNT_SECONDS = 1.0
_RESTARTS = 2


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "up", local=True)(up)
    command(app, "down", local=True)(down)
    command(app, "status")(status)


def up(
    session: Session,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as it is ready.")] = False,
    home: HomeOption = None,
    api_port: ApiPortOption = None,
    gateway_port: GatewayPortOption = None,
    api_host: ApiHostOption = None,
    gateway_host: GatewayHostOption = None,
    tls_cert: CertificateOption = None,
    tls_key: KeyOption = None,
    timeout: ReadyOption = "90s",
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over", help="Run the replicas of a database whose former installation is gone for good."
        ),
    ] = False,
) -> None:
    """Start Podium here: server, gateway and Envoy. Ctrl-C stops all of it."""
    from podium.cli.installation import Installation

    installation = Installation(home_folder(home))
    seconds = seconds_of(timeout)
    arguments: list[str] = []
    for flag, value in (
        ("--api-host", api_host), ("--api-port", api_port),
        ("--gateway-host", gateway_host), ("--gateway-port", gateway_port),
        ("--tls-cert", tls_cert and tls_cert.absolute()), ("--tls-key", tls_key and tls_key.absolute()),
    ):  # fmt: skip
        arguments += [] if value is None else [flag, str(value)]
    arguments += ["--take-over"] if take_over else []
    _check_ports(installation, {"api": (api_host, api_port), "gateway": (gateway_host, gateway_port)})
    quiet = not session.is_table
    started = _Start(installation, arguments, seconds)
    try:
        with Activity("starting Podium", quiet=quiet) as activity:
            started.wait(activity)
        _announce(session, installation, detach=detach)
        if not detach:
            _stay(started.supervisor)
    except KeyboardInterrupt:
        # A second Ctrl-C is for the impatient; `down` in another terminal finishes what this one did not.
        with Activity("stopping Podium", quiet=quiet) as activity:
            activity.say("stopping replicas, gateway and server")
            note(installation.stop())
        raise typer.Exit(Exit.INTERRUPTED) from None


def _check_ports(installation: "Installation", wanted: dict[str, tuple[str | None, int | None]]) -> None:
    """A port that is taken would show as a server that starts again and again."""
    from podium.cli.installation import DEFAULT_PORTS, is_taken

    running: dict[str, int | None] | None = None
    for part, (given_host, port) in wanted.items():
        name = f"PODIUM_{part.upper()}"
        host = given_host or os.environ.get(f"{name}_HOST") or "127.0.0.1"
        text = os.environ.get(f"{name}_PORT") or str(DEFAULT_PORTS[part])
        number = port if port is not None else int(text) if text.isdigit() else 0
        if number == 0 or not is_taken(host, number):
            continue
        running = installation.processes() if running is None else running
        before = installation.addresses().get(f"{part}Port")
        if not any(running.values()) and not (part == "gateway" and before == number):
            raise Refused(
                f"port {number} on {host} is in use by another program",
                next_step=f"choose another with --{part}-port; 0 takes any free one",
            )


def _start(installation: "Installation", arguments: list[str]) -> "tuple[subprocess.Popen[bytes], int]":
    """The supervisor and where its own lines begin in its log."""
    installation.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    installation.logs.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with os.fdopen(os.open(installation.logs / "supervisor.log", flags, 0o600), "ab") as log:
        return installation.start(arguments, log), log.tell()


class _Start:
    """The supervisor that was just started, until everything is ready or it is clear that it will not be."""

    def __init__(self, installation: "Installation", arguments: list[str], timeout: float) -> None:
        self._installation = installation
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._pids: set[int] = set()
        self._counted = 0.0
        self.supervisor, self._began = _start(installation, arguments)

    def wait(self, activity: Activity) -> None:
        """Raises Unavailable, or what the supervisor refused."""
        from podium.cli.installation import ask

        # Another supervisor may have this home: then its server would answer, and ours be refused a moment later.
        while self._installation.processes()["supervisor"] != self.supervisor.pid:
            self._check("supervisor")
        for part, key, path in (("server", "url", "/readyz"), ("gateway", "gateway", "/v2/health/ready")):
            activity.say(f"waiting for the {part}")
            self._pids.clear()
            home = self._installation.home
            while not ask(str(self._installation.addresses().get(key, "")), path, home=home).ok:
                self._check(part)
                self._count_restarts(part)
                time.sleep(_LOOK_SECONDS)

    def _check(self, part: str) -> None:
        from podium.cli.installation import refusal

        if self.supervisor.poll() is not None:
            said = refusal(self._installation.last_words("supervisor", since=self._began))
            raise said or Unavailable(f"the supervisor ended with exit code {self.supervisor.returncode}")
        if time.monotonic() > self._deadline:
            raise self._failed(part, f"was not ready within {self._timeout:g} s")

    def _count_restarts(self, part: str) -> None:
        """Whoever ends again and again will not be ready by waiting."""
        if time.monotonic() - self._counted < _COUNT_SECONDS:
            return
        self._counted = time.monotonic()
        pid = self._installation.processes()[part]
        self._pids |= {pid} if pid else set()
        if len(self._pids) > _RESTARTS:
            raise self._failed(part, "ends again and again")

    def _failed(self, part: str, what: str) -> Unavailable:
        said = " ".join(self._installation.last_words(part, lines=2)) or "nothing"
        log = self._installation.logs / f"{part}.log"
        return Unavailable(
            f"the {part} {what}; it said last: {said}",
            next_step=f"look into {log}; `podium down` stops what runs",
        )


def _announce(session: Session, installation: "Installation", *, detach: bool) -> None:
    found = installation.addresses()
    result = {"home": str(installation.home), "url": found["url"], "gateway": found["gateway"]}

    def as_table() -> None:
        print("Podium is running.")
        print(f"  API      {found['url']}")
        print(f"  Gateway  {found['gateway']}")
        print(f"  Home     {installation.home}")
        if installation.home != home_folder():
            print(f"For other commands: export PODIUM_HOME={shlex.quote(str(installation.home))}")
        print("Next: podium model push NAME PATH, or podium demo in another terminal")
        print("Stop it with: podium down" if detach else "Ctrl-C stops it.", flush=True)

    emit(session, result, as_table)


def _stay(supervisor: "subprocess.Popen[bytes]") -> None:
    """Until the supervisor ends. SIGTERM goes on to it: it leaves, what it started goes on (as after `kill`)."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        supervisor.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    code = supervisor.wait()
    if code != 0:
        raise PodiumError(
            f"the supervisor ended with exit code {code}", next_step="podium status shows what still runs"
        )


def down(
    session: Session,
    keep_serving: Annotated[
        bool, typer.Option("--keep-serving", help="Leave Envoy and the replicas running.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Stop what `podium up` started, replicas included, and the gateways of `podium gateway run` in this home; requests
    under way are finished first."""
    from podium.cli.installation import Installation

    installation = Installation(home_folder(home))
    with Activity("stopping Podium", quiet=not session.is_table) as activity:
        reporting = [] if keep_serving else installation.gateways()
        activity.say("finishing requests under way")
        words = installation.stop(keep_serving=keep_serving)
    left = [one for one in (_left(row) for row in reporting) if one is not None]
    emit(
        session,
        {"home": str(installation.home), "message": words, "gatewaysLeft": [row for row, _ in left]},
        lambda: print("\n".join([words, *(told for _, told in left)])),
    )


def _left(gateway: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """A gateway that `down` did not stop, and what is to be done; its Envoy serves on, without any replica."""
    instance = gateway.get("instance")
    if not instance:
        return None
    name, host, pid = clean(str(gateway["name"])), clean(str(instance["host"])), int(instance["pid"])
    found = {"name": name, "host": host, "pid": pid}
    if host != socket.gethostname():
        return found, f"gateway {name} runs on {host} (pid {pid}): stop it there"
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return found, f"gateway {name} runs on, from another folder: kill -INT {pid} stops it"


def status(session: Session) -> None:
    """Server, gateways and deployments at a glance; exit code 1 if the server or a gateway is not ready."""
    from podium.cli.installation import Installation
    from podium.cli.overview import collect, show

    overview = collect(session, Installation(home_folder()))
    emit(session, overview.document(), lambda: show(overview))
    if not overview.healthy:
        raise typer.Exit(Exit.ERROR)
