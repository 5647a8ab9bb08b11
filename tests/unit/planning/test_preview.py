"""What an apply is said to lead to: the sentences agree with what the reconcilers then decide."""

from typing import Any

import pytest

from podium.planning.deployments import World, decide
from podium.planning.preview import describe
from podium.resources.kinds import Deployment, Revision, Rollout
from tests.unit.planning.worlds import (
    AB_TEST,
    BLUE_GREEN,
    CANARY,
    CANDIDATE,
    NOW,
    RECREATE,
    SHADOW,
    STABLE,
    deployment,
    model_version,
    revision,
    rollout,
)

SERVING = {"stableRevision": STABLE, "latestRevision": STABLE, "revisionCount": 1, "rolloutCount": 1}
FIRST, SECOND = revision(1, ready=1), revision(2, ready=1)


def world(*revisions: Revision, version: int | None = 2, going: Rollout | None = None) -> World:
    return World(
        now=NOW,
        version=None if version is None else model_version(version),
        unresolved="" if version else "spec.model.version: churn has no version 9",
        revisions={item.metadata.name: item for item in revisions},
        rollout=going,
        runtime_wheel="wheel-1",
        rollouts=[going] if going else [],
    )


def told(new: Deployment, seen: World, *, old: Deployment | None = None) -> str:
    return "\n".join(describe(old or deployment(status=SERVING), new, seen))


def test_the_first_one_takes_all_traffic_when_it_is_ready() -> None:
    sentences = describe(None, deployment(2), world())
    assert sentences == [
        "Revision churn-00001 is cut for churn version 2.",
        "It is the first: it takes all traffic as soon as it is ready.",
    ]


def test_without_replicas_it_says_what_the_gateway_answers() -> None:
    assert "the gateway answers 503" in describe(None, deployment(2, replicas=0), world())[0]


def test_what_a_reference_lacks_is_all_that_is_said() -> None:
    assert (
        told(deployment(9, status=SERVING), world(FIRST, version=None))
        == "spec.model.version: churn has no version 9"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            CANARY,
            "Traffic moves from churn-00001 to churn-00002: 10 % for 1m (at most 10m), then 50 % for 1,000 requests "
            "(at most 1h), then all of it.",
        ),
        (
            BLUE_GREEN,
            "All traffic flips from churn-00001 to churn-00002 after 1m of preview; "
            "churn-00001 stays warm for 5m.",
        ),
        (
            {"strategy": {"type": "blueGreen", "autoPromote": False}},
            "All traffic flips from churn-00001 to churn-00002 when someone promotes it; "
            "churn-00001 stays warm for 5m.",
        ),
        (BLUE_GREEN, "churn-00002 can be previewed with the header x-podium-preview: true."),
        (RECREATE, "churn-00002 replaces churn-00001 as soon as it is ready, unjudged."),
        (
            {"strategy": {"type": "canary", "baseline": True}},
            "It is compared with fresh replicas of churn-00001, as many and with as many requests as it has.",
        ),
        (
            SHADOW,
            "First churn-00002 gets copies of 100 % of the requests until it has answered 500 (at most 10m); "
            "nobody gets its answers.",
        ),
        (
            SHADOW,
            "Traffic moves from churn-00001 to churn-00002: 10 % for 1m (at most 10m), then 50 % for 1,000 requests "
            "(at most 1h), then all of it.",
        ),
        (
            {"strategy": {"type": "shadow", "compare": {"agreement": 0.9, "distance": 0.01}}},
            "It goes on when it is proven that 0.9 of the classes agree and numbers lie 0.01 apart at most.",
        ),
        (
            {"strategy": {"type": "shadow", "then": "hold"}},
            "Then it waits for a person: `podium rollout promote` moves all traffic to churn-00002 at once.",
        ),
        (
            AB_TEST,
            "50 % of requests, each drawn by itself, meet churn-00002 and the others churn-00001, until each arm has "
            "had 1,000 requests or 1h have passed; then a person promotes or aborts it.",
        ),
        (
            {"strategy": {"type": "abTest", "weight": 5, "sticky": {"claim": "sub"}}},
            "5 % of users, told apart by the claim sub of their token, meet churn-00002 and the others churn-00001, "
            "until a person promotes or aborts it.",
        ),
        (
            {"strategy": {"type": "abTest", "sticky": {"header": "x-user"}}},
            "Users are no independent draws, so nothing is compared. Judged by liveness.",
        ),
    ],
    ids=["canary", "blueGreen", "by hand", "preview", "recreate", "baseline", "copies", "then steps", "answers",
         "then a person", "a test", "users", "their judgement"],
)  # fmt: skip
def test_a_passage_is_told_as_its_strategy_goes(settings: dict[str, Any], words: str) -> None:
    assert words in told(deployment(2, status=SERVING, rollout=settings), world(FIRST)).split("\n")


