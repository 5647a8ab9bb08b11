"""What a Deployment does next: when a revision is cut and a rollout opened, superseded or not tried again."""

import datetime
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.planning.deployments import ROLLBACK_ANNOTATION, Outcome, World, decide, keep_old_seconds
from podium.resources.deployment import RolloutSettings
from podium.resources.kinds import Deployment, Revision, Rollout
from podium.resources.revision import RevisionStatus
from podium.resources.rollout import FINAL_PHASES, RolloutStatus
from podium.resources.shape import Metadata, Resource
from tests.unit.planning.worlds import (
    CANARY,
    CANDIDATE,
    NOW,
    RECREATE,
    STABLE,
    at,
    deployment,
    model_version,
    revision,
    rollout,
)

WHEEL = "wheel-1"
REJECTED = {"revision": CANDIDATE, "generation": 1, "rollout": "churn-2", "reason": "too many errors"}
SERVING = {"stableRevision": STABLE, "latestRevision": STABLE, "revisionCount": 1, "rolloutCount": 1}
MOVING = {**SERVING, "latestRevision": CANDIDATE, "revisionCount": 2, "rolloutCount": 2, "rollout": "churn-2"}
FIRST, SECOND = revision(1, ready=1), revision(2, ready=1)


def seen(
    *revisions: Revision, version: int | None = 1, wheel: str = WHEEL, rollouts: Sequence[Rollout] = ()
) -> World:
    """`version`: what the reference means; None: nothing. The first of `rollouts` is the one under way."""
    return World(
        now=NOW,
        version=None if version is None else model_version(version),
        unresolved="" if version else "spec.model.version: churn has no version 9",
        revisions={item.metadata.name: item for item in revisions},
        rollout=rollouts[0] if rollouts else None,
        runtime_wheel=wheel,
        rollouts=rollouts,
    )


def opened(outcome: Outcome) -> tuple[str | None, str, str] | None:
    """(from, to, cause) of the rollout that is opened."""
    if outcome.new_rollout is None:
        return None
    spec = outcome.new_rollout[1]
    return spec.stable_revision, spec.candidate_revision, spec.cause


# --- revisions ----------------------------------------------------------------------------------------------------


def test_the_first_wish_cuts_a_revision_and_opens_the_first_rollout() -> None:
    outcome = decide(deployment(), seen())
    assert outcome.new_revision is not None
    assert outcome.new_revision[0] == STABLE
    assert opened(outcome) == (None, STABLE, "first")
    assert outcome.wanted == {STABLE: 1}
    assert (outcome.status.rollout, outcome.status.phase) == ("churn-1", "Progressing")


@pytest.mark.parametrize(
    ("wish", "cut"),
    [
        ({}, False),
        ({"replicas": 5}, False),
        ({"rollout": RECREATE}, False),
        ({"revisionHistory": 3}, False),
        ({"runtime": {"maxBatch": 8}}, True),
        ({"runtime": {"maxStreams": 8}}, True),
        ({"runtime": {"warmup": {"requests": 2}}}, True),
        ({"resources": {"memory": "4Gi"}}, True),
        ({"sandbox": {"require": "full"}}, True),
        ({"idempotent": False}, True),
        ({"version": 2}, True),
    ],
    ids=str,
)
def test_only_what_decides_how_a_replica_behaves_cuts_a_revision(wish: dict[str, Any], cut: bool) -> None:
    version = wish.get("version", 1)
    spec = {key: value for key, value in wish.items() if key != "version"}
    outcome = decide(deployment(version, status=SERVING, **spec), seen(FIRST, version=version))
    assert (outcome.new_revision is not None, outcome.new_rollout is not None) == (cut, cut)


def test_the_same_wish_again_finds_the_newest_revision_of_that_content() -> None:
    twin = revision(3, spec={"version": "2", "manifestDigest": SECOND.spec.manifest_digest})
    outcome = decide(deployment(2, status=SERVING), seen(FIRST, SECOND, twin, version=2))
    assert (outcome.new_revision, opened(outcome)) == (None, (STABLE, "churn-00003", "apply"))


