"""How many replicas follow from a load: the rules one by one, and what holds for every load."""

import datetime
import itertools
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.planning.autoscaling import LoadSeen, ReplicasSeen, ScalingDecision, begin, decide
from podium.planning.load import WindowLoad
from podium.resources.scaling import Scaling, ScalingStatus

START = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


def scaling(**given: Any) -> Scaling:
    return Scaling.model_validate({"max": 10, "target": {"concurrency": 2}} | given)


def window(
    concurrency: float = 0.0, seconds: float = 60, rate: float | None = None, p95: float | None = None
) -> WindowLoad:
    rate = concurrency * 10 if rate is None else rate
    histogram = (
        {}
        if p95 is None
        else {p95 * 1000 * 0.95: rate * seconds * 0.95 - 1, p95 * 1000: rate * seconds * 0.05 + 1}
    )
    return WindowLoad(
        seconds, requests=rate * seconds, arrived=rate * seconds, concurrency=concurrency, histogram=histogram
    )  # fmt: skip


def load(stable: float, panic: float | None = None, silent: str = "", **more: Any) -> LoadSeen:
    return LoadSeen(window(stable, **more), window(stable if panic is None else panic, 6, **more), silent)


class Played:
    """A Deployment whose replicas are ready at once, looked at every two seconds."""

    def __init__(self, wish: Scaling, replicas: int = 1) -> None:
        self.wish = wish
        self.now = START
        self.status = begin(wish, replicas, START)
        self.events: list[str] = []
        self.woken = False
        self.moving = False
        self.ready: int | None = None

    def look(self, seen: LoadSeen, after: float = 2.0) -> ScalingDecision:
        self.now += datetime.timedelta(seconds=after)
        ready = self.status.desired if self.ready is None else self.ready
        replicas = ReplicasSeen(ready, ready, "churn-00001", self.woken, self.moving)
        decision = decide(self.wish, self.status, seen, replicas, self.now)
        self.status = decision.status
        self.events += [decision.scaled] if decision.scaled else []
        return decision

    def for_seconds(self, seconds: float, seen: LoadSeen) -> int:
        until = self.now + datetime.timedelta(seconds=seconds)
        while self.now < until:
            self.look(seen)
        return self.status.desired


def test_the_load_divided_by_the_target_rounded_up() -> None:
    play = Played(scaling())
    assert play.look(load(7.0)).status.desired == 4
    assert play.events == ["1 -> 4: surge: 7 requests under way in 6 s, 2 per replica"]


def test_a_deviation_within_the_tolerance_changes_nothing() -> None:
    play = Played(scaling(), 2)
    assert play.for_seconds(1000, load(4.3)) == 2
    assert play.look(load(4.5, 4.5)).status.desired == 3


def test_requests_per_second_count_those_too_that_wait_for_an_answer() -> None:
    play = Played(scaling(target={"requestsPerSecond": 50}), 3)
    held = WindowLoad(60, requests=0, arrived=60 * 240)
    play.look(LoadSeen(held, WindowLoad(6, arrived=6 * 240)))
    assert play.status.desired == 5


def test_down_only_after_the_delay_and_to_the_highest_wish_within_it() -> None:
    play = Played(scaling(scaleDownDelay="100s", target={"requestsPerSecond": 20}), 8)
    play.for_seconds(70, load(15))
    assert play.for_seconds(50, load(9)) == 8
    assert play.for_seconds(49, load(2)) == 8
    assert play.for_seconds(8, load(2)) == 5, "what was wished 100 s ago is still the highest"
    assert play.for_seconds(60, load(2)) == 2


def test_a_queue_grows_when_replicas_go_and_that_is_reckoned_with() -> None:
    """Eight with 0.4 requests each are busy for 2/7 of the time, five for 0.46 of it, with 0.84 requests each."""
    play = Played(scaling(scaleDownDelay="0s", target={"concurrency": 1}), 8)
    play.for_seconds(62, load(3.2))
    assert play.status.desired == 5
    batches = Played(scaling(scaleDownDelay="0s", target={"concurrency": 10}), 8)
    assert batches.for_seconds(80, load(70, rate=10)) == 8
    assert batches.for_seconds(10, load(60, rate=10)) == 8
    assert batches.for_seconds(10, load(50, rate=10)) == 7


