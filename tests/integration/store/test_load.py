"""What gateways counted, and replicas used: kept for a quarter of an hour, read by Deployment or all together."""

import dataclasses
import datetime

from podium.store import GatewayRow, LoadRow, ProcessorTimeRow, Store
from podium.store.load import KEPT_SECONDS
from tests.integration.store.objects import ALICE

START = 1_800_000_000.0


def row(at: float, requests: int = 1, gateway: str = "g1", **more: str) -> LoadRow:
    made = LoadRow(
        at=at, gateway=gateway, epoch="e1", workspace="default", deployment="churn", revision="churn-00001",
        role="live",
        requests=requests, errors=1, refused=2, active=3, time_ms=4.5, buckets=[[5.0, 1], [10.0, requests]],
    )  # fmt: skip
    return dataclasses.replace(made, **more)


def test_rows_come_back_as_they_were_by_workspace_and_deployment(store: Store) -> None:
    mine, other, elsewhere = row(START), row(START, deployment="price"), row(START, workspace="team")
    store.record_load("g1", START, [mine, other, elsewhere])
    later = row(START + 2, 2**40)
    store.record_load("g1", START + 2, [later])
    store.record_load("g2", START + 3, [])
    found, reports = store.load(since=START, workspace="default", deployment="churn")
    assert found == [mine, later]
    assert reports == {"g1": START + 2, "g2": START + 3}
    assert store.load(since=START, workspace="default")[0] == [mine, other, later]
    assert len(store.load(since=START)[0]) == 4
    found, reports = store.load(since=START + 2.5)
    assert (found, reports) == ([], {"g2": START + 3})


def test_old_rows_go_with_every_report(store: Store) -> None:
    for at in range(10):
        store.record_load("g1", START + at, [row(START + at)])
    store.record_load("g1", START + 5 + KEPT_SECONDS, [row(START + 5 + KEPT_SECONDS)])
    found, _ = store.load(since=0)
    assert [one.at - START for one in found] == [5, 6, 7, 8, 9, 5 + KEPT_SECONDS]
    assert store.current_version() == 0, "what is counted is no change"


def test_a_gateway_that_is_forgotten_takes_its_counters_along(store: Store) -> None:
    store.record_load("g1", START, [row(START)])
    store.record_load("g2", START, [row(START, gateway="g2")])
    store.report_gateway(GatewayRow("g1", datetime.datetime.fromtimestamp(START, datetime.UTC), 1, [], {}))
    store.forget_gateway("g1", ALICE)
    found, reports = store.load(since=0)
    assert [one.gateway for one in found] == ["g2"]
    assert reports == {"g2": START}


def used(
    at: float, seconds: float = 1.5, deployment: str = "churn", workspace: str = "default"
) -> ProcessorTimeRow:
    revision = f"{deployment}-00001"
    return ProcessorTimeRow(at, workspace, deployment, revision, f"{revision}-1", seconds, 2.0)


def test_processor_times_come_back_as_they_were_and_old_ones_go(store: Store) -> None:
    mine, other, elsewhere = used(START), used(START, deployment="price"), used(START, workspace="team")
    store.record_processor_times(START, [mine, other, elsewhere])
    store.record_processor_times(START + 2, [used(START + 2, 2.75)])
    found = store.processor_times(since=START, workspace="default", deployment="churn")
    assert found == [mine, used(START + 2, 2.75)]
    assert len(store.processor_times(since=START)) == 4
    assert store.processor_times(since=START + 1, workspace="team") == []
    late = START + 1 + KEPT_SECONDS
    store.record_processor_times(late, [used(late)])
    assert [one.at - START for one in store.processor_times(since=0)] == [2, 1 + KEPT_SECONDS]
    assert store.current_version() == 0
