"""The table `resources`: rows to objects and back, paged lists. The same for every kind.

Called by `read` and `write`; calls `selectors` and `pages`.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    Text,
    bindparam,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from podium.resources.errors import NotFound
from podium.resources.kinds import KINDS, AnyResource, Kind
from podium.resources.shape import Metadata, OwnerReference, Resource
from podium.store import pages, selectors
from podium.store.tables import resources as table

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to run it.
_BY_UID = select(table).where(table.c.uid == bindparam("uid"))
_NEWEST = select(func.max(table.c.resource_version), func.count()).where(
    or_(table.c.uid == bindparam("uid"), table.c.owner_uid == bindparam("uid"))
)
_BY_NAME = select(table).where(
    table.c.kind == bindparam("kind"),
    table.c.workspace == bindparam("workspace"),
    table.c.name == bindparam("name"),
)


@dataclass(frozen=True)
class Page:
    """Some of the objects of a list, by workspace and name. `next`: what to pass as `after` for more, None at the end.

    `version` is the version that the list's FIRST page was read at: a watch from there on misses nothing.
    """

    items: list[AnyResource]
    next: str | None
    version: int


@dataclass(frozen=True)
class ListFilter:
    """Which objects of a kind: None means all."""

    workspace: str | None = None
    labels: str | None = None
    fields: str | None = None
    owner_uid: str | None = None


def from_row(row: Row[Any]) -> AnyResource:
    """A row of the table as an object. Raises pydantic's ValidationError if this Podium can't read what is stored."""
    kind = KINDS[row.kind]
    return Resource(
        kind=kind.name,
        metadata=Metadata(
            name=row.name,
            workspace=row.workspace,
            labels=row.labels,
            annotations=row.annotations,
            uid=row.uid,
            generation=row.generation,
            resource_version=row.resource_version,
            created_at=row.created_at,
            updated_at=row.updated_at,
            deletion_requested_at=row.deletion_requested_at,
            finalizers=row.finalizers,
            owner=None if row.owner is None else OwnerReference.model_validate(row.owner),
        ),
        spec=kind.spec.model_validate(row.spec),
        status=kind.status.model_validate(row.status),
    )


def to_row(resource: AnyResource) -> dict[str, Any]:
    """The columns of an object whose server-made metadata are set."""
    meta = resource.metadata
    return {
        "uid": meta.uid,
        "kind": resource.kind,
        "workspace": meta.workspace,
        "name": meta.name,
        "generation": meta.generation,
        "resource_version": meta.resource_version,
        "labels": meta.labels,
        "annotations": meta.annotations,
        "finalizers": meta.finalizers,
        "owner": None if meta.owner is None else meta.owner.model_dump(mode="json", by_alias=True),
        "owner_uid": None if meta.owner is None else meta.owner.uid,
        "created_at": meta.created_at,
        "updated_at": meta.updated_at,
        "deletion_requested_at": meta.deletion_requested_at,
        "spec": resource.spec.model_dump(mode="json", by_alias=True),
        "status": resource.status.model_dump(mode="json", by_alias=True),
    }


def find(connection: Connection, kind: Kind, workspace: str, name: str) -> AnyResource | None:
    """The object with this name, or None."""
    row = connection.execute(
        _BY_NAME, {"kind": kind.name, "workspace": workspace, "name": name}
    ).one_or_none()
    return None if row is None else from_row(row)


def by_uid(connection: Connection, uid: str) -> AnyResource | None:
    """The object with this uid, or None."""
    row = connection.execute(_BY_UID, {"uid": uid}).one_or_none()
    return None if row is None else from_row(row)


def newest_change(connection: Connection, uid: str) -> tuple[int, int]:
    """The newest resourceVersion of an object and all that it owns, and how many these are."""
    newest, count = connection.execute(_NEWEST, {"uid": uid}).one()
    return newest or 0, count


def naming(connection: Connection, kind: Kind, workspace: str, name: str) -> list[str]:
    """The uids of those whose spec holds this text as a whole value or key. Nothing is parsed: some may mean something
    else by it."""
    query = select(table.c.uid).where(
        table.c.kind == kind.name,
        table.c.workspace == workspace,
        cast(table.c.spec, Text).contains(f'"{name}"', autoescape=True),
    )
    return list(connection.execute(query).scalars())


def missing(kind: Kind, workspace: str, name: str) -> NotFound:
    """The error for a name that nothing has."""
    return NotFound(
        f"{kind.name} {name[:120]!r} not found in workspace {workspace[:60]!r}",
        next_step=f"podium get {kind.plural} -w {workspace[:60]}",
    )


def owned_by(connection: Connection, uid: str) -> list[str]:
    """The uids of the objects that were made for this one."""
    return list(connection.execute(select(table.c.uid).where(table.c.owner_uid == uid)).scalars())


def add(connection: Connection, resource: AnyResource) -> None:
    """A new row and its selectors."""
    row = to_row(resource)
    connection.execute(insert(table).values(row))
    selectors.write(connection, row["uid"], {}, selectors.entries(KINDS[resource.kind], row))


def change(connection: Connection, before: AnyResource, after: AnyResource) -> None:
    """The row and its selectors, from one state to another."""
    kind, old, new = KINDS[after.kind], to_row(before), to_row(after)
    different = {name: value for name, value in new.items() if old[name] != value}
    connection.execute(update(table).where(table.c.uid == new["uid"]).values(different))
    selectors.write(connection, new["uid"], selectors.entries(kind, old), selectors.entries(kind, new))


def remove(connection: Connection, uid: str) -> None:
    """The row; its selectors, work and samples go with it."""
    connection.execute(delete(table).where(table.c.uid == uid))


def list_page(
    connection: Connection,
    kind: Kind,
    which: ListFilter,
    *,
    version: int,
    limit: int | None,
    after: str | None,
) -> Page:
    """One page in order of (workspace, name). Raises InvalidInput for a bad selector or page token."""
    query = _filtered(kind, which).order_by(table.c.workspace, table.c.name)
    if after is not None:
        version, workspace, name = pages.read_token(after)
        query = query.where(tuple_(table.c.workspace, table.c.name) > tuple_(workspace, name))
    if limit is not None:
        query = query.limit(limit + 1)
    items = [from_row(row) for row in connection.execute(query)]
    if limit is None or len(items) <= limit:
        return Page(items, None, version)
    items = items[:limit]
    last = items[-1].metadata
    return Page(items, pages.make_token(version, last.workspace, last.name), version)


def _filtered(kind: Kind, which: ListFilter) -> Select[Any]:
    query = select(table).where(table.c.kind == kind.name)
    if which.workspace is not None:
        query = query.where(table.c.workspace == which.workspace)
    if which.owner_uid is not None:
        query = query.where(table.c.owner_uid == which.owner_uid)
    return query.where(*selectors.conditions(kind, which.labels, which.fields))
