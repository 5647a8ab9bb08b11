"""Records of two sides joined by request id: nothing twice, nothing left out, whatever comes late or comes again."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.analysis.answers import Answer, Output
from podium.analysis.pairing import EXAMPLES, OUTPUTS, WINDOW_SECONDS, Pairing, Totals
from podium.resources.comparison import Comparison


def answer(
    id_: object, label: str = "a", *, copy: bool = False, status: int = 200, at: float = 1.0
) -> Answer:
    outputs = {"label": Output("text", (1,), (label,))} if status == 200 else {}
    return Answer(str(id_), copy, at, 0.01, status, outputs)


def copies(*ids: object, label: str = "a", status: int = 200) -> list[Answer]:
    return [answer(id_, label, copy=True, status=status) for id_ in ids]


def originals(*ids: object, label: str = "a", status: int = 200) -> list[Answer]:
    return [answer(id_, label, status=status) for id_ in ids]


def take(
    pairing: Pairing, mine: Iterable[Answer] = (), theirs: Iterable[Answer] = (), *, name: str = "c-1"
) -> None:
    pairing.take({name: mine}, theirs, {})


def only(pairing: Pairing) -> Comparison:
    [found] = pairing.comparisons("w", "s-1")
    return found


def test_both_in_one_pass_and_each_first() -> None:
    pairing = Pairing()
    take(pairing, originals(1, 2), copies(2, 3))
    pairing.end_pass(0, {})
    take(pairing, originals(3), copies(1))
    found = only(pairing)
    assert (found.pairs, found.shadow_failed, found.champion_failed) == (3, 0, 0)
    assert (found.unmatched_shadow, found.unmatched_champion) == (0, 0)
    [label] = found.per_output
    assert (label.name, label.kind, label.pairs, label.agreement) == ("label", "class", 3, 1.0)


def test_an_answer_of_each_kind() -> None:
    pairing = Pairing()
    take(pairing, originals(1, 2, 3), [*copies(1, label="b"), *copies(2, 3, status=500)])
    take(pairing, originals(4, status=503), copies(4))
    found = only(pairing)
    assert (found.pairs, found.shadow_failed, found.champion_failed) == (1, 2, 1)
    assert found.per_output[0].agreement == 0.0
    [example] = found.examples
    assert (example.request_id, example.champion, example.shadow) == ("1", '["a"]', '["b"]')


def test_a_champions_own_copies_and_a_shadows_own_traffic_are_not_meant() -> None:
    pairing = Pairing()
    take(pairing, [*originals(1), *copies(2)], [*copies(1), *originals(2)])
    assert only(pairing).pairs == 1


def test_what_finds_no_other_side_in_time_is_counted() -> None:
    pairing = Pairing()
    take(pairing, originals(1, 2), copies(3))
    pairing.end_pass(0, {})
    pairing.end_pass(WINDOW_SECONDS - 1, {})
    assert pairing.comparisons("w", "s-1") == []
    take(pairing, (), copies(1))
    pairing.end_pass(WINDOW_SECONDS, {})
    assert (only(pairing).pairs, only(pairing).unmatched_champion, only(pairing).unmatched_shadow) == (
        1,
        1,
        1,
    )
    take(pairing, originals(3), copies(2))
    assert only(pairing).pairs == 1


def test_each_champion_has_its_own() -> None:
    pairing = Pairing()
    pairing.take({"c-1": originals(1, 2), "c-2": originals(3, label="b")}, copies(1, 2, 3), {"c-1": 4, "": 5})
    first, second = pairing.comparisons("w", "s-1")
    assert (first.champion, first.pairs, first.per_output[0].agreement, first.lost) == ("c-1", 2, 1.0, 9)
    assert (second.champion, second.pairs, second.per_output[0].agreement, second.lost) == ("c-2", 1, 0.0, 5)
    pairing.end_pass(0, {})
    pairing.end_pass(2 * WINDOW_SECONDS, {})
    assert [found.unmatched_shadow for found in pairing.comparisons("w", "s-1")] == [0, 0]


def test_an_attempt_that_failed_and_was_repeated_is_one_request() -> None:
    pairing = Pairing()
    take(pairing, [*originals(1, status=500), *originals(1)], copies(1))
    assert (only(pairing).pairs, only(pairing).champion_failed) == (1, 0)


def test_ids_that_clients_repeat_are_left_out() -> None:
    pairing = Pairing()
    take(pairing, originals("same", "same", "own"), copies("same", "same", "own"))
    take(pairing, originals("same"), copies("same"))
    found = only(pairing)
    assert (found.pairs, found.ambiguous) == (1, 3)
    pairing.end_pass(0, {})
    pairing.end_pass(WINDOW_SECONDS, {})
    take(pairing, originals("same"), copies("same"))
    assert only(pairing).pairs == 2, "after a while the id stands for one request again"


def test_a_hostile_model_fills_no_memory() -> None:
    pairing = Pairing()
    for part in range(25):
        take(pairing, originals(*(f"{part}-{number}" for number in range(1000))))
    assert sum(map(len, pairing._waiting.values())) <= 20_000
    assert only(pairing).unmatched_champion == 5000
    many = {f"y{number}": Output("text", (1,), ("a",)) for number in range(16)}
    for part in range(10):
        named = {f"{part}{name}": output for name, output in many.items()}
        mine = [Answer(f"o{part}", False, 1.0, 0.1, 200, named)]
        take(pairing, mine, [Answer(f"o{part}", True, 1.0, 0.1, 200, many)])
    found = only(pairing)
    assert len(found.per_output) == OUTPUTS
    assert len(found.examples) == EXAMPLES


def test_the_farthest_apart_are_shown_and_of_those_the_newest() -> None:
    pairing = Pairing()
    for number in range(40):
        mine = answer(number, at=float(number))
        theirs = answer(number, "b" if number % 2 else "a", copy=True, at=float(number))
        take(pairing, [mine], [theirs])
    shown = [int(example.request_id) for example in only(pairing).examples]
    assert shown == list(range(39, 19, -2))


def test_totals_are_read_as_they_were_written() -> None:
    pairing = Pairing()
    take(pairing, originals(1, 2), copies(1, label="b"))
    totals = next(iter(pairing._open.values()))["c-1"]
    again = Totals.read(json.loads(json.dumps(totals.document())))
    assert again == totals


# --- restarts -------------------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("original"), st.integers(0, 30), st.sampled_from([200, 500])),
        st.tuples(st.just("copy"), st.integers(0, 30), st.sampled_from([200, 500])),
        st.tuples(st.just("pass"), st.integers(1, 25), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=80,
)


class Files:
    """The two sides' records, and how far they were read."""

    def __init__(self) -> None:
        self.written: dict[bool, list[Answer]] = {False: [], True: []}
        self.marks = [0, 0]
        self.pairing = Pairing()
        self.clock = 0.0
        self.kept: dict[str, Any] = self.pairing.settled()

    def one_pass(self, seconds: float) -> None:
        self.clock += seconds
        mine, theirs = (self.written[side][self.marks[side] :] for side in (False, True))
        self.marks = [len(self.written[False]), len(self.written[True])]
        take(self.pairing, mine, theirs)
        self.pairing.end_pass(self.clock, list(self.marks))
        self.kept = json.loads(json.dumps(self.pairing.settled()))

    def restart(self) -> None:
        self.pairing = Pairing.restored(self.kept)
        self.marks = list(self.pairing.marks or [0, 0])


