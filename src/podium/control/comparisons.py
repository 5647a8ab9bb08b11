"""Compares shadows with their champions: reads what the replicas of both wrote down, every two seconds while any
shadow gets copies.

Started by `app.server`. Calls the targets for records, `planning.shadows` for who is a shadow of whom,
`analysis.pairing` for the sums, and the store, which keeps them. What is kept goes on after a restart without counting
anything twice. Two servers over one home do not disturb each other: a row is written by one of them at a time, and who
finds another's in its place starts over from that.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from podium.analysis.answers import Answer, read_answer
from podium.analysis.pairing import Pairing
from podium.control.loop import now
from podium.planning import shadows
from podium.planning.shadows import Attached
from podium.planning.world import read_entry
from podium.resources.comparison import Comparison
from podium.resources.errors import Expired, PodiumError
from podium.resources.kinds import KINDS, Revision, Route
from podium.resources.rollout import FINAL_PHASES
from podium.resources.strategies import ShadowStrategy
from podium.store import ComparisonRow, Read, Store
from podium.targets.port import Recordings, RecordMark

_log = logging.getLogger("podium.control.comparisons")
_EVERY_SECONDS = 2.0
_ROUNDS = 4
"""Reads of one replica in a pass; what is left is read in the next."""
_PATIENCE_SECONDS = 10.0
"""A pass that has not come to the end of the files by then is taken to have: replicas may write faster than that."""
_CHANGES = 1000
_UNDER_WAY = ",".join(f"status.phase!={phase}" for phase in sorted(FINAL_PHASES))

Marks = dict[str, dict[str, RecordMark]]
"""By revision, then by replica."""


def comparison_of(store: Store, champion: str, shadow_uid: str) -> Comparison | None:
    """What is known of a shadow revision beside the champion of that name."""
    row = store.comparison(shadow_uid)
    found = (Comparison.model_validate(item) for item in (row.items if row is not None else ()))
    return next((one for one in found if one.champion == champion), None)


@dataclass
class _Compared:
    """One shadow revision, as this server goes on with it."""

    edition: int = 0
    pairing: Pairing = field(default_factory=Pairing)
    marks: Marks = field(default_factory=dict)
    ended: float = 0.0
    """When the last pass came to the end of the files; `time.monotonic`."""
    items: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Shadow:
    """A shadow that gets copies, with its revision and those of its champions."""

    attached: Attached
    revision: Revision
    champions: Mapping[str, Revision]


class Comparing:
    """One thread. A shadow whose pass fails does not keep the others from theirs."""

    def __init__(self, store: Store, targets: Mapping[str, Recordings]) -> None:
        self._store, self._targets = store, targets
        self._compared: dict[str, _Compared] = {}
        self._shadows: dict[str, _Shadow] | None = None
        """Of the look before, by uid; None: this is the first."""
        self._routes = _Routes()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="comparisons", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when the thread has."""
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_SECONDS):
            try:
                self.look()
            except PodiumError as error:
                _log.warning("shadows could not be compared, it is tried again: %s", error)
            except Exception:
                _log.exception("shadows could not be compared, it is tried again")

    def look(self) -> None:
        """One pass over every shadow that gets copies, and a last one over those that no longer do."""
        kept = self._store.comparisons() if self._shadows is None else []
        with self._store.read() as tx:
            found = {one.revision.uid: one for one in self._attached(tx)}
            before = _before(tx, kept) if self._shadows is None else self._shadows
        gone = {uid: one for uid, one in before.items() if uid not in found}
        failed = {uid: one for uid, one in gone.items() if not self._each(one, last=True)}
        self._shadows = {**found, **failed}
        for uid, one in found.items():
            # Who was a champion until now may have written something since.
            earlier = before[uid].champions if uid in before else {}
            self._each(replace(one, champions={**earlier, **one.champions}), last=False)

    def _attached(self, tx: Read) -> list[_Shadow]:
        attached: list[Attached] = []
        for route in self._routes.with_shadows(tx):
            workspace = route.metadata.workspace
            named = {name: read_entry(tx, workspace, name) for name in route.spec.deployments}
            attached += shadows.of_route(route, {name: entry for name, entry in named.items() if entry})
        for rollout in tx.list("Rollout", fields=_UNDER_WAY).items:
            if isinstance(rollout.spec.settings.strategy, ShadowStrategy):
                entry = read_entry(tx, rollout.metadata.workspace, rollout.spec.deployment)
                attached += shadows.of_rollout(rollout, entry) if entry else []
        return _with_revisions(tx, shadows.merged(attached))

    def _each(self, shadow: _Shadow, *, last: bool) -> bool:
        """One pass over one shadow; whether it could be made."""
        uid = shadow.revision.uid
        try:
            compared = self._compared.get(uid) or self._kept(uid)
            self._compared[uid] = compared
            self._read(shadow, compared)
            if last:
                compared.pairing.close()
                del self._compared[uid]
            if not self._save(shadow, compared, ended=last):
                self._compared.pop(uid, None)
            return True
        except PodiumError as error:
            # What was read and not kept is read again.
            self._compared.pop(uid, None)
            _log.warning(
                "shadow %s could not be compared, it is tried again: %s", shadow.attached.shadow, error
            )
        except Exception:
            self._compared.pop(uid, None)
            _log.exception("shadow %s could not be compared, it is tried again", shadow.attached.shadow)
        return False

    def _kept(self, uid: str) -> _Compared:
        row = self._store.comparison(uid)
        if row is None:
            return _Compared(ended=time.monotonic())
        pairing = Pairing.restored(row.state)
        marks = {
            revision: {replica: RecordMark(*mark) for replica, mark in replicas.items()}
            for revision, replicas in (pairing.marks or {}).items()
        }
        return _Compared(row.edition, pairing, marks, time.monotonic(), row.items, row.state)

    def _read(self, shadow: _Shadow, compared: _Compared) -> None:
        """One pass over the files of both sides."""
        ended = False
        for _ in range(_ROUNDS):
            champions: dict[str, list[Answer]] = {}
            lost: dict[str, int] = {}
            more = False
            for name, revision in shadow.champions.items():
                champions[name], lost[name], left = self._records(revision, compared.marks)
                more = more or left
            copies, lost[""], left = self._records(shadow.revision, compared.marks)
            compared.pairing.take(champions, copies, {side: count for side, count in lost.items() if count})
            if not (more or left):
                ended = True
                break
        at = time.monotonic()
        if ended or at - compared.ended > _PATIENCE_SECONDS:
            marks = {
                revision: {replica: list(asdict(mark).values()) for replica, mark in replicas.items()}
                for revision, replicas in compared.marks.items()
            }
            compared.pairing.end_pass(at, marks)
            compared.ended = at

    def _records(self, revision: Revision, marks: Marks) -> tuple[list[Answer], int, bool]:
        """What its replicas wrote down since, how many records are gone, and whether there is more."""
        name = revision.metadata.name
        found = self._targets[revision.spec.target].records(revision.uid, marks.get(name, {}))
        marks[name] = {one.replica: one.mark for one in found}
        answers: list[Answer] = []
        lost = sum(one.lost for one in found)
        for one in found:
            read = [read_answer(line) for line in one.lines]
            answers += [answer for answer in read if answer is not None]
            lost += sum(answer is None for answer in read)
        return answers, lost, any(one.more for one in found)

    def _save(self, shadow: _Shadow, compared: _Compared, *, ended: bool) -> bool:
        """Keep it where anything is new. False where another server has written meanwhile, or the shadow is gone."""
        attached = shadow.attached
        found = {
            one.champion: one for one in compared.pairing.comparisons(attached.workspace, attached.shadow)
        }
        items = []
        for name in sorted({*found, *attached.champions}):
            one = found.get(name) or Comparison(
                workspace=attached.workspace, champion=name, shadow=attached.shadow
            )
            why = [] if ended else list(attached.champions.get(name, ()))
            words = _message(one, shadow.champions.get(name), shadow.revision)
            made = one.model_copy(update={"sources": why, "message": words})
            items.append(made.model_dump(mode="json", by_alias=True))
        state = compared.pairing.settled()
        if items == compared.items and state == compared.state:
            return True
        compared.edition, compared.items, compared.state = compared.edition + 1, items, state
        row = ComparisonRow(
            shadow_uid=shadow.revision.uid,
            workspace=attached.workspace,
            shadow=attached.shadow,
            edition=compared.edition,
            updated_at=now(),
            items=items,
            state=state,
        )
        return self._store.save_comparison(row)