def test_an_upgrade_of_podium_moves_nothing() -> None:
    """Another wheel, and hashes that an earlier Podium made over fewer fields (`revision` stores such a one)."""
    outcome = decide(deployment(status=SERVING), seen(FIRST, wheel="wheel-2"))
    assert (outcome.new_revision, outcome.new_rollout) == (None, None)
    going = rollout()
    outcome = decide(
        deployment(2, status=MOVING), seen(FIRST, SECOND, version=2, wheel="wheel-2", rollouts=[going])
    )
    assert (outcome.new_revision, outcome.superseded, outcome.new_rollout) == (None, None, None)
    back = decide(
        deployment(2, status={**SERVING, "rejected": REJECTED}),
        seen(FIRST, SECOND, version=2, wheel="wheel-2"),
    )
    assert (back.new_revision, back.new_rollout) == (None, None)


def test_a_wish_for_something_old_is_cut_with_the_new_wheel() -> None:
    third = revision(3, ready=1)
    status = {**SERVING, "stableRevision": "churn-00003", "revisionCount": 3}
    outcome = decide(deployment(status=status), seen(FIRST, third, wheel="wheel-2"))
    assert outcome.new_revision is not None
    assert (outcome.new_revision[0], outcome.new_revision[1].runtime_wheel) == ("churn-00004", "wheel-2")


def test_a_revision_that_is_being_deleted_matches_no_wish() -> None:
    going = revision(2, meta={"deletionRequestedAt": NOW})
    status = {**SERVING, "revisionCount": 2}
    outcome = decide(deployment(2, status=status), seen(FIRST, going, version=2))
    assert outcome.new_revision is not None
    assert opened(outcome) == (STABLE, "churn-00003", "apply")


def test_who_serves_goes_on_when_the_reference_means_nothing_any_more() -> None:
    outcome = decide(deployment(9, status=SERVING), seen(FIRST, version=None))
    assert (outcome.status.phase, outcome.status.message) == (
        "Ready",
        "spec.model.version: churn has no version 9",
    )
    assert (outcome.new_revision, outcome.wanted) == (None, {})
    assert decide(deployment(9), seen(version=None)).status.phase == "Failed"


# --- rollouts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["Pending", "Progressing", "Paused", "Held"])
def test_a_new_wish_supersedes_what_is_under_way_and_starts_from_the_stable_revision(phase: str) -> None:
    outcome = decide(deployment(3, status=MOVING), seen(FIRST, SECOND, version=3, rollouts=[rollout(phase)]))
    assert outcome.superseded == "churn-2"
    assert opened(outcome) == (STABLE, "churn-00003", "apply")
    assert set(outcome.status.retiring) == {CANDIDATE}, "requests under way end in peace"
    assert outcome.wanted == {"churn-00003": 1}


@pytest.mark.parametrize("phase", ["Promoting", "RollingBack", "Observing"])
def test_a_flip_under_way_ends_before_a_new_wish_has_its_turn(phase: str) -> None:
    outcome = decide(deployment(3, status=MOVING), seen(FIRST, SECOND, version=3, rollouts=[rollout(phase)]))
    assert (outcome.superseded, outcome.new_rollout, outcome.status.rollout) == (None, None, "churn-2")
    assert outcome.wanted == {"churn-00003": 0}
    assert outcome.next_at is not None


def test_going_back_to_the_stable_revision_supersedes_and_opens_nothing() -> None:
    outcome = decide(deployment(1, status=MOVING), seen(FIRST, SECOND, rollouts=[rollout()]))
    assert (outcome.superseded, outcome.new_rollout, outcome.status.rollout) == ("churn-2", None, None)
    assert outcome.status.phase == "Ready"


@pytest.mark.parametrize("edit", [{}, {"replicas": 2}, {"rollout": RECREATE}])
def test_what_was_taken_back_is_not_tried_again_by_an_edit_that_means_the_same(edit: dict[str, Any]) -> None:
    wish = deployment(2, meta={"generation": 7}, status={**SERVING, "rejected": REJECTED}, **edit)
    outcome = decide(wish, seen(FIRST, SECOND, version=2))
    assert outcome.new_rollout is None
    assert outcome.status.rejected is not None
    assert outcome.status.rejected.generation == 7
    assert outcome.status.message == f"{CANDIDATE} was taken back: too many errors"


def test_another_revision_or_a_retry_ends_a_rejection() -> None:
    status = {**SERVING, "revisionCount": 2, "rejected": REJECTED}
    other = decide(deployment(3, status=status), seen(FIRST, SECOND, version=3))
    assert (other.status.rejected, opened(other)) == (None, (STABLE, "churn-00003", "apply"))
    retry = decide(deployment(2, status=SERVING), seen(FIRST, SECOND, version=2))
    assert opened(retry) == (STABLE, CANDIDATE, "apply")


