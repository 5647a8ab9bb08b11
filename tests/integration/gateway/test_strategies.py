"""Rollouts that copy requests, and A/B tests with a key, at a real Envoy."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from podium.planning.sticky import place_of
from podium.resources.rollout import COPIES
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.documents import World, revision, route

pytestmark = pytest.mark.integration
OWN, FRONT = "/v2/models/churn/infer", "/v2/models/front/infer"
STABLE, CANDIDATE = "churn-00001", "churn-00002"
SALT = f"uid-default-churn/{CANDIDATE}"
SHADOW = {"type": "shadow", "percent": 100}
USERS = 400


def started(world: World, version: int, *documents: dict[str, Any]) -> Gateway:
    """The gateway that has loaded this version and these documents."""
    version = max(version, world.server.put(*documents)) if documents else version
    world.gateway.start_agent()
    world.server.wait_loaded(version, 60)
    return world.gateway  # type: ignore[no-any-return]


def revision_of(gateway: Gateway, path: str, **arguments: Any) -> str:
    response = gateway.get(path, **arguments)
    assert response.status_code == 200, response.text
    return str(response.json()["revision"])


def counted(world: World, candidate: int, stable: int, *, copies: bool) -> dict[str, Any]:
    """The first sample in which so many requests of both arms are answered."""

    def fits(report: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            sample
            for sample in report["samples"]
            if sample["epoch"].endswith(COPIES) is copies
            and sample["candidate"]["upstream_rq_completed"] == candidate
            and sample["stable"]["upstream_rq_completed"] == stable
        ]

    return fits(world.server.wait_report(fits, 60))[0]


def test_copies_are_counted_apart_and_nobody_gets_their_answers(world: World) -> None:
    version = world.canary("churn", 0, strategy=SHADOW, shadow=True)
    world.deploy("other")
    halves = {"to": [{"deployment": "churn", "weight": 50}, {"deployment": "other", "weight": 50}]}
    gateway = started(world, version, route("front", {"to": "churn"}), route("mixed", halves))
    assert {revision_of(gateway, path) for path in (OWN, FRONT) for _ in range(20)} == {STABLE}
    sample = counted(world, 40, 40, copies=True)
    assert sample["weightBp"] == 5000, "half of requests and copies together"
    # A rule with another Deployment in it copies nothing: Envoy would copy the other's requests, too.
    mixed = Counter(revision_of(gateway, "/v2/models/mixed/infer") for _ in range(40))
    assert set(mixed) == {STABLE, "other-00001"}
    assert counted(world, 40, 40 + mixed[STABLE], copies=True)["weightBp"] == 5000
    # What fails is seen by both sides.
    assert gateway.get(f"{OWN}?status=503").status_code == 503
    sample = counted(world, 41, 41 + mixed[STABLE], copies=True)
    assert (sample["candidate"]["upstream_rq_5xx"], sample["stable"]["upstream_rq_5xx"]) == (1, 1)
    # Then traffic moves: it is counted from nothing, and no copies are made any more.
    world.server.wait_loaded(world.canary("churn", 50, strategy=SHADOW), 60)
    found = Counter(revision_of(gateway, path) for path in (OWN, FRONT) for _ in range(30))
    assert set(found) == {STABLE, CANDIDATE}
    sample = counted(world, found[CANDIDATE], 41 + mixed[STABLE] + found[STABLE], copies=False)
    assert sample["weightBp"] == 5000


def test_a_share_of_requests_is_copied(world: World) -> None:
    gateway = started(world, world.canary("churn", 0, strategy={**SHADOW, "percent": 25}, shadow=True))
    for _ in range(200):
        assert revision_of(gateway, OWN) == STABLE

    def counts(report: dict[str, Any]) -> list[tuple[int, int]]:
        return [
            (sample["candidate"]["upstream_rq_completed"], sample["weightBp"])
            for sample in report["samples"]
            if sample["stable"]["upstream_rq_completed"] == 200
        ]

    [(copies, weight)] = counts(world.server.wait_report(counts, 60))
    assert copies == pytest.approx(50, abs=32)
    assert weight == 2000


def users(gateway: Gateway, path: str, key: Any) -> dict[int, str]:
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda user: revision_of(gateway, path, headers=key(user)), range(USERS))
        return dict(enumerate(found))


@pytest.mark.parametrize(
    ("sticky", "key"),
    [
        ({"header": "x-user"}, lambda user: {"x-user": f"u{user}"}),
        ({"cookie": "uid"}, lambda user: {"cookie": f"a=b; uid=u{user}; c={user}"}),
    ],
    ids=["header", "cookie"],
)
def test_nobody_leaves_the_candidate_when_its_share_grows(world: World, sticky: Any, key: Any) -> None:
    def test(weight: int, **more: Any) -> int:
        return world.canary("churn", weight, strategy={"type": "abTest", "sticky": sticky}, **more)

    gateway = started(world, test(10), route("front", {"to": "churn"}))
    before = users(gateway, OWN, key)
    for user, met in before.items():
        # The same place at every gateway: it depends on nothing else.
        assert met == (CANDIDATE if place_of(SALT, f"u{user}") >= 9000 else STABLE), user
    world.server.wait_loaded(test(50), 60)
    after = users(gateway, OWN, key)
    assert all(after[user] == CANDIDATE for user, met in before.items() if met == CANDIDATE)
    assert Counter(after.values())[CANDIDATE] / USERS == pytest.approx(0.5, abs=0.13)
    # A Route that leads here alone keeps everybody where they are.
    assert users(gateway, FRONT, key) == after
    # Without the key requests are spread at random.
    assert {revision_of(gateway, OWN, headers={"cookie": "a=b"}) for _ in range(60)} == {STABLE, CANDIDATE}
    world.server.wait_loaded(test(100, phase="Promoting"), 60)
    assert {revision_of(gateway, OWN, headers=key(user)) for user in range(30)} == {CANDIDATE}


def test_the_baseline_has_the_candidates_share_and_is_what_samples_tell_of(world: World) -> None:
    version = world.canary("churn", 30, strategy={"type": "canary", "baseline": True})
    addresses = world.endpoints["default", "churn", 1] + [world.gateway.start_replica(STABLE, 1)]
    stable = revision("churn", 1, addresses)
    stable["status"]["replicas"][1]["group"] = "baseline"
    gateway = started(world, version, stable)
    met: Counter[tuple[str, int]] = Counter()
    for _ in range(200):
        answer = gateway.get(OWN).json()
        met[answer["revision"], answer["pid"]] += 1
    assert len(met) == 3
    candidate = next(count for (name, _), count in met.items() if name == CANDIDATE)

    def fits(report: dict[str, Any]) -> list[dict[str, Any]]:
        return [item for item in report["samples"] if item["candidate"]["upstream_rq_completed"] == candidate]

    sample = fits(world.server.wait_report(fits, 60))[0]
    baseline = sample["stable"]["upstream_rq_completed"]
    assert sorted(met.values()) == sorted([candidate, baseline, 200 - candidate - baseline])
    assert candidate == pytest.approx(60, abs=35)
    assert baseline == pytest.approx(60, abs=35)
    assert sample["weightBp"] == 3000
    # Without it the others take its share, and nothing is compared.
    stable["status"]["replicas"] = stable["status"]["replicas"][:1]
    world.server.wait_loaded(world.server.put(stable), 60)
    assert len({gateway.get(OWN).json()["pid"] for _ in range(60)}) == 2
    seen = len(world.server.reports)
    world.server.wait_report(lambda report: len(world.server.reports) > seen + 3, 60)
    assert not any(report["samples"] for report in world.server.reports[seen + 1 :])
