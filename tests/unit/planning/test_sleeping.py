"""A revision that sleeps, is woken and sleeps again, and replicas that are kept warm: who is in the routes when."""

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.planning.revisions import RevisionOutcome, RevisionWorld, Seen, decide
from podium.planning.routing import endpoints_of, plan_route
from podium.resources.kinds import Revision
from podium.resources.revision import RevisionStatus
from tests.unit.planning.worlds import NOW, at, deployment, revision

NAME = "churn-00001"


def seen(
    number: int, phase: Any = "Ready", *, age: float = 3600, woken: bool = False, code: int | None = None
) -> Seen:
    return Seen(f"{NAME}-{number}", phase, f"unix:/{number}", 100 + number, at(-age), code, (), "full", woken)


class Life:
    """One revision over time: what was decided is written as the reconciler would, under growing versions."""

    def __init__(self, *replicas: Seen, **wish: Any) -> None:
        self.replicas = {one.name: one for one in replicas}
        self.revision = revision(1)
        self.version, self.loaded = 100, 100
        self.last: RevisionOutcome
        self.wish(**wish)

    @property
    def status(self) -> RevisionStatus:
        return self.revision.status

    def wish(self, **fields: Any) -> "Life":
        names = {"wanted": "wanted_replicas", "warm": "warm_replicas"}
        changes = {names.get(name, name): value for name, value in fields.items()}
        self.revision = self.revision.model_copy(update={"status": self.status.model_copy(update=changes)})
        return self

    def show(self, *replicas: Seen) -> "Life":
        self.replicas |= {one.name: one for one in replicas}
        return self

    def step(self, *, load: bool = True, now: datetime.datetime = NOW) -> RevisionOutcome:
        """Decide, commit, start and end what was decided; gateways have loaded it afterwards unless `load` is False."""
        outcome = decide(self.revision, RevisionWorld(now, list(self.replicas.values()), self.loaded))
        self.version += 1
        states = [
            state.model_copy(
                update={
                    field: self.version
                    for field in ("listed_version", "draining_version")
                    if getattr(state, field) == 0
                }
            )
            for state in outcome.status.replicas
        ]
        status = outcome.status.model_copy(update={"replicas": states})
        self.revision = self.revision.model_copy(update={"status": status})
        for name in (*outcome.stop, *outcome.forget):
            self.replicas.pop(name, None)
        for name in outcome.start:
            phase = "Dormant" if outcome.dormant else "Starting"
            self.show(seen(int(name.rpartition("-")[2]), phase, age=0))
        if load:
            self.loaded = self.version
        self.last = outcome
        return outcome

    @property
    def phases(self) -> dict[int, str]:
        return {int(state.name.rpartition("-")[2]): state.phase for state in self.status.replicas}

    @property
    def routed(self) -> tuple[str, ...]:
        return endpoints_of(self.revision)


def settled(*replicas: Seen, **wish: Any) -> Life:
    """After two looks, so that all of them are known as what they are."""
    life = Life(*replicas, **wish)
    life.step()
    life.step()
    return life


# --- to sleep ---------------------------------------------------------------------------------------------------


def test_the_one_that_listens_is_there_and_known_everywhere_before_the_others_leave_the_routes() -> None:
    life = settled(seen(1), seen(2), wanted=2).wish(wanted=0, sleeping=True)
    first = life.step()
    assert (first.start, first.dormant) == ((f"{NAME}-3",), True)
    assert life.routed == ("unix:/1", "unix:/2")
    life.step(load=False)
    assert life.phases == {1: "Ready", 2: "Ready", 3: "Dormant"}
    listed = life.status.replicas[-1].listed_version
    life.step(load=False)
    assert life.phases == {1: "Ready", 2: "Ready", 3: "Dormant"}, "not every gateway has loaded it"
    assert life.status.replicas[-1].listed_version == listed
    life.loaded = life.version
    third = life.step(load=False)
    assert life.phases == {1: "Draining", 2: "Draining", 3: "Dormant"}
    assert (third.stop, life.routed) == ((), ("unix:/3",))
    assert life.step(load=False).stop == (), "a gateway still sends requests to them"
    life.loaded = life.version
    assert set(life.step().stop) == {f"{NAME}-1", f"{NAME}-2"}
    life.step()
    assert (life.phases, life.status.phase, life.status.woken) == ({3: "Dormant"}, "Idle", False)


