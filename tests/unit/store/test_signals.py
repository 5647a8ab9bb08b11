"""Waiting for commits and for work, without a database."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from podium.store.signals import Signals


class Clock:
    """The clock of a database that other servers write to."""

    def __init__(self) -> None:
        self.value = 0
        self.reads = 0

    def __call__(self) -> int:
        self.reads += 1
        return self.value


def test_many_waiters_poll_as_much_as_one() -> None:
    clock = Clock()
    signals = Signals(clock, shared=True)
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(signals.wait_for_version, 0, 20.0) for _ in range(20)]
        deadline = time.monotonic() + 20
        while clock.reads < 25:  # each looks once, and then they take turns
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
        started, reads = time.monotonic(), clock.reads
        while clock.reads < reads + 5:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
        assert time.monotonic() - started > 0.3, "five polls take five pauses"
        clock.value = 7
        assert {it.result(20) for it in waiting} == {7}


def test_nobody_polls_a_database_that_only_this_process_writes_to() -> None:
    clock = Clock()
    signals = Signals(clock, shared=False)
    assert signals.wait_for_version(0, 0.3) == 0
    assert clock.reads == 1


def test_a_wake_since_the_last_claim_ends_the_wait_at_once() -> None:
    signals = Signals(Clock(), shared=False)
    signals.claiming()
    signals.woke()
    started = time.monotonic()
    signals.wait_for_work(30)
    signals.claiming()
    signals.wait_for_work(0.1)
    assert time.monotonic() - started < 10


def test_another_threads_claim_does_not_hide_a_wake() -> None:
    """A loop for other kinds claims after the wake: the loop that the wake was for must not sleep."""
    signals = Signals(Clock(), shared=False)
    signals.claiming()
    signals.woke()
    other = threading.Thread(target=signals.claiming)
    other.start()
    other.join()
    started = time.monotonic()
    signals.wait_for_work(30)
    assert time.monotonic() - started < 10


def test_another_servers_commit_is_news_for_who_waits_for_work() -> None:
    clock = Clock()
    signals = Signals(clock, shared=True)
    signals.claiming()
    clock.value = 3
    started = time.monotonic()
    signals.wait_for_work(30)
    assert time.monotonic() - started < 10
