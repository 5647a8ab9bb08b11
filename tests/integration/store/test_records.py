"""The audit trail, events, samples, gateways, aliases and tokens."""

import datetime
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from podium.planning.gateways import GatewayInstance
from podium.resources.errors import AlreadyExists, InvalidInput, NotFound, Refused
from podium.store import FORMER, INSTANCE, Actor, GatewayRow, SampleRow, Store, Subject, TokenRow
from tests.integration.store.objects import (
    ALICE,
    HOUR,
    LOOP,
    create,
    deployment,
    model,
    now,
    replicas,
    rollout,
    uid_of,
    version,
)

BOB = Actor("bob", "user", "req-7")


def test_every_change_says_who_what_and_how(store: Store) -> None:
    (created,) = create(store, deployment())
    with store.write(BOB) as transaction:
        after = transaction.replace(
            uid_of(created), spec=replicas(created, 3), labels={"a": "b"}, expected_version=1
        )
    with store.write(LOOP) as transaction:
        transaction.audit("pause", created, "paused", {"step": 1})
        transaction.audit("backup", None, "saved everything")
        transaction.audit("login", Subject("Token", name="ci"), "used")
    with store.read() as snapshot:
        login, backup, pause, update, first = snapshot.audit()
        assert [row.seq for row in (first, update, pause, backup, login)] == [1, 2, 3, 4, 5]
        assert (update.actor, update.actor_kind, update.request_id, update.verb) == (
            "bob",
            "user",
            "req-7",
            "update",
        )
        assert (update.kind, update.workspace, update.name, update.uid) == (
            "Deployment", "default", "churn", uid_of(created),
        )  # fmt: skip
        assert (update.version, update.at) == (2, after.metadata.updated_at)
        assert update.detail == {
            "changes": [
                {"path": "metadata.labels.a", "from": None, "to": "b"},
                {"path": "spec.replicas", "from": 1, "to": 3},
            ]
        }
        assert update.summary == "changed metadata.labels.a, spec.replicas"
        assert first.detail is not None
        assert first.detail["spec"] == created.document()["spec"]
        assert (pause.version, pause.actor_kind, pause.detail) == (3, "system", {"step": 1})
        assert (backup.kind, backup.name, backup.detail) == (None, None, None)
        assert snapshot.audit(limit=2) == [login, backup]
        assert snapshot.audit(limit=2, before=backup.seq) == [pause, update]
        assert snapshot.audit(kind="d", workspace="default", name="churn") == [pause, update, first]
        assert snapshot.audit(kind="Token") == [login]
        assert snapshot.audit(workspace="other") == []
        assert snapshot.audit(before=2**80) == [login, backup, pause, update, first]
        with pytest.raises(InvalidInput):
            snapshot.audit(limit=0)
        with pytest.raises(InvalidInput):
            snapshot.events(limit=-1)


def test_the_audit_trail_can_only_grow(store: Store) -> None:
    create(store, deployment())
    statements = ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"]
    if store._database.shared:
        statements.append("TRUNCATE audit")
    for statement in statements:
        with pytest.raises(DBAPIError, match="append-only"), store._database.writing() as connection:
            connection.exec_driver_sql(statement)
    with store.read() as snapshot:
        assert [row.actor for row in snapshot.audit()] == ["alice"]


def test_events_are_newest_first_and_fold_repetitions(store: Store) -> None:
    (a, b) = create(store, deployment("a"), deployment("b", workspace="other"))
    for _ in range(3):
        with store.write(LOOP) as transaction:
            transaction.event(a, "Warning", "BackOff", "waits")
    with store.write(LOOP) as transaction:
        transaction.event(b, "Normal", "Ready", "serves")
        transaction.event(a, "Normal", "Ready", "nul \x00 and half a pair \ud800" + "x" * 9000)
        transaction.event(a, "Warning", "BackOff", "waits")
    with store.read() as snapshot:
        events = snapshot.events()
        assert [(event.name, event.reason, event.count) for event in events] == [
            ("a", "BackOff", 1),
            ("a", "Ready", 1),
            ("b", "Ready", 1),
            ("a", "BackOff", 3),
        ]
        assert events[3].first_at < events[3].at
        assert events[1].message.startswith("nul \ufffd and half a pair \ufffdxxx")
        assert len(events[1].message) == 4096
        assert [event.name for event in snapshot.events(workspace="other")] == ["b"]
        assert snapshot.events(kind="Deployment", name="a", limit=1, before=events[0].id) == [events[1]]
    assert store.current_version() == 1, "an event alone is no version"
    assert store.prune(now() + HOUR).events == 4
    with store.read() as snapshot:
        assert snapshot.events() == []


