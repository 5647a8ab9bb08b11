"""get, describe, delete: for every kind alike. Called by `application`; calls the client."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.display import clean, clock, dig, print_table
from podium.cli.output import as_yaml, emit, emit_document, emit_line, emit_list
from podium.cli.session import Session, command

if TYPE_CHECKING:
    from podium.client import Client
    from podium.resources.kinds import Kind

KindArgument = Annotated[
    str,
    typer.Argument(
        help="A kind: its name, plural or short name, as `podium schema` lists them.", metavar="KIND"
    ),
]
FilesOption = Annotated[
    list[str] | None,
    typer.Option("-f", "--file", metavar="FILE", help="A file, a folder, or - for stdin; may be repeated."),
]
_EVENTS_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "get")(get)
    command(app, "describe")(describe)
    command(app, "delete")(delete)


def find_kind(name: str) -> "Kind":
    """Also `Kind/name` is looked up by its first part. Raises InvalidInput that lists the known kinds."""
    from podium.resources.kinds import kind_of

    return kind_of(name)


def get(
    session: Session,
    kind: KindArgument,
    name: Annotated[str | None, typer.Argument(help="One object; left out: all of them.")] = None,
    selector: Annotated[
        str | None, typer.Option("-l", "--selector", metavar="LABELS", help="`a=b,c!=d,e in (x,y),f,!g`")
    ] = None,
    field_selector: Annotated[
        str | None,
        typer.Option(
            "--field-selector", metavar="FIELDS", help="As --selector, over fields such as status.phase."
        ),
    ] = None,
    all_workspaces: Annotated[
        bool, typer.Option("-A", "--all-workspaces", help="Those of every workspace that the token covers.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with every change, until Ctrl-C.")] = False,
) -> None:
    """Objects of a kind, or one of them."""
    known = find_kind(kind)
    if name is not None and (selector or field_selector or all_workspaces):
        raise typer.BadParameter("a NAME goes without --selector, --field-selector and --all-workspaces")
    if watch and (selector or field_selector):
        raise typer.BadParameter("--watch goes without --selector and --field-selector")
    with session.client() as client:
        if watch:
            _watch(session, client, known, name, all_workspaces=all_workspaces)
            return
        if name is not None:
            document = client.get(known.name, name).document()
            if session.is_table:
                _show(known, [document], all_workspaces=False)
            else:
                emit_document(session, document)
            return
        found = client.list(known.name, labels=selector, fields=field_selector, all_workspaces=all_workspaces)
    documents = [item.document() for item in found]
    emit_list(session, documents, lambda: _show(known, documents, all_workspaces=all_workspaces))


def _show(kind: "Kind", documents: Sequence[dict[str, Any]], *, all_workspaces: bool) -> None:
    from podium.cli.columns import columns_of, rows_of
    from podium.cli.reporting import note

    if not documents:
        note(f"no {kind.plural}")
        return
    columns = columns_of(kind.name, all_workspaces=all_workspaces)
    print_table([column.header for column in columns], rows_of(columns, documents))


def _watch(
    session: Session, client: "Client", kind: "Kind", name: str | None, *, all_workspaces: bool
) -> None:
    """What there is, then every change. A line each: a table cannot know how wide it will be."""
    from podium.cli.columns import columns_of, rows_of

    columns = columns_of(kind.name, all_workspaces=all_workspaces)

    def line(type_: str, document: dict[str, Any]) -> str:
        cells = [clean(cell) for cell in rows_of(columns, [document])[0] if cell not in ("", None)]
        return "  ".join([type_.ljust(8), *cells])

    workspace = None if all_workspaces or kind.name == "Workspace" else session.place
    for change, document in changes(client, kind, workspace):
        if name is None or dig(document, "metadata.name") == name:
            item = {"type": change, "object": document}
            emit_line(session, item, line(change, document))


def changes(client: "Client", kind: "Kind", workspace: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object there is as ADDED, then every change: the watch begins before the list, so none is missed."""
    watch = client.watch([kind.name], workspace=workspace, bookmarks=True)
    seen: dict[str, int] = {}
    for event in watch:
        if not seen:
            for item in client.list(kind.name, workspace=workspace, all_workspaces=workspace is None):
                seen[item.uid] = item.metadata.resource_version or 0
                yield "ADDED", item.document()
            seen.setdefault("", 0)
        if event.object is None:
            continue
        uid, version = dig(event.object, "metadata.uid"), dig(event.object, "metadata.resourceVersion") or 0
        if event.type == "DELETED" or version > seen.get(uid, -1):
            seen[uid] = version
            yield event.type, event.object