def rolled_back(generation: int, *, stable: str = "churn-00003") -> Deployment:
    """A rollback to version 1 was asked for at generation 5."""
    meta = {"generation": generation, "annotations": {ROLLBACK_ANNOTATION: f"{STABLE}@5"}}
    return deployment(1, meta=meta, status={**SERVING, "stableRevision": stable, "revisionCount": 3})


def promotion(
    candidate: str, stable: str | None = None, *, phase: str = "Promoted", made: float = 0, **spec: Any
) -> Rollout:
    """One that has ended, `made` seconds after `NOW`."""
    item = rollout(
        phase,
        name=f"to-{candidate}-{made}",
        spec={"candidateRevision": candidate, "stableRevision": stable, **spec},
    )
    created = item.metadata.model_copy(update={"created_at": at(made)})
    return item.model_copy(update={"metadata": created})


@pytest.mark.parametrize(
    ("generation", "proof", "cause"),
    [(5, "Promoted", "rollback"), (6, "Promoted", "apply"), (5, "RolledBack", "apply")],
    ids=["proven", "a later wish", "never promoted"],
)
def test_only_a_rollback_to_what_was_promoted_before_is_unjudged(
    generation: int, proof: str, cause: str
) -> None:
    past = [rollout("Promoted", name="x"), promotion(STABLE, phase=proof)]
    outcome = decide(rolled_back(generation), seen(FIRST, SECOND, revision(3, ready=1), rollouts=past))
    assert opened(outcome) == ("churn-00003", STABLE, cause)


def test_a_new_target_of_an_alias_is_told_from_an_apply() -> None:
    outcome = decide(deployment(None, status=SERVING), seen(FIRST, SECOND, version=2))
    assert opened(outcome) == (STABLE, CANDIDATE, "alias")


# --- replicas -----------------------------------------------------------------------------------------------------


def test_without_replicas_nothing_moves_and_only_the_very_first_becomes_stable() -> None:
    first = decide(deployment(replicas=0), seen())
    assert (first.status.stable_revision, first.new_rollout, first.wanted) == (STABLE, None, {STABLE: 0})
    later = decide(deployment(2, replicas=0, status=SERVING), seen(FIRST, SECOND, version=2))
    assert (later.status.stable_revision, later.new_rollout) == (STABLE, None)
    assert later.wanted == {STABLE: 0, CANDIDATE: 0}


def test_both_revisions_of_a_rollout_run_and_the_rest_is_let_go() -> None:
    old = revision(3, ready=2)
    outcome = decide(
        deployment(2, replicas=2, status=MOVING), seen(FIRST, SECOND, old, version=2, rollouts=[rollout()])
    )
    assert outcome.wanted == {STABLE: 2, CANDIDATE: 2, "churn-00003": 0}


def test_a_retiring_revision_stays_warm_until_its_time_and_wakes_the_next_look() -> None:
    status = {**SERVING, "retiring": {CANDIDATE: at(30), "gone": at(99)}}
    warm = decide(deployment(status=status), seen(FIRST, SECOND))
    assert (warm.wanted, warm.status.retiring, warm.next_at) == ({}, {CANDIDATE: at(30)}, at(30))
    cold = decide(deployment(status={**SERVING, "retiring": {CANDIDATE: NOW}}), seen(FIRST, SECOND))
    assert (cold.wanted, cold.status.retiring, cold.next_at) == ({CANDIDATE: 0}, {}, None)


@pytest.mark.parametrize(
    ("strategy", "seconds"),
    [
        ({"type": "recreate"}, 1),
        ({"type": "canary"}, 30),
        ({"type": "canary", "keepOld": "0s"}, 1),
        ({"type": "blueGreen"}, 300),
        ({"type": "blueGreen", "keepOld": "1h"}, 3600),
    ],
    ids=str,
)
def test_the_old_revision_outlives_its_traffic_by_a_second_at_least(
    strategy: dict[str, Any], seconds: float
) -> None:
    assert keep_old_seconds(RolloutSettings.model_validate({"strategy": strategy})) == seconds


@pytest.mark.parametrize(
    ("stable", "wanted", "phase"),
    [
        (revision(1, ready=2), 2, "Ready"),
        (revision(1, ready=1), 2, "Degraded"),
        (revision(1, ready=0), 1, "Progressing"),
        (revision(1, ready=0, phase="CrashLoop"), 1, "Degraded"),
        (revision(1, ready=0), 0, "Ready"),
    ],
)
def test_the_phase_tells_how_the_stable_revision_does(stable: Revision, wanted: int, phase: str) -> None:
    assert decide(deployment(replicas=wanted, status=SERVING), seen(stable)).status.phase == phase