def sample(at: float, gateway: str = "g1", epoch: str = "e1") -> SampleRow:
    counters = {"started": 10, "latency_buckets": [[1.0, 3], [5.0, 7]]}
    return SampleRow("", at, gateway, epoch, 1000, counters, {**counters, "started": 1})


def test_samples_come_back_in_order_and_once(store: Store) -> None:
    (owner,) = create(store, deployment())
    (mine, other) = create(store, rollout("churn-1", owner), rollout("churn-2", owner))
    uid = uid_of(mine)
    before = store.current_version()
    assert store.append_samples(uid, [sample(1.25), sample(2.5), sample(2.5, "g2")]) == 3
    assert store.append_samples(uid, [sample(2.5), sample(3.75)]) == 1, (
        "a report that is sent again adds nothing"
    )
    assert store.append_samples(uid, [sample(2.5, epoch="e2")]) == 1
    assert store.append_samples(uid, []) == 0
    assert store.append_samples(uid_of(other), [sample(1.25)]) == 1
    found = store.samples(uid)
    assert [(row.at, row.gateway, row.epoch) for row in found] == [
        (1.25, "g1", "e1"), (2.5, "g1", "e1"), (2.5, "g2", "e1"), (3.75, "g1", "e1"), (2.5, "g1", "e2"),
    ]  # fmt: skip
    assert found[0] == replace(sample(1.25), rollout_uid=uid, id=found[0].id)
    assert store.samples(uid, after_id=found[2].id, limit=1) == [found[3]]
    assert store.samples(uid, after_id=2**80) == []
    assert store.samples("nothing") == []
    with pytest.raises(NotFound, match="no rollout"):
        store.append_samples("nothing", [sample(1.0)])
    assert store.current_version() == before
    with store.write(ALICE) as transaction:
        transaction.request_deletion(uid)
    assert store.samples(uid) == [], "they go with their rollout"
    assert store.prune(now()).samples == 1


def test_the_report_of_another_agent_is_refused_while_the_first_one_reports(store: Store) -> None:
    at, second = now(), datetime.timedelta(seconds=1)
    one = GatewayInstance("home-1", "start-1", "host-1", 11)
    again = replace(one, start="start-2", pid=12)
    other = GatewayInstance("home-2", "start-3", "host-2", 13)

    def report(instance: GatewayInstance, after: datetime.timedelta, version: int) -> None:
        store.report_gateway(GatewayRow("gw", at + after, version, [], {"pid": 1}), instance)

    report(one, 0 * second, 1)
    with pytest.raises(Refused, match=r"gateway gw reports already, from host-1 \(pid 11\)$") as refused:
        report(other, second, 9)
    assert "another name" in str(refused.value.next_step)
    report(again, 2 * second, 2)
    with pytest.raises(Refused, match=r"\(pid 12\), which was started later in a copy of this folder"):
        report(one, 3 * second, 9)
    (row,) = store.gateways(since=at)
    assert (row.observed_version, row.seen_at) == (2, at + 2 * second)
    assert row.detail == {"pid": 1, INSTANCE: vars(again), FORMER: ["start-1"]}
    report(other, 8 * second, 3)
    (row,) = store.gateways(since=at)
    assert (row.observed_version, row.detail[INSTANCE]) == (3, vars(other))
    # Who does not say who it is, as an agent from before, is not asked.
    store.report_gateway(GatewayRow("gw", at + 9 * second, 4, [], {}))
    report(one, 9 * second, 5)
    assert store.gateways(since=at)[0].observed_version == 5