@settings(max_examples=300, deadline=None)
@given(EVENTS)
def test_a_restart_at_any_time_counts_nothing_twice_and_forgets_nothing(
    events: list[tuple[str, int, int]],
) -> None:
    """Beside a run without restarts, that reads the same records at the same times."""
    straight, broken = Files(), Files()
    seen: set[tuple[str, int]] = set()
    for what, number, status in events:
        if what in ("original", "copy"):
            if (what, number) in seen:
                continue
            seen.add((what, number))
            made = answer(number, copy=what == "copy", status=status)
            for files in (straight, broken):
                files.written[made.copy].append(made)
        elif what == "pass":
            straight.one_pass(float(number))
            broken.one_pass(float(number))
        else:
            broken.restart()
            broken.one_pass(0.0)
            straight.one_pass(0.0)
    for files in (straight, broken):
        files.one_pass(1.0)
        files.pairing.close()
    mine, theirs = straight.pairing.comparisons("w", "s"), broken.pairing.comparisons("w", "s")
    for found, expected in zip(theirs, mine, strict=True):
        # A record whose window a restart has begun anew may find its other side after all: never less is found.
        assert found.pairs + found.shadow_failed + found.champion_failed >= (
            expected.pairs + expected.shadow_failed + expected.champion_failed
        )
        both = {id_ for kind, id_ in seen if kind == "copy"} & {
            id_ for kind, id_ in seen if kind == "original"
        }
        assert found.pairs + found.shadow_failed + found.champion_failed <= len(both)
        joined = found.pairs + found.shadow_failed + found.champion_failed
        assert joined + found.unmatched_champion == len(straight.written[False])
        assert joined + found.unmatched_shadow == len(straight.written[True])


def test_a_pair_across_the_line_of_what_is_settled_is_counted_once() -> None:
    files = Files()
    files.written[False] = originals(1)
    files.one_pass(0)
    files.written[True] = copies(1)
    files.one_pass(WINDOW_SECONDS - 1)
    files.one_pass(1)
    assert files.kept["marks"] == [1, 0]
    assert files.kept["done"] == ["1"]
    files.restart()
    files.one_pass(1)
    files.one_pass(2 * WINDOW_SECONDS)
    found = only(files.pairing)
    assert (found.pairs, found.unmatched_shadow, found.unmatched_champion) == (1, 0, 0)


@pytest.mark.parametrize("passes", [0, 1, 5])
def test_what_is_settled_is_small(passes: int) -> None:
    files = Files()
    for number in range(passes):
        files.written[False] += originals(*range(number * 100, number * 100 + 100))
        files.written[True] += copies(*range(number * 100, number * 100 + 100))
        files.one_pass(WINDOW_SECONDS / 2)
    assert len(json.dumps(files.kept)) < 5000


def test_what_waits_is_bounded_by_what_it_holds() -> None:
    """A record may hold a thousand values: model code that writes many of them must not fill the server's memory."""
    wide = {f"out{number}": Output("text", (64,), ("x" * 128,) * 64) for number in range(16)}
    pairing = Pairing()
    many = [Answer(str(id_), False, 1.0, 0.01, 200, wide) for id_ in range(400)]
    take(pairing, many)
    take(pairing, (), [Answer("399", True, 1.0, 0.01, 200, wide), Answer("0", True, 1.0, 0.01, 200, wide)])
    found = only(pairing)
    assert found.pairs == 1, "the newest is there, the oldest has gone"
    assert found.unmatched_champion > 300