# --- history ------------------------------------------------------------------------------------------------------


def test_history_is_bounded_but_what_serves_and_what_a_rollback_needs_is_kept() -> None:
    revisions = [revision(n, ready=1 if n == 9 else None) for n in range(1, 10)]
    past = [promotion("churn-00009", "churn-00004", made=9), promotion("churn-00004", STABLE, made=4)]
    status = {**SERVING, "stableRevision": "churn-00009", "latestRevision": "churn-00009", "revisionCount": 9}
    world = seen(*revisions, version=9, rollouts=[rollout("RolledBack", name="churn-99"), *past])
    outcome = decide(deployment(9, status=status, revisionHistory=2), world)
    gone = {name for kind, name in outcome.pruned if kind == "Revision"}
    assert gone == {f"churn-{n:05d}" for n in (1, 2, 3, 5, 6)}


def test_a_revision_that_still_runs_is_no_history_yet() -> None:
    running = [revision(n, ready=1) for n in range(1, 5)]
    outcome = decide(deployment(status=SERVING, revisionHistory=1), seen(*running))
    assert outcome.pruned == ()
    assert outcome.wanted == {f"churn-{n:05d}": 0 for n in (2, 3, 4)}


def test_going_back_and_forth_for_years_keeps_a_bounded_number_of_rollouts() -> None:
    first = promotion(STABLE, None, made=0)
    second = promotion(CANDIDATE, STABLE, made=1)
    flips = [
        promotion(*pair, made=2 + n, cause="rollback")
        for n, pair in enumerate([(STABLE, CANDIDATE), (CANDIDATE, STABLE)] * 20)
    ]
    status = {**SERVING, "stableRevision": CANDIDATE, "latestRevision": CANDIDATE}
    world = seen(FIRST, SECOND, version=2, rollouts=[rollout("Superseded", name="x"), first, second, *flips])
    outcome = decide(deployment(2, status=status, revisionHistory=5), world)
    pruned = {name for kind, name in outcome.pruned if kind == "Rollout"}
    left = [item for item in world.rollouts if item.metadata.name not in pruned]
    assert len(left) == 5 + 2
    assert first in left, "it proves what a rollback may go to"
    assert second in left, "it tells what a rollback goes to"


# --- deletion -----------------------------------------------------------------------------------------------------


def test_deletion_drains_first_and_is_finished_when_nothing_is_left() -> None:
    gone = deployment(2, meta={"deletionRequestedAt": NOW}, status=MOVING)
    draining = revision(3, meta={"deletionRequestedAt": NOW}, ready=1)
    outcome = decide(gone, seen(FIRST, SECOND, draining, version=2, rollouts=[rollout()]))
    assert (outcome.finished, outcome.new_rollout, outcome.status.phase) == (False, None, "Deleting")
    assert outcome.wanted == {STABLE: 0, CANDIDATE: 0, "churn-00003": 0}
    assert set(outcome.pruned) == {("Rollout", "churn-2"), ("Revision", STABLE), ("Revision", CANDIDATE)}
    assert outcome.next_at is not None
    over = decide(gone, seen(version=2))
    assert (over.finished, over.next_at) == (True, None)


# --- properties ---------------------------------------------------------------------------------------------------


def written(wish: Deployment, world: World, outcome: Outcome) -> tuple[Deployment, World]:
    """The Deployment and the world once the outcome is carried out, as `control.deployments` does it."""
    revisions = {
        name: item.model_copy(
            update={
                "status": item.status.model_copy(
                    update={"wanted_replicas": outcome.wanted.get(name, item.status.wanted_replicas)}
                )
            }
        )
        for name, item in world.revisions.items()
        if ("Revision", name) not in outcome.pruned
    }
    rollouts = [item for item in world.rollouts if ("Rollout", item.metadata.name) not in outcome.pruned]
    if outcome.superseded is not None:
        rollouts = [
            item.model_copy(update={"status": item.status.model_copy(update={"phase": "Superseded"})})
            if item.metadata.name == outcome.superseded
            else item
            for item in rollouts
        ]
    if outcome.new_revision is not None:
        name, spec = outcome.new_revision
        status = RevisionStatus(wanted_replicas=outcome.wanted.get(name, 0))
        revisions[name] = Resource(kind="Revision", metadata=Metadata(name=name), spec=spec, status=status)
    if outcome.new_rollout is not None:
        title, passage = outcome.new_rollout
        rollouts.append(
            Resource(kind="Rollout", metadata=Metadata(name=title), spec=passage, status=RolloutStatus())
        )
    after = wish.model_copy(update={"status": outcome.status})
    current = next((item for item in rollouts if item.metadata.name == outcome.status.rollout), None)
    return after, World(
        now=world.now, version=world.version, unresolved=world.unresolved, revisions=revisions, rollout=current,
        runtime_wheel=world.runtime_wheel, rollouts=rollouts,
    )  # fmt: skip


