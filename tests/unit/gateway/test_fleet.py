"""From lists and changes to wishes: replays, removals, rollouts."""

import itertools
from typing import Any

import pytest

from podium.analysis import ENVOY_COUNTERS
from podium.gateway.feed import Change
from podium.gateway.fleet import Fleet
from podium.gateway.render.buckets import EDGES_MS, edge_for
from podium.gateway.server_api import EventBuffer
from podium.gateway.stats import COUNTERS
from podium.planning.routing import WHOLE
from podium.resources.errors import Unavailable
from podium.resources.kinds import KINDS, AnyResource
from tests.integration.gateway.documents import deployment, revision, rollout, workspace

KEY = ("default", "churn")


def made(document: dict[str, Any], version: int) -> AnyResource:
    document["metadata"]["resourceVersion"] = version
    return KINDS[document["kind"]].parse(document)


def change(
    document: dict[str, Any], version: int, *, deleted: bool = False, position: int | None = None
) -> Change:
    return Change(version, version if position is None else position, made(document, version), deleted)


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet()
    objects = [
        made(deployment("churn", stable="churn-00001"), 5),
        made(revision("churn", 1, ["unix:/a"]), 5),
        made(revision("churn", 2, ["unix:/b"]), 6),
        made(workspace("team"), 2),
    ]
    assert fleet.reset(objects, 6) == {KEY}
    return fleet


def test_a_wish_without_a_rollout(fleet: Fleet) -> None:
    wish = fleet.wish(KEY)
    assert wish is not None
    assert [(arm.revision, arm.weight) for arm in wish.entry.live] == [("churn-00001", WHOLE)]
    assert wish.split == ()
    assert fleet.watched_rollouts() == {}
    assert fleet.workspaces == {"default", "team"}
    assert fleet.wish(("default", "nobody")) is None


def test_a_rollout_keeps_both_arms_at_every_weight(fleet: Fleet) -> None:
    fleet.apply([change(deployment("churn", stable="churn-00001", rollout="churn-1"), 7)])
    for version, weight in enumerate((0, 10, 100, 0), start=8):
        assert fleet.apply([change(rollout("churn", "churn-00001", "churn-00002", weight), version)]) == {KEY}
        wish = fleet.wish(KEY)
        assert wish is not None
        assert [(arm.revision, arm.weight) for arm in wish.split] == [
            ("churn-00001", WHOLE - weight * 100), ("churn-00002", weight * 100),
        ]  # fmt: skip
    watched = fleet.watched_rollouts()[KEY]
    assert (watched.stable, watched.candidate) == ("default_churn-00001_live", "default_churn-00002_live")
    fleet.apply([change(rollout("churn", "churn-00001", "churn-00002", 0, phase="RolledBack"), 12)])
    assert fleet.watched_rollouts() == {}


def test_a_candidate_without_replicas_keeps_its_cluster_and_gets_nothing(fleet: Fleet) -> None:
    fleet.apply(
        [
            change(deployment("churn", stable="churn-00001", rollout="churn-1"), 7),
            change(rollout("churn", "churn-00001", "churn-00002", 50), 7),
            change(revision("churn", 2, []), 8),
        ]
    )
    wish = fleet.wish(KEY)
    assert wish is not None
    assert [(arm.revision, arm.weight, arm.endpoints) for arm in wish.split] == [
        ("churn-00001", WHOLE, ("unix:/a",)), ("churn-00002", 0, ()),
    ]  # fmt: skip


def test_replays_do_not_turn_time_back(fleet: Fleet) -> None:
    fleet.apply([change(deployment("churn", stable="churn-00002"), 9)])
    assert fleet.apply([change(deployment("churn", stable="churn-00001"), 7)]) == set()
    assert fleet.apply([change(deployment("churn"), 8, deleted=True)]) == set()
    wish = fleet.wish(KEY)
    assert wish is not None
    assert wish.entry.live[0].revision == "churn-00002"
    assert fleet.version == 9


def test_an_unfinished_commit_is_not_claimed(fleet: Fleet) -> None:
    """Two objects of one commit come in two pieces: only with the second everything up to it is known."""
    fleet.apply([change(deployment("churn", stable="churn-00002"), 9, position=8)])
    assert fleet.version == 8
    fleet.apply([change(revision("churn", 2, []), 9)])
    assert fleet.version == 9


def test_removal(fleet: Fleet) -> None:
    assert fleet.apply([change(deployment("churn"), 10, deleted=True)]) == {KEY}
    assert fleet.wish(KEY) is None
    fleet.apply([change(workspace("team"), 11, deleted=True)])
    assert fleet.workspaces == set()


def test_a_new_list_touches_what_is_gone(fleet: Fleet) -> None:
    assert fleet.reset([made(deployment("other"), 20)], 20) == {KEY, ("default", "other")}
    assert fleet.wish(KEY) is None


def test_counters_are_those_of_the_analysis() -> None:
    assert COUNTERS == ENVOY_COUNTERS


def test_edges() -> None:
    assert edge_for(0.25) == 0.25
    assert edge_for(0.26) == 0.3
    assert edge_for(0.0001) == 0.0005
    assert edge_for(10**6) == EDGES_MS[-1] / 1000
    assert list(EDGES_MS) == sorted(set(EDGES_MS))
    # From 5 ms to 2 s no threshold is read as more than twice as high.
    between = [edge for edge in EDGES_MS if 5 <= edge <= 2000]
    assert max(later / earlier for earlier, later in itertools.pairwise(between)) <= 2


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_come_apart_however_they_are_cut(size: int) -> None:
    stream = b': hello\n\nid: 4\nevent: ADDED\ndata: {"a":\ndata: 1}\n\nid: 5\r\ndata:{}\r\n\r\ndata: x\n\n'
    buffer = EventBuffer()
    found = [
        event for start in range(0, len(stream), size) for event in buffer.feed(stream[start : start + size])
    ]
    assert found == [(b"4", b'{"a":\n1}'), (b"5", b"{}"), (b"", b"x")]


def test_an_endless_event_is_given_up() -> None:
    buffer = EventBuffer()
    with pytest.raises(Unavailable):
        for _ in range(70):
            list(buffer.feed(b"data: " + b"x" * 2**20))
