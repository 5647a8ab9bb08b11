"""apply and diff: make what is match what was written. Called by `application`; calls `manifests` and the client."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.commands.objects import FilesOption
from podium.cli.display import clean, coloured
from podium.cli.exits import Exit
from podium.cli.following import (
    CODES,
    Deadline,
    follow,
    outcome_document,
    outcome_line,
    route_line,
    seconds_of,
    worst,
)
from podium.cli.output import emit
from podium.cli.reporting import note, report
from podium.cli.session import Session, command
from podium.resources.errors import PodiumError

if TYPE_CHECKING:
    from podium.cli.manifests import Document
    from podium.client import Client, RolloutOutcome, RouteOutcome
    from podium.resources.requests import ApplyResult

TimeoutOption = Annotated[
    str, typer.Option("--timeout", metavar="TIME", help="How long --wait waits, such as 90s or 5m.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "apply")(apply)
    command(app, "diff")(diff)


def apply(
    session: Session,
    files: FilesOption = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Until each Deployment's change is decided and each Route is in force; see the exit codes.",
        ),
    ] = False,
    timeout: TimeoutOption = "1h",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")
    ] = False,
) -> None:
    """Create or update what the files describe. One invalid document, and nothing is sent at all.

    Exit codes with --wait: 0 promoted or in force, 10 rolled back, 11 held, 12 timed out, 13 a Route lacks something.
    """
    if dry_run and wait:
        raise typer.BadParameter("--dry-run changes nothing, so there is nothing to --wait for")
    documents = _read(files, session)
    deadline = Deadline(seconds_of(timeout))
    with session.client() as client:
        applied = _apply_all(client, documents, dry_run=dry_run)
        if session.is_table:
            for document, result in applied:
                _print_result(document, result)
        complete = len(applied) == len(documents)
        outcomes = _wait_all(session, client, applied, deadline) if wait and complete else {}
    items = []
    for document, result in applied:
        item = _result_document(result)
        if document.label in outcomes:
            item["outcome"] = outcome_document(outcomes[document.label])
        items.append(item)
    emit(session, {"items": items}, lambda: None)
    if not complete:
        raise typer.Exit(Exit.ERROR)
    code = worst(CODES[outcome.outcome] for outcome in outcomes.values())
    if code is not Exit.OK:
        raise typer.Exit(code)


def _read(files: list[str] | None, session: Session) -> "list[Document]":
    from podium.cli.manifests import read

    if not files:
        raise typer.BadParameter("expected at least one -f FILE")
    return read(files, session.workspace)


def _apply_all(
    client: "Client", documents: "Sequence[Document]", *, dry_run: bool
) -> "list[tuple[Document, ApplyResult]]":
    """In order; the first refusal ends it. What was applied before stays, and is said."""
    applied: list[tuple[Document, ApplyResult]] = []
    for document in documents:
        try:
            result = client.apply(
                document.data,
                workspace=document.resource.metadata.workspace,
                dry_run=dry_run,
                beside=_beside(document, applied) if dry_run else (),
            )
        except PodiumError as error:
            note(f"{document.source}: {document.label} was refused:")
            report(error)
            if len(documents) > 1:
                words = "fit" if dry_run else "are applied"
                note(
                    f"{len(applied)} of {len(documents)} documents {words}, {len(documents) - len(applied)} are not"
                )
            break
        applied.append((document, result))
    return applied


def _beside(document: "Document", applied: "Sequence[tuple[Document, ApplyResult]]") -> list[str]:
    """Deployments that would be there when a Route is applied, though nothing of a dry run stays."""
    if document.resource.kind != "Route":
        return []
    place = document.resource.metadata.workspace
    before = {
        (one.resource.kind, one.resource.metadata.workspace, one.resource.metadata.name) for one, _ in applied
    }
    named = document.resource.spec.deployments
    return [name for name in named if ("Deployment", place, name) in before]


def _wait_all(
    session: Session, client: "Client", applied: "Sequence[tuple[Document, ApplyResult]]", deadline: Deadline
) -> "dict[str, RolloutOutcome | RouteOutcome]":
    outcomes: dict[str, RolloutOutcome | RouteOutcome] = {}
    for document, result in applied:
        meta = result.object["metadata"]
        if document.resource.kind == "Route":
            loaded = client.wait_route(
                meta["name"],
                workspace=meta["workspace"],
                generation=meta["generation"],
                timeout=deadline.left,
            )
            outcomes[document.label] = loaded
            note(route_line(loaded))
        if document.resource.kind != "Deployment":
            continue
        outcome = follow(
            session,
            client,
            meta["name"],
            workspace=meta["workspace"],
            generation=meta["generation"],
            timeout=deadline.left,
        )
        outcomes[document.label] = outcome
        if session.is_table:
            print(clean(outcome_line(outcome)))
    return outcomes


def _result_document(result: "ApplyResult") -> dict[str, Any]:
    return dict(result.model_dump(mode="json", by_alias=True))


def _print_result(document: "Document", result: "ApplyResult") -> None:
    words = {"created": "created", "updated": "updated", "unchanged": "unchanged"}[result.action]
    if result.dry_run and result.action != "unchanged":
        words = f"would be {words}"
    print(
        f"{document.label} {coloured(words, {'created': 'green', 'updated': 'yellow'}.get(result.action, ''))}"
    )
    for sentence in result.plan:
        print(f"  {clean(sentence)}")


def diff(session: Session, files: FilesOption = None) -> None:
    """What an apply of the files would change, field by field, and what would follow from it."""
    documents = _read(files, session)
    with session.client() as client:
        compared = _apply_all(client, documents, dry_run=True)

    def as_table() -> None:
        for document, result in compared:
            _print_result(document, result)
            for change in result.changes:
                print(f"  {change_line(change.path, change.before, change.after)}")

    emit(session, {"items": [_result_document(result) for _, result in compared]}, as_table)
    if len(compared) != len(documents):
        raise typer.Exit(Exit.ERROR)


def change_line(path: str, before: Any, after: Any) -> str:
    """`spec.replicas: 1 -> 2`, with + for what is new and - for what goes."""
    import json

    old, new = (clean(json.dumps(value, ensure_ascii=False)) for value in (before, after))
    if before is None:
        return coloured(f"+ {clean(path)}: {new}", "green")
    if after is None:
        return coloured(f"- {clean(path)}: {old}", "red")
    return f"{coloured('~', 'yellow')} {clean(path)}: {old} -> {new}"