def test_a_gateways_newest_report_counts(store: Store) -> None:
    at = now()
    old = GatewayRow("g1", at - HOUR, 3, [], {})
    fresh = GatewayRow(
        "g1", at, 7, [{"deployment": "churn", "error": "no such cluster"}], {"envoy": {"version": "1"}}
    )
    other = GatewayRow("g0", at - HOUR, 5, [], {})
    for row in (old, other, fresh):
        store.report_gateway(row)
    assert store.gateways(since=at - 2 * HOUR) == [other, fresh]
    assert store.gateways(since=at) == [fresh]
    assert store.current_version() == 0, "a report is no change"
    store.forget_gateway("g1", ALICE)
    with pytest.raises(NotFound, match="there is no gateway 'never seen'"):
        store.forget_gateway("never seen", ALICE)
    assert store.gateways(since=at - 2 * HOUR) == [other]
    with store.read() as transaction:
        assert [(row.actor, row.verb, row.kind, row.name) for row in transaction.audit()] == [
            ("alice", "forget", "Gateway", "g1")
        ]


def test_an_alias_moves_in_one_transaction_with_its_history(store: Store) -> None:
    create(store, model(), version("1"), version("2"))
    with store.write(ALICE) as transaction:
        after = transaction.set_alias("default", "churn", "champion", "1")
    assert after.status.aliases == {"champion": "1"}
    with store.write(BOB) as transaction:
        transaction.set_alias("default", "churn", "champion", "2")
        transaction.set_alias("default", "churn", "other", "1")
    with store.write(BOB) as transaction:
        assert transaction.set_alias("default", "churn", "other", "1") == transaction.get(
            "Model", "default", "churn"
        )
    assert store.current_version() == 3
    with store.write(ALICE) as transaction:
        after = transaction.set_alias("default", "churn", "champion", None)
    assert after.status.aliases == {"other": "1"}
    with store.read() as snapshot:
        assert snapshot.get("Model", "default", "churn") == after
        moves = snapshot.alias_history("default", "churn")
        assert [
            (move.alias, move.previous, move.version, move.actor, move.commit_version) for move in moves
        ] == [
            ("champion", "2", None, "alice", 4),
            ("other", None, "1", "bob", 3),
            ("champion", "1", "2", "bob", 3),
            ("champion", None, "1", "alice", 2),
        ]
        assert [row.summary for row in snapshot.audit(limit=1)] == ["churn@champion: 2 -> nothing"]
        assert snapshot.changes(3)[0].object["status"]["aliases"] == {"other": "1"}
    for wrong in (("churn", "x", "9"), ("nope", "x", "1"), ("churn", "x", None)):
        with pytest.raises(NotFound), store.write(ALICE) as transaction:
            transaction.set_alias("default", *wrong)
    assert store.current_version() == 4


def test_tokens_are_listed_and_revoked(store: Store) -> None:
    at = now()
    lasting = TokenRow("id-1", "admin", "admin", ["*"], at, "setup")
    ending = TokenRow("id-2", "ci", "edit", ["default", "b"], at + HOUR, "admin", expires_at=at + 2 * HOUR)
    over = TokenRow("id-3", "old", "view", ["b"], at - HOUR, "admin", expires_at=at - HOUR)
    with store.write(ALICE) as transaction:
        for row in (lasting, ending, over):
            transaction.add_token(row)
    with pytest.raises(AlreadyExists), store.write(ALICE) as transaction:
        transaction.add_token(lasting)
    with store.read() as snapshot:
        assert snapshot.tokens() == [ending, lasting, over]
        assert snapshot.token("id-2") == ending
        assert snapshot.revoked_tokens() == []
        with pytest.raises(NotFound):
            snapshot.token("id-9")
    with store.write(BOB) as transaction:
        for token_id in ("id-1", "id-2", "id-3"):
            revoked = transaction.revoke_token(token_id)
            assert revoked.revoked_at is not None
    with store.write(BOB) as transaction:
        assert transaction.revoke_token("id-1").revoked_at is not None, "once more changes nothing"
        with pytest.raises(NotFound):
            transaction.revoke_token("id-9")
    with store.read() as snapshot:
        assert snapshot.revoked_tokens() == ["id-1", "id-2"], "an expired one needs no list"
        assert [row.verb for row in snapshot.audit(kind="Token")] == ["revoke"] * 3 + ["create"] * 3
        assert snapshot.token("id-1").revoked_at == snapshot.audit()[0].at


