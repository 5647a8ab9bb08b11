"""load: many requests, and how long each took. Called by `application`; calls `loading` and `podium.load`."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.exits import Exit
from podium.cli.following import seconds_of
from podium.cli.options import grouped
from podium.cli.output import emit
from podium.cli.pairs import headers_of
from podium.cli.progress import Activity
from podium.cli.session import Session, command, home_folder
from podium.resources.errors import InvalidInput, Issue, Unavailable

if TYPE_CHECKING:
    from podium.cli.loading import Asked
    from podium.load.driver import Driver, Job
    from podium.load.generator import Found
    from podium.load.tls import Tls

_MAX_BODY = 64 * 2**20
_MOST_PROCESSES = 64


@dataclass(frozen=True)
class Pace:
    """How hard is asked, and for how long."""

    duration: Annotated[
        str, typer.Option("--duration", "-d", metavar="TIME", help="How long to ask, at most 1h.")
    ] = "10s"
    requests: Annotated[
        int | None,
        typer.Option("--requests", "-n", metavar="N", help="End after so many requests, if that is sooner."),
    ] = None
    connections: Annotated[
        int,
        typer.Option(
            "--connections", "-c", metavar="N", help="Kept connections, each with one request at a time."
        ),
    ] = 8
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="N", help="Requests per second, whatever the answers do."),
    ] = None
    random: Annotated[
        bool, typer.Option("--random", help="With --rate: at random moments, as independent users come.")
    ] = False
    warm_up: Annotated[
        str, typer.Option("--warm-up", metavar="TIME", help="Ask for so long before anything is counted.")
    ] = "0s"
    timeout: Annotated[
        str,
        typer.Option("--timeout", metavar="TIME", help="An answer that takes longer is a failed request."),
    ] = "30s"
    processes: Annotated[
        int,
        typer.Option(
            "--processes", metavar="N", help="Processes that ask; one is busy at some 10,000 requests/s."
        ),
    ] = 1

    def job(self) -> dict[str, Any]:
        """For `Job`. Raises NotAllowed for more than is allowed."""
        from podium.load import bounds

        seconds, settle = seconds_of(self.duration, "--duration"), seconds_of(self.warm_up, "--warm-up")
        patience = seconds_of(self.timeout)
        bounds.check("--duration", seconds + settle, 0.001, bounds.LONGEST_SECONDS, " s with --warm-up")
        bounds.check("--connections", self.connections, 1, bounds.MOST_CONNECTIONS)
        bounds.check("--requests", self.requests or 1, 1, bounds.MOST_REQUESTS)
        bounds.check("--rate", 1.0 if self.rate is None else self.rate, 0.01, bounds.HIGHEST_RATE)
        bounds.check("--timeout", patience, 0.001, bounds.LONGEST_TIMEOUT, " s")
        bounds.check("--processes", self.processes, 1, _MOST_PROCESSES)
        limit = bounds.MOST_REQUESTS if self.requests is None else self.requests
        return {
            "connections": self.connections, "seconds": seconds, "settle": settle, "rate": self.rate,
            "random": self.random, "limit": limit, "timeout": patience,
        }  # fmt: skip


@dataclass(frozen=True)
class Question:
    """What is asked."""

    given: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="JSON", help="As `podium predict --data`; @FILE reads a file. Else made up."
        ),
    ] = None
    body: Annotated[
        Path | None, typer.Option("--body", metavar="FILE", help="The request's body, as it is.")
    ] = None
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="NAME", help="For a URL; else POST with a body, GET without."),
    ] = None
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="NAME: VALUE", help="May be repeated.")
    ] = None

    def asked(self, session: Session, target: str) -> "Asked":
        """Where to, with whose token, and with what."""
        from podium.cli import loading

        if self.given is not None and self.body is not None:
            raise typer.BadParameter("expected at most one of --input and --body")
        bodies = [] if self.body is None else [_content(self.body)]
        file = self.given[1:] if self.given is not None and self.given.startswith("@") else None
        if "://" in target:
            if self.given is not None:
                bodies = [self.given.encode() if file is None else _content(Path(file))]
            return loading.of_url(session, target, bodies)
        if bodies:
            found = loading.deployment_url(session, target)
            return loading.Asked(found.url, found.token, bodies)
        if self.given is None:
            return loading.of_deployment(session, target, None)
        text = self.given if file is None else _content(Path(file)).decode(errors="replace")
        return loading.of_deployment(session, target, (text, file or "--input"))

    def bytes_of(self, asked: "Asked", host: str) -> list[bytes]:
        """The requests, one per body."""
        from podium.load.requests import request_bytes, target_of

        headers = [("user-agent", "podium-load"), *headers_of(self.header)]
        if asked.token and "authorization" not in {name.lower() for name, _ in headers}:
            headers.append(("authorization", f"Bearer {asked.token}"))
        verb = (self.method or ("POST" if asked.bodies else "GET")).upper()
        if verb == "HEAD":
            raise InvalidInput(Issue("--method", "HEAD is not asked: its answers look unfinished"))
        try:
            return [
                request_bytes(target_of(asked.url), host, method=verb, headers=headers, body=body)
                for body in asked.bodies or [b""]
            ]
        except ValueError as error:
            raise InvalidInput(Issue("--header", str(error))) from None


@dataclass(frozen=True)
class Certificates:
    """How an https server is known, and how it knows us."""

    authorities: Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", help="Signers to trust for https; else as --ca-file."),
    ] = None
    client_cert: Annotated[
        Path | None,
        typer.Option(
            "--client-cert", metavar="FILE", help="Our own certificate (PEM), for a server that wants one."
        ),
    ] = None
    client_key: Annotated[
        Path | None,
        typer.Option(
            "--client-key", metavar="FILE", help="Its private key (PEM); else it is in --client-cert's file."
        ),
    ] = None

    def signers(self, session: Session) -> tuple[Path | None, str]:
        """Whose signatures are taken, for Podium's own addresses as for others, and where that was said: as every
        client has it."""
        for found, where in (
            (self.authorities, "--ca"),
            (session.ca_file, "--ca-file"),
            (os.environ.get("PODIUM_CA_FILE"), "PODIUM_CA_FILE"),
        ):
            if found:
                return Path(found), where
        return None, "--ca"

    def tls(self, session: Session, url: str) -> "Tls":
        """For one address: what this home knows of its own counts where nobody is named. Raises InvalidInput for a file
        that is none, before anything is asked."""
        from podium.client.trust import known_certificate
        from podium.load.tls import Tls, context_of

        if self.client_key is not None and self.client_cert is None:
            raise InvalidInput(Issue("--client-key", "expected --client-cert with it"))
        if not url.lower().startswith("https:"):
            return Tls()
        signers, where = self.signers(session)
        own = known_certificate(url, home_folder()) if signers is None else None
        made = Tls(
            authorities=_path(signers), exactly=_path(own), certificate=_path(self.client_cert),
            key=_path(self.client_key),
        )  # fmt: skip
        try:
            context_of(made.document(""))
        except OSError as error:
            field = "--client-cert" if str(error.filename) == made.certificate else where
            raise InvalidInput(Issue(field, f"{error.filename}: {error.strerror}")) from None
        return made


@grouped
def load(
    session: Session,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A Deployment or Route, or a URL such as http://127.0.0.1:6781/v2.")
    ],
    pace: Pace,
    question: Question,
    certificates: Certificates,
    fail_on_error: Annotated[
        bool, typer.Option("--fail-on-error", help="Exit code 1 when any request failed.")
    ] = False,
    mine: Annotated[
        bool, typer.Option("--i-own-this-host", help="Ask a host that is not this machine: say that you may.")
    ] = False,
) -> None:  # fmt: skip
    """Ask many times, and tell requests per second, latencies and failures. Ctrl-C ends it and tells what there is."""
    from podium.cli.loading import document, refused, show
    from podium.load.bounds import NotAllowed, destination
    from podium.load.driver import Driver, DriverFailed, Job

    try:
        settings = pace.job()
        asked = question.asked(replace(session, ca_file=certificates.signers(session)[0]), target)
        where = destination(asked.url, owned=mine)
        place = where.place(certificates.tls(session, asked.url))
        job = Job(place=place, requests=question.bytes_of(asked, where.host), **settings)
    except NotAllowed as error:
        raise refused(error) from None
    try:
        with Driver(pace.processes) as driver:
            found, interrupted = _run(driver, job, quiet=not session.is_table)
    except DriverFailed as error:
        raise Unavailable(str(error)) from None
    wish: dict[str, Any] = {
        "target": asked.url, "connections": pace.connections, "rate": pace.rate, "processes": pace.processes,
        "interrupted": interrupted,
    }  # fmt: skip
    emit(session, document(found, wish), lambda: show(found, wish))
    if interrupted:
        raise typer.Exit(Exit.INTERRUPTED)
    if fail_on_error and (found.failed or not found.answered):
        raise typer.Exit(Exit.ERROR)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "load")(load)


def _path(file: Path | None) -> str | None:
    """For another process."""
    return None if file is None else str(file.absolute())


def _content(file: Path) -> bytes:
    content = sys.stdin.buffer.read(_MAX_BODY + 1) if str(file) == "-" else file.read_bytes()
    if len(content) > _MAX_BODY:
        raise InvalidInput(Issue(str(file), f"expected at most {_MAX_BODY:,} bytes"))
    return content


def _run(driver: "Driver", job: "Job", *, quiet: bool) -> tuple["Found", bool]:
    """What was found, and whether Ctrl-C ended it early. A second Ctrl-C does not wait for what is under way."""
    from podium.cli.loading import progress_words

    interrupted = False
    # Lines nobody watches change would only fill a log.
    with Activity("load", quiet=quiet or not sys.stderr.isatty()) as activity, _ctrl_c() as presses:

        def tick() -> None:
            nonlocal interrupted
            if presses and not interrupted:
                interrupted = True
                driver.stop()
            if len(presses) > 1:
                raise KeyboardInterrupt

        found = driver.run(job, tick, lambda found: activity.say(progress_words(found)))
    return found, interrupted


@contextlib.contextmanager
def _ctrl_c() -> Iterator[list[int]]:
    """The presses of Ctrl-C inside the block."""
    presses: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: presses.append(number))
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, before)
