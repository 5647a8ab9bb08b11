"""A thousand hostile requests against a real replica; `make test-fuzz` throws ten thousand."""

import json
import random
from pathlib import Path

import pytest

from runtime.tests.replica import python_version, running
from tests.integration.runtime.case import SIGNATURE, Case, post, valid
from tests.integration.runtime.fuzz import GROWTH, Findings, judge, schema_refuses, start, table, throw
from tests.integration.runtime.hostile import cases

pytestmark = pytest.mark.integration


@pytest.mark.timeout(300)
def test_nothing_refused_is_a_5xx_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with start(tmp_path) as replica:
        found = throw(replica, 1000, seed := 7)
    words = "\n".join([f"seed {seed}", *found.wrong[:20], *table(found)])
    assert not found.wrong, words
    assert sum(found.answers.values()) >= 1000, words
    statuses = {status for _, status in found.answers}
    assert {200, 400, 404, 405, 413} <= statuses, words
    assert found.growth <= GROWTH, f"{found.memory}\n{words}"
    assert found.files[1] <= found.files[0], words


def test_the_same_seed_makes_the_same_bytes() -> None:
    assert list(cases(3, 200)) == list(cases(3, 200))
    assert list(cases(3, 200)) != list(cases(4, 200))


def test_the_judge_knows_valid_documents() -> None:
    chance = random.Random(1)
    assert not any(schema_refuses(json.dumps(valid(chance)).encode()) for _ in range(200))


def test_the_judge_finds_a_5xx_and_a_prediction_for_what_is_refused(tmp_path: Path) -> None:
    """The rule itself can be broken: by a model that fails, and by a server that reads less than it is sent."""
    broken = python_version(tmp_path, "class Model:\n def predict(self, inputs):\n  return inputs['missing']")
    broken.signature = SIGNATURE
    broken.settings = {"warmup": {"requests": 0}}
    body = json.dumps(valid(random.Random(1))).encode()
    found = Findings()
    with running(broken.write()) as replica:
        judge(replica, Case("fails", post(body), body), found)
    with start(tmp_path / "good") as replica:
        judge(replica, Case("accepted", post(body), body), found)
        assert len(found.wrong) == 1
        judge(replica, Case("wrongly accepted", post(body), refused=True), found)
        judge(replica, Case("wrongly refused", post(b"{}"), accepted=True), found)
    kinds = [words.partition(":")[0] for words in found.wrong]
    assert kinds == ["fails", "wrongly accepted", "wrongly refused"]


def test_every_kind_that_is_judged_has_right_and_wrong_ones() -> None:
    """A judgement that is always the same would be met by a server that refuses everything, or nothing."""
    seen: dict[str, set[bool]] = {}
    for case in cases(1, 3000):
        seen.setdefault(case.kind, set()).add(case.accepted)
    for kind in ("binary", "gRPC raw", "gRPC typed", "/v1/ documents", "/inv documents", "/inv csv"):
        assert seen[kind] == {True, False}, kind
