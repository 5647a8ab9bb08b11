"""Replicas come and go with the wish, down to none, and no request is lost: real Envoy, reconciler and replicas."""

import os
import signal

import pytest

from tests.integration.gateway.conftest import until
from tests.integration.gateway.load import Load
from tests.integration.gateway.scaled import NAME, Scaled, all_at_once, body_of, scaled

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
MIB = 2**20


def load_on(site: Scaled, rate: float = 100.0, connections: int = 8) -> Load:
    return Load(
        site.gateway.port, path=f"/v2/models/{NAME}/infer", rate=rate, connections=connections,
        headers="content-type: application/json\r\n", body=body_of(2),
    )  # fmt: skip


def test_one_to_four_to_one_under_load() -> None:
    with scaled() as site:
        site.wish(1)
        site.reaches("Ready")
        with load_on(site) as load:
            for wanted in (4, 1):
                load.wait_more(100)
                site.wish(wanted)
                site.reaches(*["Ready"] * wanted)
            load.wait_more(100)
        assert load.failures == []


def test_to_sleep_and_back_under_load() -> None:
    """Each time the first request that meets the sleeping replica wakes it; all that come meanwhile are held."""
    with scaled(load="time.sleep(1)") as site:
        site.wish(1)
        site.reaches("Ready")
        with load_on(site) as load:
            for _ in range(2):
                load.wait_more(50)
                site.wish(0, sleeping=True)
                until(lambda: site.status.woken, 60)
                assert site.status.ready_replicas <= 1
                site.wish(1)
                site.reaches("Ready")
                assert not site.status.woken
            load.wait_more(50)
        assert load.failures == []
        assert max(load.latencies) > 1.0, "nobody had to wait: it cannot have slept"


def test_who_comes_while_all_sleep_is_answered_without_server_and_agent() -> None:
    """A burst, some of it with large bodies; what happened meanwhile is found by the next server."""
    # It loads for longer than the burst takes to arrive: who comes later is no longer one of those who wait.
    with scaled(load="time.sleep(4)", runtime={"maxBody": "3Mi", "queueLength": 16}) as site:
        site.wish(0, sleeping=True)
        before = site.reaches("Dormant").replicas[0]
        assert (before.pid, site.status.ready_replicas, site.status.phase) == (None, 0, "Idle")
        site.stop_control()
        site.gateway.signal_agent(signal.SIGKILL)
        large = 2 * MIB // 5
        answers = all_at_once(100, lambda number: site.ask(large if number % 10 == 0 else 2))
        assert answers == [(200, large / 2 if number % 10 == 0 else 1.0) for number in range(100)]
        site.start_control()
        site.gateway.start_agent()
        after = site.reaches("Ready").replicas[0]
        assert (after.name, after.address, site.status.woken) == (before.name, before.address, True)
        site.wish(1)
        until(lambda: not site.status.woken)
        assert [state.name for state in site.status.replicas] == [before.name]
        assert site.ask() == (200, 1.0)


def test_nothing_but_a_request_wakes_it() -> None:
    """Neither the gateway, when it starts and loads, nor the reconciler's looks."""
    with scaled() as site:
        site.wish(0, sleeping=True)
        site.reaches("Dormant")
        shim = site.status.replicas[0].name
        os.kill(site.gateway.envoy_pid(), signal.SIGKILL)
        until(lambda: site.gateway.answers() and site.gateway.get("/v2/health/ready").status_code == 200, 30)
        for _ in range(3):
            site.store.wake(site.uid)
            assert site.loop is not None
            passes = site.loop.passes
            until(lambda passes=passes: site.loop is not None and site.loop.passes > passes)
        status = site.reaches("Dormant")
        assert (status.replicas[0].name, status.woken) == (shim, False)
        assert site.ask() == (200, 1.0)


def test_a_start_that_fails_is_an_answer_with_its_reason() -> None:
    with scaled(load="raise RuntimeError('secret words of the model')") as site:
        site.wish(0, sleeping=True)
        site.reaches("Dormant")
        answers = all_at_once(10, lambda _: site.ask())
        assert {status for status, _ in answers} == {503}
        until(lambda: site.status.woken and site.status.failures >= 1, 30)
        said = until(
            lambda: [detail for status, detail in [site.ask()] if "exited with code 4" in detail], 30
        )
        assert "the model failed to load or warm up" in said[0]
        assert "secret words" not in said[0]
        assert "secret words" in site.status.last_exit


def test_a_warm_replica_takes_over_at_once() -> None:
    with scaled() as site:
        site.wish(1, warm=1)
        status = site.reaches("Ready", "Warm")
        routed, warm = sorted(status.replicas, key=lambda state: state.phase)
        assert (status.ready_replicas, status.phase) == (1, "Ready")
        assert routed.pid is not None
        os.kill(routed.pid, signal.SIGKILL)
        until(lambda: site.status.replicas and site.status.replicas[0].name == warm.name, 30)
        found = next(state for state in site.status.replicas if state.name == warm.name)
        assert (found.phase, found.started_at) == ("Ready", warm.started_at)
        site.reaches("Ready", "Warm")
        assert site.ask() == (200, 1.0)
        # Wanted, it is in the routes as soon as that is written; another is started behind it.
        warm = next(state for state in site.status.replicas if state.phase == "Warm")
        site.wish(2, warm=1)
        until(lambda: site.status.ready_replicas == 2)
        assert (warm.name, "Ready") in {(state.name, state.phase) for state in site.status.replicas}
        site.reaches("Ready", "Ready", "Warm")