def test_at_most_half_goes_at_once() -> None:
    play = Played(scaling(scaleDownDelay="0s"), 10)
    play.for_seconds(62, load(20))
    assert play.look(load(1)).status.desired == 5
    assert play.look(load(1)).status.desired == 5, "a panic window lies between two steps"
    play.for_seconds(20, load(1))
    assert play.status.desired == 1


def test_a_surge_is_seen_in_the_short_window_and_panic_never_shrinks() -> None:
    play = Played(scaling(scaleDownDelay="0s"), 2)
    play.for_seconds(70, load(4))
    play.look(load(4.2, panic=12))
    assert (play.status.desired, play.status.panic_since is not None) == (6, True)
    assert play.for_seconds(56, load(2, panic=1)) == 6
    assert play.for_seconds(30, load(2, panic=1)) < 6
    assert play.status.panic_since is None


def test_growth_doubles_every_panic_window_and_stays_near_what_is_ready() -> None:
    play = Played(scaling(max=1000), 10)
    play.ready = 10
    play.look(load(1000))
    assert play.status.desired == 20
    play.look(load(1000))
    assert play.status.desired == 20, "one step in six seconds"
    play.for_seconds(6, load(1000))
    assert play.status.desired == 40
    assert play.for_seconds(100, load(1000)) == 48, "not before those that were started are ready"
    play.ready = 48
    play.look(load(1000))
    assert play.status.desired == 96
    small = Played(scaling(max=1000))
    small.look(load(1000))
    assert small.status.desired == 5


def test_a_load_that_was_too_much_for_so_many_is_not_tried_again_for_an_hour() -> None:
    """One replica has 1.3 requests under way, two have 0.6: by the figures alone it would go up and down for ever."""
    play = Played(scaling(target={"concurrency": 1}, scaleDownDelay="60s"))
    ups, past = 0, [1.3] * 30
    for _ in range(2 * 1800 - 60):
        before = play.status.desired
        past = [*past[1:], 1.3 if before == 1 else 0.6]
        play.look(LoadSeen(window(sum(past) / 30, rate=6), window(sum(past[-3:]) / 3, 6, rate=6)))
        ups += play.status.desired > before
    assert ups == 3, play.events
    assert play.for_seconds(80, load(0.3, rate=3)) == 1, "half the load is another matter"


def test_max_holds_and_says_so() -> None:
    play = Played(scaling(max=3))
    play.look(load(40))
    play.look(load(40))
    assert play.status.desired == 3
    assert play.status.limited == "max is 3, the load asks for 20"


def test_nothing_shrinks_before_a_whole_window_was_seen_nor_after_a_gap() -> None:
    play = Played(scaling(scaleDownDelay="0s"), 8)
    assert play.for_seconds(58, load(1)) == 8
    play.for_seconds(8, load(1))
    assert play.status.desired < 8
    again = Played(scaling(scaleDownDelay="0s"), 8)
    again.for_seconds(58, load(16))
    again.look(load(1), after=60)
    assert again.for_seconds(56, load(1)) == 8, "a server that was away has to see a window of its own"
    assert again.for_seconds(10, load(1)) < 8


def test_it_looks_often_where_something_is_under_way_and_rarely_where_nothing_can_change() -> None:
    play = Played(scaling(scaleDownDelay="20s"), 3)

    def pause(seen: LoadSeen) -> float:
        return (play.look(seen).look_at - play.now).total_seconds()

    assert pause(load(1)) == 2
    assert pause(load(0)) == 5, "two of them will go"
    play.for_seconds(90, load(0))
    assert (play.status.desired, pause(load(0))) == (1, 30)