def _before(tx: Read, kept: Iterable[dict[str, Any]]) -> dict[str, _Shadow]:
    """Shadows that got copies when a server last looked, by uid: they may have ceased to while none ran."""
    champions: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
    for item in kept:
        if item["sources"]:
            champions.setdefault((item["workspace"], item["shadow"]), {})[item["champion"]] = ()
    attached = [Attached(workspace, shadow, names) for (workspace, shadow), names in champions.items()]
    return {one.revision.uid: one for one in _with_revisions(tx, attached)}


def _with_revisions(tx: Read, attached: Iterable[Attached]) -> list[_Shadow]:
    """Those whose revision is still there, each with its champions that are."""
    made = []
    for one in attached:
        revision = tx.find("Revision", one.workspace, one.shadow)
        champions = {name: tx.find("Revision", one.workspace, name) for name in one.champions}
        if revision is not None:
            known = {name: champion for name, champion in champions.items() if champion is not None}
            made.append(_Shadow(one, revision, known))
    return made


def _message(one: Comparison, champion: Revision | None, shadow: Revision) -> str:
    if champion is not None and (why := shadows.cannot_record(champion, shadow)):
        return why
    if one.pairs:
        return ""
    if one.shadow_failed or one.champion_failed:
        return "no request was answered by both yet"
    return "no request was recorded on both sides yet"


class _Routes:
    """The Routes that have shadows, kept up to date by what changed: there may be thousands of others."""

    def __init__(self) -> None:
        self._version: int | None = None
        self._found: dict[str, Route] = {}

    def with_shadows(self, tx: Read) -> Iterable[Route]:
        try:
            while self._version is not None and self._version < tx.version:
                changes = tx.changes(self._version, kinds=["Route"], limit=_CHANGES)
                for change in changes:
                    self._note(KINDS["Route"].parse(change.object), gone=change.type == "DELETED")
                self._version = tx.version if len(changes) < _CHANGES else changes[-1].version
        except Expired:
            self._version = None
        if self._version is None:
            self._found = {}
            for route in tx.list("Route").items:
                self._note(route, gone=False)
            self._version = tx.version
        return list(self._found.values())

    def _note(self, route: Route, *, gone: bool) -> None:
        if gone or not any(rule.shadow for rule in route.spec.rules):
            self._found.pop(route.uid, None)
        else:
            self._found[route.uid] = route
