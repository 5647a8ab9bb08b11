"""What a revision does with its replicas: how many it starts, whom it stops and when, how it waits after a death."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.planning.revisions import (
    CRASH_LOOP_FAILURES,
    RevisionOutcome,
    RevisionWorld,
    Seen,
    decide,
    retry_seconds,
)
from podium.resources.kinds import Revision
from tests.unit.planning.worlds import NOW, at, revision

NAME = "churn-00001"


def seen(
    number: int, phase: Any = "Ready", *, age: float = 3600, code: int | None = None, log: Any = ()
) -> Seen:
    """Replica `number` as its target shows it, started `age` seconds ago."""
    return Seen(f"{NAME}-{number}", phase, f"unix:/{number}", 100 + number, at(-age), code, log, "full")


def known(*states: tuple[int, str] | tuple[int, str, int], wanted: int = 1, **status: Any) -> Revision:
    """The revision, whose status holds these replicas: (number, phase[, draining version])."""
    replicas = [
        {
            "name": f"{NAME}-{number}", "phase": phase, "address": f"unix:/{number}",
            "drainingVersion": rest[0] if rest else None,
        }
        for number, phase, *rest in states
    ]  # fmt: skip
    return revision(1, replicas=replicas, wantedReplicas=wanted, **{"starts": len(replicas), **status})


def step(before: Revision, *replicas: Seen, observed: int | None = 100) -> RevisionOutcome:
    return decide(before, RevisionWorld(NOW, replicas, observed))


def names(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{NAME}-{number}" for number in numbers)


# --- how many -----------------------------------------------------------------------------------------------------


def test_as_many_are_started_as_are_missing_under_names_never_used_before() -> None:
    before = known((7, "Ready"), wanted=3, starts=9)
    outcome = step(before, seen(7))
    assert (outcome.start, outcome.status.starts) == (names(10, 11), 11)
    assert (outcome.status.phase, outcome.status.message) == ("Degraded", "1 of 3 replicas are ready")


def test_a_replica_that_no_status_tells_of_is_kept_and_its_number_is_not_used_again() -> None:
    outcome = step(known(wanted=2, starts=0), seen(4, "Starting", age=1))
    assert outcome.start == names(5)
    assert [state.name for state in outcome.status.replicas] == list(names(4))


def test_a_surplus_drains_the_youngest_and_those_that_are_not_ready_first() -> None:
    before = known((1, "Ready"), (2, "Ready"), (3, "Starting"), wanted=1)
    outcome = step(before, seen(1, age=10), seen(2, age=20), seen(3, "Starting", age=30))
    phases = {state.name: state.phase for state in outcome.status.replicas}
    assert phases == {f"{NAME}-2": "Ready", f"{NAME}-1": "Draining", f"{NAME}-3": "Draining"}
    assert (outcome.status.ready_replicas, outcome.stop, outcome.start) == (1, (), ())


def test_who_drains_counts_for_nothing_and_never_comes_back() -> None:
    outcome = step(known((1, "Draining", 50), wanted=1), seen(1), observed=10)
    assert (outcome.status.ready_replicas, outcome.start, outcome.stop) == (0, names(2), ())


# --- draining -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "observed", "stopped"),
    [(50, 49, False), (50, 50, True), (50, 51, True), (0, 100, False), (50, None, True), (0, None, False)],
    ids=[
        "not loaded",
        "loaded",
        "loaded later",
        "not committed",
        "no gateway ever",
        "no gateway, not committed",
    ],
)
def test_a_draining_replica_is_stopped_only_when_every_gateway_has_the_routes_without_it(
    version: int, observed: int | None, stopped: bool
) -> None:
    outcome = step(known((1, "Draining", version), wanted=0), seen(1), observed=observed)
    assert outcome.stop == (names(1) if stopped else ())
    assert outcome.status.replicas[0].draining_version == version


def test_being_deleted_drains_all_and_is_over_when_none_is_left() -> None:
    going = known((1, "Ready"), wanted=1).model_copy(
        update={"metadata": known().metadata.model_copy(update={"deletion_requested_at": NOW})}
    )
    outcome = step(going, seen(1))
    assert (outcome.start, outcome.stop, outcome.drained) == ((), (), False)
    assert outcome.status.replicas[0].phase == "Draining"
    over = step(going, seen(1, "Exited", code=0))
    assert (over.drained, over.forget, over.start, over.next_at) == (True, names(1), (), None)


# --- deaths -------------------------------------------------------------------------------------------------------


def test_the_wait_after_short_lives_grows_from_a_second_to_a_minute() -> None:
    waits = [retry_seconds(failures) for failures in range(1, 12)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    assert retry_seconds(10**9) == 60
    assert retry_seconds(0) == 1


@given(st.integers(0, 10**6))
def test_the_wait_never_shrinks_while_the_failures_go_on(failures: int) -> None:
    assert 1 <= retry_seconds(failures) <= retry_seconds(failures + 1) <= 60


def test_one_that_never_was_ready_is_replaced_after_the_wait_and_not_before() -> None:
    died = step(known((1, "Starting"), wanted=1), seen(1, "Exited", age=2, code=4, log=["no file"]))
    assert (died.start, died.forget, died.status.retry_at) == ((), names(1), at(1))
    assert died.next_at == at(1)
    assert (
        died.status.last_exit
        == "exited with code 4 (the model failed to load or warm up); last lines:\nno file"
    )
    waiting = known(wanted=1, retryAt=at(0.5), failures=1, starts=1)
    assert (step(waiting).start, step(waiting).next_at) == ((), at(0.5))
    assert step(known(wanted=1, retryAt=at(0), failures=1, starts=1)).start == names(2)


def test_one_that_was_ready_is_replaced_at_once() -> None:
    died = step(known((1, "Ready"), wanted=1), seen(1, "Exited", code=-9))
    assert (died.start, died.status.restarts) == (names(2), 1)
    assert died.status.last_exit == "killed by signal 9"
    assert [event[1] for event in died.events] == ["ReplicaEnded"]


def test_short_lives_in_a_row_are_a_crash_loop_and_said_once() -> None:
    before, said = known(wanted=1), []
    for number in range(1, 6):
        status = before.status.model_copy(update={"retry_at": None})
        started = step(before.model_copy(update={"status": status}))
        assert started.start == names(number)
        alive = step(before.model_copy(update={"status": started.status}), seen(number, "Starting", age=1))
        died = step(before.model_copy(update={"status": alive.status}), seen(number, "Exited", age=2, code=1))
        before = before.model_copy(update={"status": died.status})
        said += [event[1] for event in died.events if event[1] == "CrashLoop"]
        assert died.status.retry_at == at(retry_seconds(number))
        assert (died.status.phase == "CrashLoop") == (number >= CRASH_LOOP_FAILURES)
    assert said == ["CrashLoop"]
    assert "5 replicas in a row ended: exited with code 1" in before.status.message


@pytest.mark.parametrize(
    ("phase", "age", "failures"),
    [("Ready", 59, 3), ("Ready", 60, 0), ("Starting", 600, 3)],
    ids=["short", "long enough", "never ready"],
)
def test_only_who_was_ready_for_a_while_ends_the_row(phase: str, age: float, failures: int) -> None:
    died = step(known((1, phase), wanted=1, failures=2), seen(1, "Exited", age=age, code=1))
    assert died.status.failures == failures
    assert died.start == (names(2) if not failures else ())


def test_a_replica_that_stays_ready_ends_the_row() -> None:
    before = known((1, "Ready"), (2, "Ready"), wanted=2, failures=2)
    assert step(before, seen(1), seen(2, age=30)).status.failures == 2
    assert step(before, seen(1), seen(2)).status.failures == 0


def test_the_end_of_who_was_asked_to_end_is_no_failure() -> None:
    outcome = step(known((1, "Draining", 50), wanted=0), seen(1, "Exited", code=0))
    assert (outcome.forget, outcome.events, outcome.status.restarts) == (names(1), (), 0)


def test_an_end_that_was_counted_is_not_counted_again_when_forgetting_it_failed() -> None:
    gone = seen(1, "Exited", code=1)
    first = step(known((1, "Starting"), wanted=1), gone)
    again = step(known(wanted=1).model_copy(update={"status": first.status}), gone)
    assert (again.status.failures, again.status.restarts, again.events) == (1, 1, ())
    assert again.forget == names(1)


def test_what_nobody_wants_forgets_its_troubles() -> None:
    status = step(known(wanted=0, failures=5, restarts=9, retryAt=at(60))).status
    assert (status.phase, status.failures, status.restarts, status.retry_at) == ("Idle", 0, 0, None)


# --- properties ---------------------------------------------------------------------------------------------------

PHASES = st.sampled_from(["Starting", "Ready", "Draining"])


@st.composite
def plants(draw: st.DrawFn) -> tuple[Revision, list[Seen], int | None]:
    """A revision, replicas that its status tells of or not, and what the gateways have loaded."""
    states: list[Any] = []
    replicas: list[Seen] = []
    for number in range(1, draw(st.integers(0, 5)) + 1):
        phase = draw(PHASES)
        if draw(st.integers(0, 4)):
            states.append(
                (number, phase, draw(st.sampled_from([0, 50, 150])))
                if phase == "Draining"
                else (number, phase)
            )
        shown = draw(st.sampled_from(["Starting", "Ready", "Exited"]))
        replicas.append(seen(number, shown, age=draw(st.sampled_from([1.0, 59.0, 61.0]))))
    wish = {"wanted": draw(st.integers(0, 4)), "failures": draw(st.integers(0, 4))}
    return (
        known(*states, **wish, starts=draw(st.integers(0, 9))),
        replicas,
        draw(st.sampled_from([None, 99, 200])),
    )


@given(plants())
def test_started_and_kept_are_never_more_than_wanted_and_nobody_is_stopped_who_is_routed_to(
    plant: Any,
) -> None:
    before, replicas, observed = plant
    outcome = step(before, *replicas, observed=observed)
    kept = [state for state in outcome.status.replicas if state.phase != "Draining"]
    assert len(kept) + len(outcome.start) <= before.status.wanted_replicas
    draining = {
        state.name: state.draining_version or 0
        for state in outcome.status.replicas
        if state.phase == "Draining"
    }
    for name in outcome.stop:
        assert draining[name] > 0
        assert observed is None or draining[name] <= observed
    assert not {state.name for state in kept} & set(outcome.stop)
    assert not set(outcome.start) & {item.name for item in replicas}
    assert len(set(outcome.start)) == len(outcome.start)


@given(plants())
def test_deciding_again_on_its_own_outcome_changes_nothing(plant: Any) -> None:
    """The second look sees what the first one did: the dead forgotten, the stopped gone, the new ones starting."""
    before, replicas, observed = plant
    first = step(before, *replicas, observed=observed)
    gone = {*first.forget, *first.stop}
    fresh = [seen(int(name.rpartition("-")[2]), "Starting", age=0) for name in first.start]
    left = [item for item in replicas if item.name not in gone]
    then = before.model_copy(update={"status": first.status})
    second = step(then, *left, *fresh, observed=observed)
    assert (second.start, second.stop, second.forget, second.events) == ((), (), (), ())
    kept = [state.name for state in second.status.replicas]
    expected = [state.name for state in first.status.replicas if state.name not in gone]
    assert sorted(kept) == sorted([*expected, *first.start])
    third = step(then.model_copy(update={"status": second.status}), *left, *fresh, observed=observed)
    assert third.status == second.status


@given(plants())
def test_there_is_a_timer_while_something_is_to_come(plant: Any) -> None:
    before, replicas, observed = plant
    outcome = step(before, *replicas, observed=observed)
    if outcome.status.replicas or before.status.wanted_replicas:
        assert outcome.next_at is not None
        assert outcome.next_at > NOW


def test_every_pair_of_names_differs_over_a_whole_life() -> None:
    before, used = known(wanted=2), []
    for turn in range(5):
        outcome = step(before)
        used += outcome.start
        replicas = [seen(int(name.rpartition("-")[2]), "Ready") for name in outcome.start]
        alive = step(before.model_copy(update={"status": outcome.status}), *replicas)
        dead = [seen(int(name.rpartition("-")[2]), "Exited", code=turn) for name in outcome.start]
        ended = step(before.model_copy(update={"status": alive.status}), *dead)
        used += ended.start
        before = before.model_copy(update={"status": ended.status})
    assert all(one != other for one, other in itertools.pairwise(sorted(used)))