def test_a_restart_reads_the_same_state_back() -> None:
    play = Played(scaling(), 8)
    play.for_seconds(100, load(9, panic=40))
    stored = ScalingStatus.model_validate(play.status.model_dump(mode="json", by_alias=True))
    assert stored == play.status
    assert stored.panic_since is not None


def test_a_silent_gateway_never_shrinks_anything() -> None:
    play = Played(scaling(min=0, scaleDownDelay="0s", scaleToZeroAfter="10s"), 8)
    assert play.for_seconds(1000, load(0, silent="gateway edge-2 is silent")) == 8
    assert "edge-2 is silent" in play.status.reason
    assert play.look(load(30, silent="gateway edge-2 is silent")).status.desired == 10, (
        "what is seen is reason enough to grow"
    )


def test_the_last_replica_goes_after_its_time_and_comes_back_when_woken() -> None:
    play = Played(scaling(min=0, scaleToZeroAfter="90s", scaleDownDelay="10s"))
    play.for_seconds(100, load(0.1, rate=1))
    assert play.for_seconds(88, load(0)) == 1
    assert play.for_seconds(6, load(0)) == 0
    assert play.events[-1] == "1 -> 0: no request for 90 s"
    assert play.for_seconds(100, load(0)) == 0
    play.woken = True
    play.look(load(0))
    assert play.events[-1] == "0 -> 1: woken by a request"
    play.woken = False
    assert play.for_seconds(86, load(0)) == 1, "not again before a whole time has passed"
    assert play.for_seconds(10, load(0)) == 0
    play.look(load(0, panic=0.5))
    assert play.status.desired == 1, "a request that the gateways count wakes it too"


def test_asleep_is_not_disturbed_by_a_silent_gateway() -> None:
    play = Played(scaling(min=0, scaleToZeroAfter="10s", scaleDownDelay="0s"))
    play.for_seconds(80, load(0))
    assert play.status.desired == 0
    assert play.for_seconds(80, load(0, silent="gateway edge-2 is silent")) == 0


def test_a_rollout_needs_at_least_one() -> None:
    play = Played(scaling(min=0, scaleToZeroAfter="10s", scaleDownDelay="0s"), 0)
    assert play.look(load(0)).status.desired == 0
    play.moving = True
    assert play.for_seconds(200, load(0)) == 1
    play.moving = False
    assert play.for_seconds(100, load(0)) == 0


def test_a_days_replica_hours_hold_at_min_until_the_next_day() -> None:
    play = Played(scaling(max=8, maxReplicaHoursPerDay=4), 8)
    play.for_seconds(1798, load(16))
    assert play.status.desired == 8
    play.for_seconds(10, load(16))
    assert play.status.desired == 1
    assert "4 of 4 replica-hours of the day (UTC) are used up: held at 1" in play.events[-1]
    assert play.status.replica_hours == pytest.approx(4, rel=0.01)
    play.now = START.replace(hour=23, minute=59, second=59)
    play.status = play.status.model_copy(update={"seen_at": play.now})
    play.look(load(16))
    assert play.status.desired > 1
    assert play.status.replica_hours < 0.01


def test_hours_are_counted_through_an_outage_of_the_server() -> None:
    play = Played(scaling(), 4)
    play.look(load(8))
    play.look(load(8), after=3600)
    assert play.status.replica_hours == pytest.approx(4, rel=0.01)


def test_p95_grows_in_proportion_where_requests_wait_and_only_once_per_window() -> None:
    play = Played(scaling(target={"p95": "100ms"}), 2)
    play.for_seconds(62, load(1.5, p95=0.1))
    play.look(load(6, p95=0.19))
    assert play.status.desired == 4
    play.look(load(6, p95=0.19))
    assert play.status.desired == 4, "the window still holds the latency of two replicas"
    assert play.for_seconds(70, load(6, p95=0.1)) == 4


