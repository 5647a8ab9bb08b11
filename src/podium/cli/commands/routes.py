"""route test: which Deployment would answer a request, and why. Called by `application`; calls the client."""

from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.display import clean, print_table
from podium.cli.exits import Exit
from podium.cli.output import emit
from podium.cli.pairs import headers_of, pairs_of
from podium.cli.session import Session, command, group
from podium.resources.errors import InvalidInput, Issue

if TYPE_CHECKING:
    from podium.resources.route_test import RouteTestResult


def register(app: typer.Typer) -> None:
    """Adds the group."""
    inner = group("route", "Routes: public names over Deployments. `podium get route` lists them.")
    command(inner, "test")(test)
    app.add_typer(inner, name="route")


def test(
    session: Session,
    name: Annotated[str, typer.Argument(help="A Route, or a Deployment's own path.")],
    header: Annotated[
        list[str] | None,
        typer.Option(
            "-H", "--header", metavar="NAME:VALUE", help="A header of the request; may be repeated."
        ),
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option("--query", metavar="NAME=VALUE", help="A parameter of its query; may be repeated."),
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option("--claim", metavar="NAME=VALUE", help="Of the caller's token; may be repeated."),
    ] = None,
    path: Annotated[
        str, typer.Option("--path", help="What comes after /v2/models/NAME, without the query.")
    ] = "/infer",
) -> None:
    """Which Deployment would answer this request, and why. Nothing is sent to a model.

    Exit code 1 where nobody would answer it.
    """
    from podium.resources.route_test import RouteTestRequest

    request = RouteTestRequest(
        path=path,
        headers=_headers(header),
        query=dict(pairs_of(query, "--query")),
        claims=dict(pairs_of(claim, "--claim")),
    )
    with session.client() as client:
        result = client.test_route(name, request)
    emit(session, result.model_dump(mode="json", by_alias=True), lambda: _show(result))
    if not result.answering and not result.then:
        raise typer.Exit(Exit.ERROR)


def _headers(given: list[str] | None) -> dict[str, str]:
    found = {}
    for name, value in headers_of(given):
        if name in found:
            raise InvalidInput(Issue("--header", f"{name[:60]}: expected once, got twice"))
        found[name] = value
    return found


def _show(result: "RouteTestResult") -> None:
    for rule in result.rules:
        mark = "matches" if rule.matched else "no match"
        typer.echo(f"rule {clean(rule.name)}: {mark}: {clean(rule.why)}")
    if result.rule is None:
        typer.echo("nobody answers: 404")
        return
    if result.sticky:
        typer.echo(f"sticky: {clean(result.sticky)}")
    rows = [
        [one.deployment, one.revision, one.version, f"{one.share:g}%", "answers"] for one in result.answering
    ]
    rows += [
        [one.deployment, one.revision, one.version, f"{one.share:g}%", "gets a copy"]
        for one in result.shadows
    ]
    if rows:
        print_table(["DEPLOYMENT", "REVISION", "VERSION", "SHARE", "ROLE"], rows)
    for line in result.then:
        typer.echo(f"then {clean(line)}")
    for line in result.absent:
        typer.echo(f"not served: {clean(line)}")
    for line in result.warnings:
        typer.echo(f"warning: {clean(line)}")