@pytest.mark.parametrize(
    ("analysis", "words"),
    [
        (
            {},
            "Judged by errors (margin 2.0%), refusals (margin 2.0%); a false rollback has a chance of at most 5.0%.",
        ),
        ({"enabled": False}, "Nothing but liveness is judged: the analysis is turned off."),
        (
            {"errorRate": {"enabled": False}, "alpha": 0.01},
            "Judged by refusals (margin 2.0%); a false rollback has a",
        ),
        ({"latency": {"threshold": "75ms", "margin": 0.05}}, "requests over 75 ms (margin 5.0%)"),
        ({"latencyQuantile": {"quantile": 0.99, "relativeMargin": 0.2}}, "p99 (at most 20% higher)"),
        ({"thresholds": [{"metric": "p95", "maxLatency": "400ms"}]}, "p95 at most 400ms"),
        (
            {"enabled": False, "thresholds": [{"metric": "errorRate", "max": 0.05}]},
            "Judged by errorRate at most 0.05;",
        ),
    ],
    ids=str,
)
def test_what_it_is_judged_by_is_told_with_its_margins(analysis: dict[str, Any], words: str) -> None:
    wish = {**CANARY, "analysis": analysis}
    assert words in told(deployment(2, status=SERVING, rollout=wish), world(FIRST))


def test_an_edit_that_moves_nothing_says_so() -> None:
    same = told(deployment(status=SERVING, revisionHistory=5), world(FIRST, version=1))
    assert same == "Nothing moves: the serving part is what is served already."
    assert told(deployment(status=SERVING, replicas=3), world(FIRST, version=1)) == "Replicas: 1 -> 3."


MOVING = {**SERVING, "latestRevision": CANDIDATE, "revisionCount": 2, "rolloutCount": 2, "rollout": "churn-2"}


@pytest.mark.parametrize(
    ("version", "phase", "words"),
    [
        (3, "Progressing", "Rollout churn-2 is superseded: its candidate's traffic goes back first."),
        (1, "Progressing", "Rollout churn-2 is superseded: its candidate's traffic goes back first."),
        (2, "Progressing", "Rollout churn-2 goes on with the settings that it was opened with."),
        (
            3,
            "Promoting",
            "Rollout churn-2 has moved the traffic already and ends first; then churn-00003 has its turn.",
        ),
    ],
)
def test_what_becomes_of_a_rollout_under_way_is_told(version: int, phase: str, words: str) -> None:
    new = deployment(version, status=MOVING)
    seen = world(FIRST, SECOND, version=version, going=rollout(phase))
    sentences = describe(deployment(2, status=MOVING), new, seen)
    assert any(words in line for line in sentences), sentences
    assert any("Traffic moves from" in line for line in sentences) == (
        decide(new, seen).new_rollout is not None
    )


def test_a_wish_without_replicas_waits_for_its_turn() -> None:
    text = told(deployment(2, status=SERVING, replicas=0), world(FIRST))
    assert "Nothing moves without replicas: churn-00002 has its turn when spec.replicas is raised." in text
    assert "Replicas: 1 -> 0." in text


def test_what_was_taken_back_is_told_with_what_to_do() -> None:
    rejected = {"revision": CANDIDATE, "generation": 1, "rollout": "churn-2", "reason": "errors"}
    text = told(deployment(2, status={**SERVING, "rejected": rejected}), world(FIRST, SECOND))
    assert text == "churn-00002 was taken back before; say `podium rollout retry`."