def test_p95_beyond_the_target_without_a_queue_adds_nothing_and_says_why() -> None:
    play = Played(scaling(target={"p95": "100ms"}), 2)
    assert play.for_seconds(500, load(0.4, p95=0.4)) == 2
    assert "nothing waits" in play.status.reason


def test_p95_shrinks_one_by_one_and_not_below_the_load_that_was_too_much() -> None:
    play = Played(scaling(target={"p95": "100ms"}, scaleDownDelay="30s"), 2)
    play.for_seconds(70, load(4, rate=200, p95=0.1))
    play.for_seconds(14, load(4, rate=200, p95=0.2))
    assert play.status.desired == 4
    assert play.status.capacity == 100
    assert play.for_seconds(300, load(2, rate=200, p95=0.02)) == 3, "at two it was too much"
    assert "were too much for a replica" in play.status.reason
    assert play.for_seconds(40, load(1, rate=20, p95=0.02)) == 2
    assert play.for_seconds(40, load(1, rate=20, p95=0.02)) == 1


def busy(stable: float, panic: float | None = None, under_way: float = 1, **more: Any) -> LoadSeen:
    """So many replicas' processor time is used."""
    seen = load(under_way, **more)
    short = stable if panic is None else panic
    return replace(seen, stable=replace(seen.stable, busy=stable), panic=replace(seen.panic, busy=short))


def test_processor_time_of_all_divided_by_the_target() -> None:
    play = Played(scaling(target={"cpu": 50}), 2)
    assert play.for_seconds(70, busy(1.05)) == 2, "within the tolerance"
    play.look(busy(1.3))
    assert play.status.desired == 3
    assert play.events == ["2 -> 3: 130 % of a replica's processor time, 50 % per replica"]
    assert play.status.measured == pytest.approx(130)
    play.wish = scaling(target={"cpu": 50}, scaleDownDelay="0s")
    assert play.for_seconds(70, busy(0.8)) == 2


def test_replicas_that_are_busy_all_the_time_grow_by_whole_steps_each_once_the_last_is_there() -> None:
    """At 100 % nobody sees how much more is needed: by the proportion it would be 10 for 7."""
    play = Played(scaling(max=100, target={"cpu": 70}), 2)
    play.for_seconds(10, busy(1.2))
    play.look(busy(1.2, panic=1.96, under_way=50))
    assert play.status.desired == 6
    assert "more than all of it cannot be seen" in play.events[-1]
    play.ready = 2
    assert play.for_seconds(60, busy(2.0, under_way=90)) == 6, (
        "those two are as busy as before: the same news"
    )
    play.ready = 6
    play.look(busy(2.0, under_way=90))
    assert play.status.desired == 6, "the window holds what two could use"
    play.look(busy(3.0, panic=5.9, under_way=90))
    assert play.status.desired == 12
    play.ready = None
    assert play.for_seconds(20, busy(8.0)) == 12, "busy for 67 %: enough"


def test_replicas_that_are_busy_all_the_time_are_not_more_than_there_are_requests() -> None:
    play = Played(scaling(max=100, target={"cpu": 70}), 2)
    play.look(busy(2.0, under_way=2))
    assert play.status.desired == 3, "one for each request, and what the proportion says"
    few = Played(scaling(max=100, target={"cpu": 70}), 2)
    few.look(busy(2.0, under_way=4))
    assert few.status.desired == 4


def test_a_model_of_many_threads_is_given_what_it_uses() -> None:
    play = Played(scaling(max=100, target={"cpu": 50}), 2)
    play.look(busy(4.0))
    assert play.status.desired == 6, "twice as many, or four more, at a time"
    assert play.for_seconds(6, busy(4.0)) == 8


def test_processor_time_that_is_not_known_shrinks_nothing() -> None:
    play = Played(scaling(target={"cpu": 50}, scaleDownDelay="0s"), 4)
    silent = "the processor time of replica churn-00001-2 is not known"
    assert play.for_seconds(200, busy(0.1, silent=silent)) == 4
    assert play.status.reason == f"{silent}: nothing shrinks on half the knowledge"
    assert play.for_seconds(200, busy(0.1)) == 1


