"""Joins what champions and a shadow wrote down about the same requests, and adds it up. Pure: it reads no files.

Made by `control.comparisons`, one `Pairing` per shadow revision. Calls `answers` and `divergence`.

Records come in *passes*. The first `WINDOW_SECONDS` after it was read a record waits for the other side's; meanwhile
its pass is open. What is *settled* can be kept (`settled`, `restored`) together with how far the files had been read
at the end of the last settled pass: whoever goes on from there reads the open passes again, and counts nothing twice.
"""

import datetime
import itertools
import json
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from podium.analysis.answers import Answer, Output
from podium.analysis.divergence import Difference, compared, differences
from podium.resources.comparison import Comparison, DivergentExample, OutputKind

WINDOW_SECONDS = 30.0
ALPHA = 0.05
EXAMPLES = 10
OUTPUTS = 64
"""Different outputs of one comparison; more are not counted."""
_PENDING = 20_000
"""Records of one side that may wait; the oldest go first."""
_PENDING_VALUES = 500_000
"""Values in them, some 50 MB of memory: a record may hold a thousand."""
_CHAMPIONS = 16
"""Beside which one shadow is remembered; the one of which nothing came for longest goes."""
_SHOWN = 200
"""Characters of an example's values."""
_SHADOW = ""
"""The shadow's own place among the sides; no revision has this name."""
_BEFORE = (0, 1)
"""Passes of a pair from before a restart: its second record is read again in the first pass."""


@dataclass
class Totals:
    """What is known of a shadow beside one champion. Sums only, so two of them can be added."""

    pairs: int = 0
    shadow_failed: int = 0
    champion_failed: int = 0
    unmatched: int = 0
    ambiguous: int = 0
    lost: int = 0
    champion_seconds: float = 0.0
    shadow_seconds: float = 0.0
    since: float | None = None
    newest: float | None = None
    outputs: dict[tuple[str, OutputKind], tuple[int, float, int]] = field(default_factory=dict)
    """Requests, the sum of what lies apart, and how many were mismatched."""
    examples: list[DivergentExample] = field(default_factory=list)

    def add(self, other: "Totals") -> None:
        """Adds what `other` has."""
        for name in ("pairs", "shadow_failed", "champion_failed", "unmatched", "ambiguous", "lost",
                     "champion_seconds", "shadow_seconds"):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        times = [at for at in (self.since, other.since) if at is not None]
        self.since = min(times, default=None)
        times = [at for at in (self.newest, other.newest) if at is not None]
        self.newest = max(times, default=None)
        for key, sums in other.outputs.items():
            if key in self.outputs or len(self.outputs) < OUTPUTS:
                pairs, apart, mismatched = self.outputs.get(key, (0, 0.0, 0))
                self.outputs[key] = (pairs + sums[0], apart + sums[1], mismatched + sums[2])
        self._keep([*self.examples, *other.examples])

    def pair(self, champion: Answer, shadow: Answer) -> None:
        """Adds one request that both have a record of."""
        if not champion.answered:
            self.champion_failed += 1
            return
        if not shadow.answered:
            self.shadow_failed += 1
            return
        self.pairs += 1
        self.champion_seconds += champion.seconds
        self.shadow_seconds += shadow.seconds
        self.since = champion.at if self.since is None else min(self.since, champion.at)
        self.newest = champion.at if self.newest is None else max(self.newest, champion.at)
        for key, found in differences(champion.outputs, shadow.outputs).items():
            if key not in self.outputs and len(self.outputs) >= OUTPUTS:
                continue
            pairs, apart, mismatched = self.outputs.get(key, (0, 0.0, 0))
            self.outputs[key] = (pairs + 1, apart + found.apart, mismatched + found.mismatched)
            self._show(champion, shadow, key[0], found)

    def _show(self, champion: Answer, shadow: Answer, name: str, found: Difference) -> None:
        full = len(self.examples) >= EXAMPLES
        if found.apart <= 0 or (full and found.apart < self.examples[-1].difference):
            return
        example = DivergentExample(
            request_id=champion.id,
            at=_time(champion.at),
            output=name,
            difference=found.apart,
            champion=_shown(champion.outputs.get(name)),
            shadow=_shown(shadow.outputs.get(name)),
        )
        self._keep([*self.examples, example])

    def _keep(self, examples: list[DivergentExample]) -> None:
        """The farthest apart, of equal ones the newest."""
        self.examples = sorted(examples, key=lambda one: (-one.difference, -one.at.timestamp()))[:EXAMPLES]

    def document(self) -> dict[str, Any]:
        """JSON-ready; `read` gives an equal one."""
        plain = {name: value for name, value in vars(self).items() if name not in ("outputs", "examples")}
        outputs = [[*key, *sums] for key, sums in self.outputs.items()]
        examples = [one.model_dump(mode="json", by_alias=True) for one in self.examples]
        return {**plain, "outputs": outputs, "examples": examples}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Totals":
        """The inverse of `document`."""
        plain = {name: value for name, value in document.items() if name not in ("outputs", "examples")}
        outputs = {(item[0], item[1]): (item[2], item[3], item[4]) for item in document["outputs"]}
        examples = [DivergentExample.model_validate(one) for one in document["examples"]]
        return cls(**plain, outputs=outputs, examples=examples)