def test_asleep_nothing_is_done_and_nothing_is_due_soon() -> None:
    life = settled(wanted=0, sleeping=True)
    before = life.status
    outcome = life.step()
    assert (outcome.start, outcome.stop, life.status) == ((), (), before)
    assert (outcome.next_at or NOW) - NOW >= datetime.timedelta(seconds=30)
    assert "the next request starts a replica" in life.status.message


def test_without_a_wish_to_sleep_nobody_listens() -> None:
    life = settled(seen(1), wanted=1).wish(wanted=0)
    for _ in range(4):
        assert not life.step().start
    assert (life.phases, life.status.phase) == ({}, "Idle")


def test_one_that_listens_and_dies_is_replaced_at_once() -> None:
    life = settled(wanted=0, sleeping=True).show(seen(1, "Exited"))
    outcome = life.step()
    assert (outcome.start, outcome.dormant, life.status.woken) == ((f"{NAME}-2",), True, False)


def test_when_it_is_deleted_it_listens_no_more() -> None:
    life = settled(wanted=0, sleeping=True)
    metadata = life.revision.metadata.model_copy(update={"deletion_requested_at": NOW})
    life.revision = life.revision.model_copy(update={"metadata": metadata})
    life.step()
    assert life.phases == {1: "Draining"}
    life.step()
    assert life.last.stop == (f"{NAME}-1",)
    assert life.step().drained


# --- woken ------------------------------------------------------------------------------------------------------


def woken() -> Life:
    life = settled(wanted=0, sleeping=True)
    life.show(seen(1, "Starting", age=1, woken=True)).step()
    return life


def test_a_woken_one_keeps_its_requests_while_it_starts() -> None:
    life = woken()
    assert (life.phases, life.routed) == ({1: "Starting"}, ("unix:/1",))
    assert (life.status.woken, life.status.ready_replicas, life.status.phase) == (True, 0, "Starting")
    assert life.last.start == ()
    life.wish(wanted=1, sleeping=False).step()
    assert (life.phases, life.routed, life.last.start) == ({1: "Starting"}, ("unix:/1",), ())
    assert not life.status.woken
    life.show(seen(1, age=5, woken=True)).step()
    assert (life.phases, life.routed, life.status.ready_replicas) == ({1: "Ready"}, ("unix:/1",), 1)


def test_a_woken_one_serves_although_nobody_answers_the_wake() -> None:
    life = woken().show(seen(1, age=5, woken=True))
    for _ in range(3):
        outcome = life.step()
    assert (outcome.start, outcome.stop, life.phases) == ((), (), {1: "Ready"})
    assert (life.status.woken, life.status.phase, life.status.ready_replicas) == (True, "Ready", 1)


def test_more_are_started_beside_a_woken_one() -> None:
    life = woken().wish(wanted=3, sleeping=False)
    assert life.step().start == (f"{NAME}-2", f"{NAME}-3")
    assert not life.last.dormant
    life.step()
    assert life.routed == ("unix:/1",), "the others hold no requests"


def test_what_was_woken_once_sleeps_like_any_other() -> None:
    life = woken().wish(wanted=1, sleeping=False)
    life.show(seen(1, woken=True))
    life.step()
    life.wish(wanted=0, sleeping=True).step()
    assert (life.last.start, life.last.dormant, life.status.woken) == ((f"{NAME}-2",), True, False)
    for _ in range(4):
        life.step()
    assert (life.phases, life.routed) == ({2: "Dormant"}, ("unix:/2",))


def test_one_that_failed_to_start_is_tried_again_after_a_while_and_the_wake_is_told() -> None:
    life = settled(wanted=0, sleeping=True)
    life.show(seen(1, "Exited", age=3, code=4, woken=True)).step()
    assert (life.last.start, life.status.woken, life.status.failures) == ((), True, 1)
    assert life.status.retry_at == at(1)
    entry = plan_route(deployment(status={"stableRevision": NAME}), {NAME: life.revision}, None)
    assert entry.unavailable == (
        "no replica of the deployment is ready; the last one: "
        "exited with code 4 (the model failed to load or warm up)"
    )
    later = life.step(now=at(2))
    assert (later.start, later.dormant) == ((f"{NAME}-2",), True)
    life.step(now=at(2))
    assert life.status.failures == 1, "that it listens again does not prove it well"
    assert "exited with code 4" in life.status.message