@st.composite
def plants(draw: st.DrawFn) -> tuple[Deployment, World]:
    count = draw(st.integers(0, 4))
    revisions = [revision(n, ready=draw(st.sampled_from([None, 0, 1]))) for n in range(1, count + 1)]
    names = [item.metadata.name for item in revisions]
    stable = draw(st.sampled_from([None, *names]))
    status: dict[str, Any] = {"stableRevision": stable, "revisionCount": count, "rolloutCount": 2}
    rollouts = []
    if len(names) >= 2 and stable is not None and draw(st.booleans()):
        candidate = draw(st.sampled_from([name for name in names if name != stable]))
        phase = draw(
            st.sampled_from(
                ["Pending", "Progressing", "Held", "Promoting", "Observing", "RollingBack", "Promoted"]
            )
        )
        going = rollout(phase, CANARY, spec={"stableRevision": stable, "candidateRevision": candidate})
        rollouts = [going]
        status |= {} if phase in FINAL_PHASES else {"rollout": "churn-2"}
    elif names and draw(st.booleans()):
        status["rejected"] = {**REJECTED, "revision": draw(st.sampled_from(names))}
    if names and draw(st.booleans()):
        status["retiring"] = {draw(st.sampled_from(names)): draw(st.sampled_from([at(-1), at(9)]))}
    version = draw(st.sampled_from([None, 1, 2, 3, 5]))
    wish = deployment(
        version or 9,
        status=status,
        replicas=draw(st.integers(0, 2)),
        revisionHistory=draw(st.sampled_from([1, 20])),
    )
    world = seen(*revisions, version=version, wheel=draw(st.sampled_from([WHEEL, "wheel-2"])))
    current = rollouts[0] if rollouts and "rollout" in status else None
    return wish, World(**{**vars(world), "rollout": current, "rollouts": rollouts})


@given(plants())
def test_deciding_again_on_its_own_outcome_changes_nothing(plant: tuple[Deployment, World]) -> None:
    first = decide(*plant)
    after = written(*plant, first)
    second = decide(*after)
    assert (second.new_revision, second.new_rollout, second.superseded) == (None, None, None)
    assert (second.wanted, second.pruned, second.events) == ({}, (), ())
    # How a revision does that was cut just now is seen the next time.
    later = {"phase", "served_version"}
    assert second.status.model_dump(exclude=later) == first.status.model_dump(exclude=later)
    third = decide(*written(*after, second))
    assert third.status == second.status


@given(plants())
def test_who_has_traffic_keeps_its_replicas_and_is_never_pruned(plant: tuple[Deployment, World]) -> None:
    wish, world = plant
    outcome = decide(wish, world)
    serving = {wish.status.stable_revision}
    if world.rollout is not None and outcome.superseded is None:
        serving |= {world.rollout.spec.candidate_revision, world.rollout.spec.stable_revision}
    for name in serving & set(world.revisions):
        assert name is not None
        kept = world.revisions[name].status.wanted_replicas
        assert outcome.wanted.get(name, kept) == wish.spec.replicas
        assert ("Revision", name) not in outcome.pruned


@given(plants())
def test_only_a_first_revision_without_replicas_becomes_stable_by_a_wish(
    plant: tuple[Deployment, World],
) -> None:
    """Every other change of the stable revision is the end of a rollout."""
    wish, world = plant
    outcome = decide(wish, world)
    if outcome.status.stable_revision != wish.status.stable_revision:
        assert wish.status.stable_revision is None
        assert wish.spec.replicas == 0


@given(plants(), st.integers(0, 10**6))
def test_the_time_of_a_look_is_never_in_the_past(plant: tuple[Deployment, World], seconds: int) -> None:
    wish, world = plant
    outcome = decide(wish, World(**{**vars(world), "now": NOW + datetime.timedelta(seconds=seconds)}))
    assert outcome.next_at is None or outcome.next_at > NOW + datetime.timedelta(seconds=seconds)
