"""Entry points: `python -m podium.app up | down | ps | server | gateway | gateway-upgrade | migrate | serve-model`.

`podium up` and its kin start these as processes, so that the CLI never imports the server.
"""

import argparse
import datetime
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from podium.app.settings import Settings, private_folder, read_settings
from podium.resources.errors import InvalidInput, PodiumError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one part; 0 when it ended as asked, 1 with one readable line when it could not do its work."""
    options = _parser().parse_args(arguments)
    try:
        settings = read_settings(
            os.environ,
            home=options.home,
            api_host=options.api_host,
            api_port=options.api_port,
            gateway_host=options.gateway_host,
            gateway_port=options.gateway_port,
            api_tls_cert=options.api_tls_cert or options.tls_cert,
            api_tls_key=options.api_tls_key or options.tls_key,
            gateway_tls_cert=options.gateway_tls_cert or options.tls_cert,
            gateway_tls_key=options.gateway_tls_key or options.tls_key,
        )
        commands: dict[str, Callable[[Settings, argparse.Namespace], int]] = {
            "up": _up,
            "down": _down,
            "ps": _ps,
            "server": _server,
            "gateway": _gateway,
            "gateway-upgrade": _gateway_upgrade,
            "migrate": _migrate,
            "serve-model": _serve_model,
        }
        return commands[options.command](settings, options)
    except PodiumError as error:
        lines = (
            [f"{issue.field}: {issue.message}" for issue in error.issues]
            if isinstance(error, InvalidInput)
            else []
        )
        if error.next_step:
            lines = [*(lines or [error.message]), f"next: {error.next_step}"]
        sys.stderr.write("\n".join(lines or [error.message]) + "\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m podium.app", description="Podium's processes on this machine."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--home", help="folder of this installation (PODIUM_HOME)")
    common.add_argument("--api-host")
    common.add_argument("--api-port", type=int)
    common.add_argument("--gateway-host")
    common.add_argument("--gateway-port", type=int)
    for part in ("", "api-", "gateway-"):
        common.add_argument(f"--{part}tls-cert")
        common.add_argument(f"--{part}tls-key")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser(
        "up", parents=[common], help="keep server and gateway running, in the foreground"
    )
    up.add_argument("--take-over", action="store_true", help="run the replicas that another home ran")
    down = commands.add_parser("down", parents=[common], help="stop everything that runs in this home")
    down.add_argument("--keep-serving", action="store_true", help="leave Envoy and the replicas running")
    ps = commands.add_parser("ps", parents=[common], help="which processes run")
    ps.add_argument("--json", action="store_true")
    commands.add_parser("server", parents=[common], help="API and reconcilers")
    gateway = commands.add_parser("gateway", parents=[common], help="the config agent and its Envoy")
    gateway.add_argument(
        "--alone", action="store_true", help="nobody starts it again: SIGTERM stops Envoy too"
    )
    commands.add_parser("gateway-upgrade", parents=[common], help="hand Envoy over to a new one in place")
    commands.add_parser("migrate", parents=[common], help="bring the database to this version")
    serve = commands.add_parser("serve-model", parents=[common], help="one model, without a server")
    serve.add_argument("path")
    serve.add_argument("--port", type=int, required=True)
    for name in ("--name", "--python", "--flavor"):
        serve.add_argument(name)
    serve.add_argument("--requirement", action="append")
    return parser


def _up(settings: Settings, options: argparse.Namespace) -> int:
    from podium.app import supervisor
    from podium.app.console import configure_logging
    from podium.processes.identity import TOKEN_VARIABLE, new_token

    if not os.environ.get(TOKEN_VARIABLE):
        # A process is known again by a token in its environment; this one was started by hand.
        os.environ[TOKEN_VARIABLE] = new_token()
        os.execv(sys.executable, [sys.executable, "-m", "podium.app", *sys.argv[1:]])  # noqa: S606 - itself again
    configure_logging()
    for files in {settings.api_certificate, settings.gateway_certificate} - {None}:
        from podium.gateway.certificates import read_certificate

        assert files is not None  # noqa: S101 - taken out
        read_certificate(files, datetime.datetime.now(datetime.UTC))
    if settings.is_public or options.take_over:
        # Only then: the supervisor stays small.
        from podium.app import server

        if settings.is_public:
            server.check_exposure(settings)
        if options.take_over:
            server.take_over(settings)
    supervisor.Supervisor(supervisor.prepare(settings)).run()
    return 0


def _down(settings: Settings, options: argparse.Namespace) -> int:
    from podium.app import supervisor
    from podium.app.stopping import stop_further_gateways, stop_gateway, stop_replicas

    ended = [name for name in ("supervisor",) if supervisor.stop(settings, name, timeout=5)]
    if options.keep_serving:
        ended += [name for name in ("gateway", "server") if supervisor.stop(settings, name, timeout=15)]
    else:
        ended += [f"gateway {name}" for name in stop_further_gateways(settings)]
        ended += ["gateway"] if stop_gateway(settings) else []
        # The server first, so that it does not start again what is stopped here.
        ended += ["server"] if supervisor.stop(settings, "server", timeout=15) else []
        count = stop_replicas(settings)
        ended += [f"{count} replicas"] if count else []
    _say(f"stopped: {', '.join(ended)}" if ended else "nothing was running")
    return 0


def _ps(settings: Settings, options: argparse.Namespace) -> int:
    from podium.app import supervisor

    found = {name: supervisor.running(settings, name) for name in ("supervisor", *supervisor.PARTS)}
    rows = {name: identity.pid if identity else None for name, identity in found.items()}
    if options.json:
        _say(json.dumps({"home": str(settings.home), "processes": rows}))
    else:
        for name, pid in rows.items():
            _say(f"{name:<12} {f'pid {pid}' if pid else 'not running'}")
    return 0 if all(rows.values()) else 3


def _server(settings: Settings, options: argparse.Namespace) -> int:
    from podium.app import server, supervisor
    from podium.app.console import configure_logging, ignore_hangup

    configure_logging()
    ignore_hangup()
    supervisor.record(settings, "server")
    server.run(settings)
    return 0


def _gateway(settings: Settings, options: argparse.Namespace) -> int:
    from podium.app import supervisor
    from podium.app.console import configure_logging
    from podium.app.gateway import run

    configure_logging()
    for folder in (settings.home, settings.run):
        private_folder(folder)
    supervisor.record(settings, "gateway")
    run(settings, alone=options.alone)
    return 0


def _gateway_upgrade(settings: Settings, options: argparse.Namespace) -> int:
    from podium.app import supervisor
    from podium.processes.identity import send_signal

    identity = supervisor.running(settings, "gateway")
    if identity is None or not send_signal(identity, signal.SIGHUP):
        sys.stderr.write("no gateway agent runs in this home" + "\n")
        return 1
    return 0


def _migrate(settings: Settings, options: argparse.Namespace) -> int:
    from podium.store import Store

    store = Store.open(settings.database, version_locations=settings.migrations)
    store.migrate()
    _say(f"database at {store.schema_version()}")
    store.close()
    return 0


def _serve_model(settings: Settings, options: argparse.Namespace) -> int:
    from podium.app.serving import Wish, serve

    wish = Wish(
        path=Path(options.path), port=options.port, name=options.name, python=options.python,
        requirements=options.requirement, flavor=options.flavor,
    )  # fmt: skip
    return serve(settings, wish)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