def test_the_clock_is_passed_in(database_url: str) -> None:
    fixed = datetime.datetime(
        2030, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone(datetime.timedelta(hours=5))
    )
    store = Store.open(database_url, now=lambda: fixed)
    try:
        store.migrate()
        (created,) = create(store, deployment())
        assert created.metadata.created_at == fixed
        with store.read() as snapshot:
            assert snapshot.get("Deployment", "default", "churn").metadata.created_at == fixed
            assert snapshot.audit()[0].at == fixed
            assert snapshot.audit()[0].at.utcoffset() == datetime.timedelta(0)
        assert store.next_due(["Deployment"]) == fixed
        with pytest.raises(ValueError, match="zone"):
            store.wake(uid_of(created), at=fixed.replace(tzinfo=None))
    finally:
        store.close()


def test_one_installation_runs_a_targets_replicas(store: Store) -> None:
    assert store.place("process") is None
    store.claim_place("process", place="a", description="/srv on a", actor=LOOP)
    store.claim_place("process", place="a", description="/srv on a", actor=LOOP)
    with pytest.raises(Refused, match=r"run in /srv on a, since .*; /srv on b would start all") as refused:
        store.claim_place("process", place="b", description="/srv on b", actor=LOOP)
    assert "--take-over" in str(refused.value.next_step)
    store.claim_place("process", place="b", description="/srv on b", actor=LOOP, take_over=True)
    held = store.place("process")
    assert held is not None
    assert held.place == "b"
    with store.read() as snapshot:
        rows = [row for row in snapshot.audit() if row.verb == "place.claim"]
    assert [(row.summary, row.detail) for row in rows] == [
        ("replicas of target process run in /srv on b", {"before": "/srv on a"}),
        ("replicas of target process run in /srv on a", {"before": None}),
    ]


def test_a_rotated_token_ends_by_itself(store: Store) -> None:
    begun, later, end = now(), now() + HOUR / 2, now() + HOUR

    def row(name: str, **more: Any) -> TokenRow:
        return TokenRow(name, "ci", "predict", ["default"], begun, "ann", expires_at=end, **more)

    with store.write(ALICE) as transaction:
        transaction.add_token(row("old", deployments=["default/churn"], verbs=["predict"]))
        transaction.add_token(row("gone"))
        transaction.revoke_token("gone")
        transaction.rotate_token(row("new", rotated_from="old"), later)
    with store.read() as snapshot:
        old, new = snapshot.token("old"), snapshot.token("new")
        assert (old.rotated_to, new.rotated_from, new.rotated_to) == ("new", "old", None)
        assert (old.deployments, old.verbs) == (["default/churn"], ["predict"])
        assert not old.is_retired(begun)
        assert old.is_retired(later)
        assert not new.is_retired(end)
        assert snapshot.retiring_tokens() == [("old", later)]
        assert snapshot.revoked_tokens() == ["gone"]
        verbs = [(one.verb, one.uid) for one in snapshot.audit()][:2]
        assert verbs == [("rotate", "old"), ("create", "new")]
    for taken, why in (("old", "took its place"), ("gone", "is revoked")):
        with store.write(ALICE) as transaction, pytest.raises(Refused, match=why):
            transaction.rotate_token(row("third", rotated_from=taken), end)
    with store.write(ALICE) as transaction, pytest.raises(NotFound):
        transaction.rotate_token(row("third", rotated_from="nobody"), end)
    # When the time has come it is one of the revoked.
    with store.write(ALICE) as transaction:
        transaction.add_token(row("fourth"))
        transaction.rotate_token(row("fifth", rotated_from="fourth"), begun)
    with store.read() as snapshot:
        assert snapshot.retiring_tokens() == [("old", later)]
        assert snapshot.revoked_tokens() == ["fourth", "gone"]
    # What is revoked is no longer merely on its way there.
    with store.write(ALICE) as transaction:
        transaction.revoke_token("old")
    with store.read() as snapshot:
        assert snapshot.retiring_tokens() == []
        assert snapshot.revoked_tokens() == ["fourth", "gone", "old"]