def describe(
    session: Session,
    kind: KindArgument,
    name: Annotated[str, typer.Argument(help="Which one.")],
) -> None:
    """Everything about one object: what was asked for, what is, and what happened to it lately."""
    known = find_kind(kind)
    with session.client() as client:
        resource = client.get(known.name, name)
        workspace = None if known.name == "Workspace" else resource.metadata.workspace
        events = client.events(workspace=workspace, kind=known.name, name=name, limit=_EVENTS_SHOWN)
    document = resource.document()
    emit(session, {"object": document, "events": events}, lambda: _describe(document, events))


def _describe(document: dict[str, Any], events: Sequence[dict[str, Any]]) -> None:
    meta = document["metadata"]
    print(f"{document['kind']} {meta['name']} in workspace {meta['workspace']}")
    for title, key in (
        ("made", "createdAt"),
        ("changed", "updatedAt"),
        ("to be deleted since", "deletionRequestedAt"),
    ):
        if meta.get(key):
            print(f"  {title} {clock(meta[key])}")
    for title in ("labels", "annotations"):
        for key, value in (meta.get(title) or {}).items():
            print(f"  {title[:-1]} {clean(key)}: {clean(value)}")
    for title in ("spec", "status"):
        print(f"{title.capitalize()}:")
        print(
            "\n".join(f"  {clean(line) if line.strip() else ''}" for line in _indented(said(document[title])))
        )
    print("Events, newest first:" if events else "No events.")
    if events:
        print_table(
            ["AT", "TYPE", "REASON", "MESSAGE"],
            [[clock(e["at"]), e["type"], e["reason"], e["message"]] for e in events],
        )


def said(value: Any) -> Any:
    """Without what says nothing: null, empty text, empty lists and objects. `get -o yaml` has it whole. A declared
    answer's body is somebody's own, to the last null."""
    if isinstance(value, dict):
        pruned = {key: item if key == "body" else said(item) for key, item in value.items()}
        return {key: item for key, item in pruned.items() if item not in (None, "", [], {})}
    return [said(item) for item in value] if isinstance(value, list) else value


def _indented(value: Any) -> list[str]:
    """YAML lines; indentation stays, control characters were escaped by YAML itself."""
    return as_yaml(value).rstrip().splitlines() if value else ["nothing"]


def delete(
    session: Session,
    kind: Annotated[str | None, typer.Argument(help="A kind; with -f left out.", metavar="KIND")] = None,
    name: Annotated[str | None, typer.Argument(help="Which one.")] = None,
    files: FilesOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when it is gone; a Deployment drains first.")
    ] = False,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="How long --wait waits, such as 90s or 5m.")
    ] = "5m",
) -> None:
    """Delete one object, or everything that the files name."""
    from podium.cli.deletion import delete_all
    from podium.cli.manifests import read

    if bool(files) == bool(kind) or (kind and not name):
        raise typer.BadParameter("expected KIND and NAME, or -f FILE")
    if files:
        targets = [(d.resource.kind, d.resource.metadata.workspace, d.resource.metadata.name)
                   for d in reversed(read(files, session.workspace))]  # fmt: skip
    else:
        targets = [(find_kind(kind or "").name, session.place, name or "")]
    delete_all(session, targets, wait=wait, timeout=timeout)
