"""load: many requests, and how long each took. Called by `application`; calls `loading` and `podium.load`."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.exits import Exit
from podium.cli.following import seconds_of
from podium.cli.output import emit
from podium.cli.progress import Activity
from podium.cli.session import Session, command
from podium.resources.errors import InvalidInput, Issue, Unavailable

if TYPE_CHECKING:
    from podium.cli.loading import Asked
    from podium.load.driver import Driver, Job
    from podium.load.generator import Found

_MAX_BODY = 64 * 2**20
_MOST_PROCESSES = 64


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "load")(load)


def load(
    session: Session,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A Deployment or Route, or a URL such as http://127.0.0.1:6781/v2.")
    ],
    duration: Annotated[
        str, typer.Option("--duration", "-d", metavar="TIME", help="How long to ask, at most 1h.")
    ] = "10s",
    requests: Annotated[
        int | None, typer.Option("--requests", "-n", metavar="N", help="End after so many requests, if that is sooner.")
    ] = None,
    connections: Annotated[
        int, typer.Option("--connections", "-c", metavar="N", help="Kept connections, each with one request at a time.")
    ] = 8,
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="N", help="Requests per second, whatever the answers do."),
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="With --rate: at random moments, as independent users come.")
    ] = False,
    warm_up: Annotated[
        str, typer.Option("--warm-up", metavar="TIME", help="Ask for so long before anything is counted.")
    ] = "0s",
    given: Annotated[
        str | None,
        typer.Option("--input", metavar="JSON", help="As `podium predict --data`; @FILE reads a file. Else made up."),
    ] = None,
    body: Annotated[
        Path | None, typer.Option("--body", metavar="FILE", help="The request's body, as it is.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", metavar="NAME", help="For a URL; else POST with a body, GET without.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="NAME: VALUE", help="May be repeated.")
    ] = None,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="An answer that takes longer is a failed request.")
    ] = "30s",
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", help="Processes that ask; one is busy at some 10,000 requests/s.")
    ] = 1,
    authorities: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="Signers to trust for https; else PODIUM_CA_FILE's.")
    ] = None,
    fail_on_error: Annotated[
        bool, typer.Option("--fail-on-error", help="Exit code 1 when any request failed.")
    ] = False,
    mine: Annotated[
        bool, typer.Option("--i-own-this-host", help="Ask a host that is not this machine: say that you may.")
    ] = False,
) -> None:  # fmt: skip
    """Ask many times, and tell requests per second, latencies and failures. Ctrl-C ends it and tells what there is."""
    from podium.cli.loading import document, refused, show
    from podium.load import bounds
    from podium.load.driver import Driver, DriverFailed

    if authorities is None and os.environ.get("PODIUM_CA_FILE"):
        authorities = Path(os.environ["PODIUM_CA_FILE"])
    if authorities is not None and not authorities.is_file():
        raise InvalidInput(Issue("--ca", f"no such file: {authorities}"))
    if given is not None and body is not None:
        raise typer.BadParameter("expected at most one of --input and --body")
    seconds, settle = seconds_of(duration, "--duration"), seconds_of(warm_up, "--warm-up")
    patience = seconds_of(timeout)
    try:
        bounds.check("--duration", seconds + settle, 0.001, bounds.LONGEST_SECONDS, " s with --warm-up")
        bounds.check("--connections", connections, 1, bounds.MOST_CONNECTIONS)
        bounds.check("--requests", requests or 1, 1, bounds.MOST_REQUESTS)
        bounds.check("--rate", 1.0 if rate is None else rate, 0.01, bounds.HIGHEST_RATE)
        bounds.check("--timeout", patience, 0.001, bounds.LONGEST_TIMEOUT, " s")
        bounds.check("--processes", processes, 1, _MOST_PROCESSES)
        asked = _asked(session, target, given, body)
        job = _job(asked, method, header or [], mine=mine, authorities=authorities)
    except bounds.NotAllowed as error:
        raise refused(error) from None
    from dataclasses import replace

    job = replace(
        job, connections=connections, seconds=seconds, settle=settle, rate=rate, random=random,
        limit=requests if requests is not None else bounds.MOST_REQUESTS, timeout=patience,
    )  # fmt: skip
    try:
        with Driver(processes) as driver:
            found, interrupted = _run(driver, job, quiet=not session.is_table)
    except DriverFailed as error:
        raise Unavailable(str(error)) from None
    wish: dict[str, Any] = {
        "target": asked.url, "connections": connections, "rate": rate, "processes": processes,
        "interrupted": interrupted,
    }  # fmt: skip
    emit(session, document(found, wish), lambda: show(found, wish))
    if interrupted:
        raise typer.Exit(Exit.INTERRUPTED)
    if fail_on_error and (found.failed or not found.answered):
        raise typer.Exit(Exit.ERROR)


def _asked(session: Session, target: str, given: str | None, body: Path | None) -> "Asked":
    from podium.cli import loading

    bodies = [] if body is None else [_content(body)]
    if "://" in target:
        if given is not None:
            bodies = [given.encode() if not given.startswith("@") else _content(Path(given[1:]))]
        return loading.of_url(session, target, bodies)
    if bodies:
        found = loading.deployment_url(session, target)
        return loading.Asked(found.url, found.token, bodies)
    source = None
    if given is not None:
        text = _content(Path(given[1:])).decode(errors="replace") if given.startswith("@") else given
        source = (text, given[1:] if given.startswith("@") else "--input")
    return loading.of_deployment(session, target, source)


def _content(file: Path) -> bytes:
    content = sys.stdin.buffer.read(_MAX_BODY + 1) if str(file) == "-" else file.read_bytes()
    if len(content) > _MAX_BODY:
        raise InvalidInput(Issue(str(file), f"expected at most {_MAX_BODY:,} bytes"))
    return content


def _job(
    asked: "Asked", method: str | None, header: list[str], *, mine: bool, authorities: Path | None
) -> "Job":
    from podium.load import bounds
    from podium.load.driver import Job
    from podium.load.requests import request_bytes, target_of

    where = bounds.destination(asked.url, owned=mine)
    headers = [("user-agent", "podium-load")]
    for text in header:
        name, colon, value = text.partition(":")
        if not colon:
            raise InvalidInput(Issue("--header", f"expected NAME: VALUE, got {text[:60]!r}"))
        headers.append((name.strip(), value.strip()))
    named = {name.lower() for name, _ in headers}
    if asked.token and "authorization" not in named:
        headers.append(("authorization", f"Bearer {asked.token}"))
    verb = method or ("POST" if asked.bodies else "GET")
    if verb.upper() == "HEAD":
        raise InvalidInput(Issue("--method", "HEAD is not asked: its answers look unfinished"))
    try:
        made = [
            request_bytes(target_of(asked.url), where.host, method=verb.upper(), headers=headers, body=body)
            for body in asked.bodies or [b""]
        ]
    except ValueError as error:
        raise InvalidInput(Issue("--header", str(error))) from None
    place = where.place(authorities=str(authorities) if authorities else None)
    return Job(place=place, requests=made, connections=1, seconds=0.0)


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