def test_scaled_up_by_hand_requests_wait_with_the_one_that_listens_until_another_is_ready() -> None:
    life = settled(wanted=0, sleeping=True).wish(wanted=1, sleeping=False)
    assert life.step().start == (f"{NAME}-2",)
    life.step()
    assert (life.phases, life.routed) == ({1: "Dormant", 2: "Starting"}, ("unix:/1",))
    life.show(seen(2, age=2)).step(load=False)
    assert (life.phases, life.routed) == ({1: "Draining", 2: "Ready"}, ("unix:/2",))
    assert life.step(load=False).stop == ()
    # A gateway that has not heard of it sends a request to the one that listened: it is answered before that one goes.
    life.show(seen(1, "Starting", age=0, woken=True))
    life.loaded = life.version
    assert life.step().stop == ()
    life.show(seen(1, age=1, woken=True))
    assert life.step().stop == (f"{NAME}-1",)


def test_of_two_that_start_the_woken_one_stays() -> None:
    life = settled(wanted=0, sleeping=True).wish(wanted=1, sleeping=False)
    life.step()
    life.show(seen(1, "Starting", age=0, woken=True)).step()
    assert (life.phases, life.routed) == ({1: "Starting", 2: "Draining"}, ("unix:/1",))


# --- warm -------------------------------------------------------------------------------------------------------


def warm_pool() -> Life:
    life = settled(wanted=2, warm=1)
    life.show(seen(1, age=30), seen(2, age=20), seen(3, age=10)).step()
    return life


def test_a_warm_one_is_ready_and_in_no_route() -> None:
    life = warm_pool()
    assert life.phases == {1: "Ready", 2: "Ready", 3: "Warm"}
    assert (life.routed, life.status.ready_replicas) == (("unix:/1", "unix:/2"), 2)


def test_a_warm_one_takes_the_place_of_one_that_died_at_once() -> None:
    life = warm_pool().show(seen(1, "Exited"))
    life.step()
    assert (life.phases, life.status.ready_replicas) == ({2: "Ready", 3: "Ready"}, 2)
    assert life.last.start == (f"{NAME}-4",)


def test_a_warm_one_takes_requests_at_once_when_more_are_wanted() -> None:
    life = warm_pool().wish(wanted=3)
    assert life.step().start == (f"{NAME}-4",)
    assert life.routed == ("unix:/1", "unix:/2", "unix:/3")
    life.step()
    assert life.phases[4] == "Starting"
    life.show(seen(4, age=1)).step()
    assert life.phases[4] == "Warm"


def test_scaling_down_keeps_a_ready_one_warm_and_drains_the_rest() -> None:
    life = warm_pool().wish(wanted=1)
    life.step()
    assert life.phases == {1: "Ready", 2: "Warm", 3: "Draining"}
    assert life.last.start == ()


def test_the_places_do_not_change_from_look_to_look() -> None:
    """An older one that was warm does not push a younger one out of the routes."""
    life = settled(wanted=1, warm=1)
    life.show(seen(2, age=5)).step()
    life.show(seen(1, age=50)).step()
    for _ in range(3):
        life.step()
        assert life.phases == {2: "Ready", 1: "Warm"}


def test_warm_ones_are_not_missing_for_the_phase_and_not_kept_asleep() -> None:
    life = warm_pool().show(seen(3, "Exited"))
    life.step()
    assert (life.status.phase, life.last.start) == ("Ready", (f"{NAME}-4",))
    life = warm_pool().wish(wanted=0, sleeping=True)
    life.step()
    assert life.phases == {1: "Ready", 2: "Ready", 3: "Draining"}, "it was in no route"


# --- whatever happens -------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.sampled_from(["step", "load", "ready", "request", "die", "sleep", "one", "three", "warm", "none"]),
    max_size=40,
)