def _values(records: "Sequence[_Waiting]") -> int:
    """How many values these records hold; a long text counts as several, a record without any as one."""
    return sum(
        1 + len(value) // 16 if isinstance(value, str) else 1
        for record in records
        for output in record.answer.outputs.values()
        for value in output.values
    ) + len(records)


def _shown(output: Output | None) -> str:
    if output is None:
        return "none"
    text = json.dumps(output.values, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _time(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, datetime.UTC)


class _Waiting(NamedTuple):
    answer: Answer
    passed: int


class _Pass(NamedTuple):
    number: int
    ended: float
    marks: Any


class Pairing:
    """One shadow revision beside all revisions whose requests it gets copies of. Not for several threads."""

    def __init__(self) -> None:
        self._settled: dict[str, Totals] = {}
        self._open: dict[int, dict[str, Totals]] = {}
        """By pass; a pair belongs to the pass in which the first of its two records was read."""
        self._passes: deque[_Pass] = deque()
        self._number = 1
        self._waiting: dict[str, dict[str, list[_Waiting]]] = {}
        """By side, then by id."""
        self._done: dict[str, tuple[int, int]] = {}
        """Ids of pairs whose two records were read in different passes, with both. While the first one is settled and
        the second is not, who goes on from the marks would meet the second alone."""
        self._ambiguous: dict[str, int] = {}
        """Ids that came more than once, with the pass in which they last did."""
        self._marks: Any = None

    # --- what comes ---------------------------------------------------------------------------------------------

    def take(
        self, champions: Mapping[str, Iterable[Answer]], copies: Iterable[Answer], lost: Mapping[str, int]
    ) -> None:
        """Records of one pass: those of each champion revision by its name, and those of the copies. `lost`: records
        that are gone, by champion, and the shadow's own under ''. May be called several times in a pass."""
        fresh: set[str] = set()
        for side, answers in [*champions.items(), (_SHADOW, copies)]:
            waiting = self._waiting.setdefault(side, {})
            for answer in answers:
                if answer.copy != (side == _SHADOW) or self._done.get(answer.id) == _BEFORE:
                    continue
                waiting.setdefault(answer.id, []).append(_Waiting(answer, self._number))
                fresh.add(answer.id)
        for side, count in lost.items():
            for name in [side] if side != _SHADOW else champions:
                self._bucket(self._number, name).lost += count
        for id_ in fresh:
            self._join(id_)
        for side, waiting in self._waiting.items():
            held = sum(map(_values, waiting.values()))
            while len(waiting) > _PENDING or held > _PENDING_VALUES:
                oldest = waiting.pop(next(iter(waiting)))
                held -= _values(oldest)
                self._unmatched(side, oldest)

    def _join(self, id_: str) -> None:
        copies = self._waiting[_SHADOW].get(id_, [])
        sides = [side for side, waiting in self._waiting.items() if side != _SHADOW and id_ in waiting]
        if id_ in self._ambiguous or len(_best(copies)) > 1:
            self._drop(id_)
            return
        for side in sides:
            originals = self._waiting[side][id_]
            if len(_best(originals)) > 1:
                self._drop(id_)
                return
            if not copies:
                continue
            one, other = _best(originals)[0], _best(copies)[0]
            first, last = sorted((one.passed, other.passed))
            self._bucket(first, side).pair(one.answer, other.answer)
            del self._waiting[side][id_], self._waiting[_SHADOW][id_]
            if first != last:
                self._done[id_] = (first, last)
            return

    def _drop(self, id_: str) -> None:
        """Which of several belongs to which cannot be told: clients may send ids of their own."""
        self._ambiguous[id_] = self._number
        for side, waiting in self._waiting.items():
            for one in waiting.pop(id_, []):
                self._bucket(one.passed, side).ambiguous += 1

    # --- time ---------------------------------------------------------------------------------------------------

    def end_pass(self, at: float, marks: Any) -> None:
        """Everything that was there has been read. `at`: seconds on any clock that does not go back. `marks`: where a
        reader goes on after what has been read until now; JSON-ready."""
        self._passes.append(_Pass(self._number, at, marks))
        self._number += 1
        while self._passes and self._passes[0].ended <= at - WINDOW_SECONDS:
            self._settle(self._passes.popleft())

    def _settle(self, ended: _Pass) -> None:
        for side, waiting in self._waiting.items():
            # In the order of their coming: the old ones stand first.
            items = itertools.takewhile(lambda item: item[1][0].passed <= ended.number, waiting.items())
            for id_ in [id_ for id_, _ in items]:
                self._unmatched(side, waiting.pop(id_))
        for number in [number for number in self._open if number <= ended.number]:
            for champion, totals in self._open.pop(number).items():
                self._settled.setdefault(champion, Totals()).add(totals)
        self._done = {id_: both for id_, both in self._done.items() if both[1] > ended.number}
        while len(self._settled) > _CHAMPIONS:
            del self._settled[min(self._settled, key=lambda name: self._settled[name].newest or 0.0)]
        self._ambiguous = {id_: last for id_, last in self._ambiguous.items() if last > ended.number}
        self._marks = ended.marks

    def close(self) -> None:
        """Settle everything: no more records will come."""
        while self._passes:
            self._settle(self._passes.popleft())

    def _unmatched(self, side: str, records: list[_Waiting]) -> None:
        for one in records:
            self._bucket(one.passed, side).unmatched += 1

    def _bucket(self, number: int, champion: str) -> Totals:
        return self._open.setdefault(number, defaultdict(Totals))[champion]

    # --- what is known ------------------------------------------------------------------------------------------

    def comparisons(self, workspace: str, shadow: str) -> list[Comparison]:
        """One for every champion of which there is anything, by name."""
        totals: dict[str, Totals] = {}
        for part in (self._settled, *self._open.values()):
            for champion, some in part.items():
                totals.setdefault(champion, Totals()).add(some)
        copies = totals.pop(_SHADOW, Totals())
        return [
            _comparison(some, workspace, champion, shadow).model_copy(
                update={"unmatched_shadow": copies.unmatched}
            )
            for champion, some in sorted(totals.items())
        ]

    def settled(self) -> dict[str, Any]:
        """What may be kept, JSON-ready, with the marks that belong to it (None: nothing is settled yet)."""
        last = self._passes[0].number - 1 if self._passes else self._number - 1
        return {
            "totals": {name: totals.document() for name, totals in self._settled.items()},
            # Whoever goes on from the marks reads the later record of these again, and its other half never.
            "done": [id_ for id_, (first, second) in self._done.items() if first <= last < second],
            "marks": self._marks,
        }

    @classmethod
    def restored(cls, kept: Mapping[str, Any]) -> "Pairing":
        """Goes on from what `settled` gave."""
        made = cls()
        made._settled = {name: Totals.read(totals) for name, totals in kept["totals"].items()}
        made._done = dict.fromkeys(kept["done"], _BEFORE)
        made._marks = kept["marks"]
        return made

    @property
    def marks(self) -> Any:
        """Those of the last settled pass: where reading goes on after `restored`."""
        return self._marks


def _best(records: Sequence[_Waiting]) -> Sequence[_Waiting]:
    """Of several attempts the one that answered."""
    answered = [one for one in records if one.answer.answered]
    return answered or records[-1:]


def _comparison(totals: Totals, workspace: str, champion: str, shadow: str) -> Comparison:
    pairs = totals.pairs
    return Comparison(
        workspace=workspace,
        champion=champion,
        shadow=shadow,
        pairs=pairs,
        shadow_failed=totals.shadow_failed,
        champion_failed=totals.champion_failed,
        unmatched_champion=totals.unmatched,
        ambiguous=totals.ambiguous,
        lost=totals.lost,
        per_output=[
            compared(name, kind, sums, ALPHA) for (name, kind), sums in sorted(totals.outputs.items())
        ],
        examples=totals.examples,
        champion_seconds=totals.champion_seconds / pairs if pairs else None,
        shadow_seconds=totals.shadow_seconds / pairs if pairs else None,
        since=_time(totals.since) if totals.since is not None else None,
        newest=_time(totals.newest) if totals.newest is not None else None,
    )
