"""Rollouts as they are stored: phases, what a newer server may have written, and that nothing is lost on the way."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from podium.resources.deployment import RolloutSettings
from podium.resources.kinds import KINDS
from podium.resources.rollout import FINAL_PHASES, RolloutPhase, RolloutSpec, RolloutStatus

SPEC = {
    "deployment": "churn", "deploymentUid": "d", "generation": 2, "stableRevision": "churn-00001",
    "candidateRevision": "churn-00002", "settings": {},
}  # fmt: skip
weights = st.lists(st.integers(1, 100), min_size=1, max_size=8, unique=True).map(sorted)
microseconds = st.integers(0, 86_400_000_000)


def test_the_phases_that_end_a_rollout_are_phases() -> None:
    assert set(get_args(RolloutPhase)) > FINAL_PHASES


def test_a_rollout_starts_with_no_traffic_and_nothing_decided() -> None:
    status = RolloutStatus()
    assert (status.phase, status.weight, status.step, status.loaded, status.decisions) == (
        "Pending",
        0,
        -1,
        False,
        [],
    )
    assert status.phase not in FINAL_PHASES


@pytest.mark.parametrize("wrong", [{"requested": "pause"}, {"cause": "whim"}, {"weight": 5}])
def test_a_wish_that_there_is_not_is_refused(wrong: dict[str, object]) -> None:
    assert RolloutSpec.model_validate(SPEC).cause == "apply"
    with pytest.raises(ValidationError):
        RolloutSpec.model_validate({**SPEC, **wrong})


@given(weights, microseconds, microseconds, st.sampled_from(["canary", "blueGreen", "recreate"]))
def test_what_is_stored_is_read_as_the_same_rollout(
    shares: list[int], length: int, keep: int, strategy: str
) -> None:
    """Every duration that can be applied, in every strategy, through the text that the store keeps."""
    wish: dict[str, object] = {"type": strategy}
    if strategy == "canary":
        wish |= {
            "steps": [{"weight": share, "duration": length / 10**6} for share in shares],
            "keepOld": keep / 10**6,
        }
    if strategy == "blueGreen":
        wish |= {"previewFor": length / 10**6, "observe": keep / 10**6}
    kind = KINDS["Rollout"]
    made = kind.parse({"metadata": {"name": "churn-2"}, "spec": {**SPEC, "settings": {"strategy": wish}}})
    again = kind.parse(made.document())
    assert again == made
    assert again.document() == made.document()


@given(weights)
def test_weights_rise_from_step_to_step(shares: list[int]) -> None:
    steps = [{"weight": share, "requests": 10} for share in shares]
    settings = RolloutSettings.model_validate({"strategy": {"type": "canary", "steps": steps}})
    taken = settings.model_dump(by_alias=True)["strategy"]["steps"]
    assert [step["weight"] for step in taken] == shares
    if len(steps) > 1:
        with pytest.raises(ValidationError, match="weights that rise from step to step"):
            RolloutSettings.model_validate({"strategy": {"type": "canary", "steps": steps[::-1]}})