@given(EVENTS)
def test_whoever_is_in_the_routes_is_there_and_once_served_requests_always_have_somebody(
    events: list[str],
) -> None:
    life = settled(seen(1), wanted=1)
    last_routed = life.routed
    for event in events:
        if event == "load":
            life.loaded = life.version
        elif event == "ready":
            life.show(
                *(seen_again(one, "Ready") for one in life.replicas.values() if one.phase == "Starting")
            )
        elif event == "request":
            listening = [
                one for one in life.replicas.values() if one.phase == "Dormant" and one.address in last_routed
            ]
            life.show(*(seen_again(one, "Starting", woken=True) for one in listening))
        elif event == "die":
            running = [one for one in life.replicas.values() if one.phase == "Ready"]
            life.show(*(seen_again(one, "Exited") for one in running[:1]))
        elif event != "step":
            wish = {
                "sleep": (0, True, 0),
                "one": (1, False, 0),
                "three": (3, False, 0),
                "warm": (1, False, 2),
            }
            wanted, sleeping, warm = wish.get(event, (0, False, 0))
            life.wish(wanted=wanted, sleeping=sleeping, warm=warm)
        before = dict(life.replicas)
        life.step(load=False)
        # Nobody is stopped whom a gateway may still send requests to: all have loaded a state without it.
        for name in life.last.stop:
            assert before[name].address not in life.routed
        alive = {one.address for one in before.values() if one.phase != "Exited"}
        assert set(life.routed) <= alive
        if not life.status.sleeping:
            counted = [phase for phase in life.phases.values() if phase not in ("Draining", "Dormant")]
            most = life.status.wanted_replicas + (life.status.wanted_replicas and life.status.warm_replicas)
            assert len(counted) + len(life.last.start) <= most
        else:
            assert len(life.last.start) <= 1
        # As long as replicas are wanted or it sleeps, a planned change never leaves the requests with nobody.
        wants = life.status.wanted_replicas or life.status.sleeping
        if last_routed and wants and set(last_routed) & alive:
            assert life.routed, (event, last_routed, life.phases)
        last_routed = life.routed


def seen_again(one: Seen, phase: Any, woken: bool | None = None) -> Seen:
    return Seen(
        one.name, phase, one.address, one.pid, at(-120), 1 if phase == "Exited" else None, (), "full",
        one.woken if woken is None else woken,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "waking"),
    [
        ({"sleeping": True}, 120.0),
        ({"sleeping": True, "wantedReplicas": 1}, 0.0),
        ({"replicas": [{"name": "r", "phase": "Dormant", "address": "unix:/1"}], "wantedReplicas": 1}, 120.0),
        ({"replicas": [{"name": "r", "phase": "Starting", "woken": True, "address": "unix:/1"}]}, 120.0),
        ({"replicas": [{"name": "r", "phase": "Ready", "woken": True, "address": "unix:/1"}]}, 0.0),
    ],
    ids=["sleeping", "awake", "one still listens", "woken", "woken and ready"],
)
def test_requests_get_the_time_of_a_start_as_long_as_they_may_need_it(
    status: dict[str, Any], waking: float
) -> None:
    served: Revision = revision(1, **status)
    entry = plan_route(deployment(status={"stableRevision": NAME}), {NAME: served}, None)
    assert (entry.waking, entry.timeout) == (waking, 30.0 + waking)


def test_requests_go_to_one_that_is_ready_then_to_one_that_was_woken_then_to_one_that_sleeps() -> None:
    states = [
        {"name": "a", "phase": "Dormant", "address": "unix:/dormant"},
        {"name": "b", "phase": "Starting", "address": "unix:/starting"},
        {"name": "c", "phase": "Warm", "address": "unix:/warm"},
        {"name": "d", "phase": "Starting", "address": "unix:/woken", "woken": True},
        {"name": "e", "phase": "Ready", "address": "unix:/ready"},
    ]
    wanted = [
        ("unix:/ready",),
        ("unix:/woken",),
        ("unix:/dormant",),
        ("unix:/dormant",),
        ("unix:/dormant",),
        (),
    ]
    found = [endpoints_of(revision(1, replicas=states[:count])) for count in range(5, -1, -1)]
    assert found == wanted
