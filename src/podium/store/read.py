"""One consistent snapshot of the store: every question that can be asked of it. Made by `Store.read` and `Store.write`.

Calls the module of each noun.
"""

import datetime
from collections.abc import Sequence

from sqlalchemy import Connection

from podium.resources.errors import NotFound
from podium.resources.kinds import AnyResource, kind_of
from podium.store import aliases, audit, changes, events, resources, tokens
from podium.store.aliases import AliasRow
from podium.store.audit import AuditRow
from podium.store.changes import Change
from podium.store.events import EventRow
from podium.store.pages import checked_limit
from podium.store.resources import ListFilter, Page
from podium.store.tokens import TokenRow

# Inside the class `list` is the method.
_Changes = list[Change]
_Events = list[EventRow]
_Moves = list[AliasRow]
_Tokens = list[TokenRow]
_Ids = list[str]
_Retiring = list[tuple[str, datetime.datetime]]


class Read:
    """What both a snapshot and a write transaction answer. `version` is that of the newest commit in it,
    `now` when it was begun. Not for several threads.

    `kind` may be a kind's name, plural or short name; an unknown one raises InvalidInput that lists the known.
    """

    def __init__(self, connection: Connection, version: int, now: datetime.datetime) -> None:
        self._connection = connection
        self.version = version
        self.now = now

    def get(self, kind: str, workspace: str, name: str) -> AnyResource:
        """The object. Raises NotFound."""
        found = self.find(kind, workspace, name)
        if found is None:
            raise resources.missing(kind_of(kind), workspace, name)
        return found

    def find(self, kind: str, workspace: str, name: str) -> AnyResource | None:
        """The object, or None."""
        return resources.find(self._connection, kind_of(kind), workspace, name)

    def by_uid(self, uid: str) -> AnyResource | None:
        """The object with this uid, of any kind, or None."""
        return resources.by_uid(self._connection, uid)

    def newest_change(self, uid: str) -> tuple[int, int]:
        """The resourceVersion of what changed last, of the object and all that it owns, and how many these are. Parses
        nothing: for who only wants to know whether anything is new."""
        return resources.newest_change(self._connection, uid)

    def naming(self, kind: str, workspace: str, name: str) -> Sequence[str]:
        """The uids of the objects of a kind whose spec holds this name, or the same text in another meaning: for who
        only wants to wake them."""
        return resources.naming(self._connection, kind_of(kind), workspace, name)

    def list(
        self,
        kind: str,
        *,
        workspace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        owner_uid: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page:
        """Objects of a kind in order of (workspace, name).

        labels, fields: selectors in Kubernetes' syntax (`selectors`). limit: objects per page, None for all of them.
        after: the `next` of the page before. Raises InvalidInput naming labelSelector, fieldSelector, limit or
        continue.
        """
        which = ListFilter(workspace, labels, fields, owner_uid)
        return resources.list_page(
            self._connection,
            kind_of(kind),
            which,
            version=self.version,
            limit=checked_limit(limit),
            after=after,
        )

    def changes(
        self,
        after: int,
        *,
        kinds: Sequence[str] | None = None,
        workspace: str | None = None,
        limit: int | None = 1000,
    ) -> _Changes:
        """What commits above version `after` did, oldest first; about `limit`, never half a commit.

        Fewer than `limit` means that there is nothing more up to `version`: go on from there. Raises Expired when
        `after` is older than what is kept, or ahead of the store.
        """
        named = None if kinds is None else [kind_of(kind).name for kind in kinds]
        return changes.read(
            self._connection,
            after,
            version=self.version,
            kinds=named,
            workspace=workspace,
            limit=checked_limit(limit),
        )

    def events(
        self,
        *,
        workspace: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        limit: int | None = 100,
        before: int | None = None,
    ) -> _Events:
        """Events, newest first; `before`: the `id` of the last one that was seen."""
        named = None if kind is None else kind_of(kind).name
        return events.newest(
            self._connection,
            workspace=workspace,
            kind=named,
            name=name,
            limit=checked_limit(limit),
            before=before,
        )

    def alias_history(self, workspace: str, model: str) -> _Moves:
        """Every move of a model's aliases, newest first."""
        return aliases.history(self._connection, workspace, model)

    def tokens(self) -> _Tokens:
        """All tokens that were given out, newest first."""
        return tokens.everything(self._connection)

    def token(self, token_id: str) -> TokenRow:
        """One token. Raises NotFound."""
        found = tokens.find(self._connection, token_id)
        if found is None:
            raise NotFound(f"there is no token {token_id[:60]!r}", next_step="podium token list")
        return found

    def revoked_tokens(self) -> _Ids:
        """The ids that a gateway must refuse, without those that have expired by themselves; sorted."""
        return tokens.revoked(self._connection, self.now)

    def retiring_tokens(self) -> _Retiring:
        """The ids that were rotated and are still good, each with the time from which it counts as revoked."""
        return tokens.retiring(self._connection, self.now)


class Snapshot(Read):
    """What `Store.read` gives: a `Read` that can also list the audit trail (a `Write` adds to it instead)."""

    def audit(
        self,
        *,
        workspace: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        limit: int | None = 100,
        before: int | None = None,
    ) -> list[AuditRow]:
        """Audit rows, newest first; `before`: the `seq` of the last one that was seen. `kind` may be Token too."""
        named = kind if kind in (None, audit.TOKEN) else kind_of(kind).name
        return audit.newest(
            self._connection,
            workspace=workspace,
            kind=named,
            name=name,
            limit=checked_limit(limit),
            before=before,
        )