def test_processor_time_with_no_request_does_not_keep_it_awake() -> None:
    play = Played(scaling(min=0, target={"cpu": 50}, scaleToZeroAfter="10s", scaleDownDelay="0s"))
    idle = replace(load(0), stable=replace(window(), busy=0.3), panic=replace(window(seconds=6), busy=0.3))
    assert play.for_seconds(100, idle) == 0


def test_bounds_that_change_hold_at_once() -> None:
    play = Played(scaling(), 8)
    play.wish = scaling(max=3)
    play.look(load(16))
    assert (play.status.desired, play.events[-1][:7]) == (3, "8 -> 3:")


LOADS = st.lists(
    st.tuples(st.floats(0, 500), st.floats(0, 500), st.floats(0.001, 5)), min_size=1, max_size=60
)
TARGETS = st.sampled_from([{"concurrency": 2}, {"requestsPerSecond": 30}, {"p95": "200ms"}, {"cpu": 70}])


@settings(max_examples=60, deadline=None)
@given(
    loads=LOADS, target=TARGETS, least=st.integers(0, 4), more=st.integers(0, 20), ready=st.integers(0, 30),
    pause=st.sampled_from([1, 2, 20]),
)  # fmt: skip
def test_never_outside_the_bounds(
    loads: list[tuple[float, float, float]],
    target: dict[str, Any],
    least: int,
    more: int,
    ready: int,
    pause: int,
) -> None:
    play = Played(
        scaling(min=least, max=max(1, least + more), target=target, scaleToZeroAfter="5s"), max(1, least)
    )
    play.ready = ready
    for stable, panic, p95 in loads:
        seen = load(stable, panic, p95=p95)
        stable_busy, panic_busy = replace(seen.stable, busy=stable / 10), replace(seen.panic, busy=panic / 10)
        play.look(LoadSeen(stable_busy, panic_busy), after=pause)
        assert play.wish.min <= play.status.desired <= play.wish.max
        assert len(play.status.peaks) <= 20


@settings(max_examples=150, deadline=None)
@given(
    past=st.lists(st.floats(0, 60), max_size=40), low=st.tuples(st.floats(0, 60), st.floats(0, 60)),
    extra=st.tuples(st.floats(0, 60), st.floats(0, 60)),
    target=st.sampled_from([{"concurrency": 2}, {"requestsPerSecond": 30}]),
)  # fmt: skip
def test_more_load_never_means_fewer_replicas(
    past: list[float], low: tuple[float, float], extra: tuple[float, float], target: dict[str, Any]
) -> None:
    play = Played(scaling(max=40, min=0, target=target, scaleDownDelay="20s"))
    for seen in past:
        play.look(load(seen))
    before, at = play.status, play.now
    fewer = play.look(load(*low)).status.desired
    play.status, play.now = before, at
    assert play.look(load(low[0] + extra[0], low[1] + extra[1])).status.desired >= fewer


@settings(max_examples=20, deadline=None)
@given(
    mean=st.floats(0.05, 60),
    seed=st.integers(0, 2**32),
    target=st.sampled_from([{"concurrency": 2}, {"requestsPerSecond": 30}]),
)
def test_a_constant_load_with_noise_settles(mean: float, seed: int, target: dict[str, Any]) -> None:
    """An hour of averages that waver by a few percent: after the first ten minutes at most one way and back."""
    noise = random.Random(seed)
    play = Played(scaling(max=100, target=target))
    directions = []
    for look in range(1800):
        before = play.status.desired
        play.look(load(mean * noise.gauss(1, 0.03), mean * abs(noise.gauss(1, 0.1))))
        if play.status.desired != before and look > 300:
            directions.append(play.status.desired > before)
    changes = sum(a != b for a, b in itertools.pairwise(directions))
    assert changes <= 1, play.events
