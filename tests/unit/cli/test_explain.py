"""`podium rollout explain`: what is said of a rollout is what its decisions hold."""

import datetime
from typing import Any

import pytest

from podium.cli.explain import decision_lines, explanation, figure, finding_lines, print_explanation
from podium.resources.kinds import KINDS

START = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def at(seconds: float) -> str:
    return (START + datetime.timedelta(seconds=seconds)).isoformat()


def evidence(*windows: tuple[float, int, int, int, int], findings: Any = ()) -> dict[str, Any]:
    """Windows of (share, stable requests, stable bad, candidate requests, candidate bad)."""
    rows = [
        {"rho": rho, "stable": {"total": a, "bad": b}, "candidate": {"total": c, "bad": d, "gave_up": 1}}
        for rho, a, b, c, d in windows
    ]
    return {"analysis": {"windows": rows}, "verdict": {"decision": "x", "findings": list(findings)}}


STEPS = [{"weight": 10, "duration": "60s"}, {"weight": 50, "requests": 1000}]


def rollout(
    decisions: list[dict[str, Any]], phase: str, strategy: dict[str, Any] | None = None, **status: Any
) -> Any:
    settings = {"strategy": strategy or {"type": "canary", "steps": STEPS}}
    return KINDS["Rollout"].parse(
        {
            "metadata": {"name": "churn-2"},
            "spec": {
                "deployment": "churn", "deploymentUid": "u", "generation": 2, "stableRevision": "churn-00001",
                "candidateRevision": "churn-00002", "settings": settings, "cause": "alias",
            },
            "status": {"phase": phase, "startedAt": at(0), "decisions": decisions, **status},
        }
    )  # fmt: skip


def decision(seconds: float, name: str, step: int, weight: int, **more: Any) -> dict[str, Any]:
    return {
        "at": at(seconds),
        "decision": name,
        "step": step,
        "weight": weight,
        "reason": f"why {name}",
        **more,
    }


PROMOTED = [
    decision(1, "start", -1, 0),
    decision(61, "continue", 0, 10, repeated=7),
    decision(62, "advance", 0, 10, evidence=evidence((0.1, 900, 3, 100, 1))),
    decision(
        100,
        "promote",
        1,
        50,
        evidence=evidence((0.1, 900, 3, 100, 1), (0.5, 500, 2, 498, 0), (0.5, 1, 0, 2, 0)),
    ),
]


def test_steps_have_their_times_and_both_arms() -> None:
    told = explanation(rollout(PROMOTED, "Promoted", finishedAt=at(100.4), verdictAt=at(100)))
    first, second = told.steps
    assert (first.number, first.weight, first.wanted, first.seconds) == (1, 10, "10 % for 60 s", 61.0)
    assert (first.candidate.requests, first.candidate.failed) == (100, 2)
    assert (first.stable.requests, first.stable.failed) == (900, 3)
    assert (second.wanted, second.seconds) == ("50 % for 1,000 requests", 38.0)
    assert (second.candidate.requests, second.candidate.failed) == (500, 2)
    assert told.ending == (
        "churn-00002 was promoted after 100 s and takes all traffic; "
        "from the verdict until every gateway had it loaded 0.4 s"
    )
    assert "because the alias was moved" in told.passage
    assert told.document()["decisions"][1]["repeated"] == 7


def test_a_step_that_was_never_reached_is_not_told() -> None:
    told = explanation(rollout(PROMOTED[:2], "Progressing", weight=10, message="going on"))
    assert [step.number for step in told.steps] == [1]
    assert told.steps[0].seconds is None
    assert told.steps[0].candidate is None
    assert told.ending == "It has not ended: Progressing, 10 % on the candidate. going on"


def test_copies_come_before_the_steps_and_are_counted_apart(capsys: pytest.CaptureFixture[str]) -> None:
    copied = evidence((0.5, 600, 0, 600, 3))
    copied["analysis"]["settings"] = {"assignment": "copy"}
    decisions = [
        decision(1, "start", -1, 0),
        decision(31, "advance", -1, 0, evidence=copied),
        decision(91, "advance", 0, 10, evidence=evidence((0.1, 900, 3, 100, 1))),
    ]
    strategy = {"type": "shadow", "requests": 500, "steps": STEPS}
    made = rollout(decisions, "Progressing", strategy, weight=50, copies=600, copiesBad=4)
    print_explanation(explanation(made))
    out = capsys.readouterr().out
    assert "copies of 100 % of the requests, 500 of them: took 30 s, candidate 4 failed of 600" in out
    assert "step 1, 10 % for 60 s: took 60 s, candidate 2 failed of 100" in out
    assert "step 2, 50 % for 1,000 requests: under way\n" in out


def test_a_test_is_one_step_with_an_end() -> None:
    strategy = {"type": "abTest", "weight": 30, "requests": 1000, "duration": "2h"}
    told = explanation(rollout([decision(1, "start", -1, 0)], "Progressing", strategy, weight=30))
    assert [step.wanted for step in told.steps] == [
        "30 % until each arm has had 1,000 requests or 2h have passed"
    ]


def test_it_prints_whatever_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_explanation(explanation(rollout([], "Pending")))
    assert "No decision was taken yet." in capsys.readouterr().out
    print_explanation(explanation(rollout(PROMOTED, "Superseded", finishedAt=at(101))))
    out = capsys.readouterr().out
    assert "continue (and 6 times before): why continue" in out
    assert "it was superseded by a newer wish after 101 s" in out
    assert "step 1, 10 % for 60 s: took 61 s, candidate 2 failed of 100, stable 3 failed of 900" in out


def test_a_replay_that_differs_is_said_by_the_number_of_the_decision() -> None:
    made = rollout(PROMOTED, "Promoted", finishedAt=at(101))
    replayed = [{"decision": 2, "same": True}, {"decision": 3, "same": False}]
    assert "does NOT give the same verdict for decision 4" in explanation(made, replayed).replay_words
    assert explanation(made, replayed[:1]).replay_words.endswith("gives the same verdict (1 of 1)")
    assert explanation(made).replay_words == ""


def test_a_finding_in_figures_and_in_words() -> None:
    finding = {
        "metric": "error_rate", "state": "worse", "words": "30 of 40 failed", "e_value": 4.86e18, "e_needed": 40.0,
        "bound": 0.0195, "margin": 0.02,
    }  # fmt: skip
    assert finding_lines(finding) == [
        "errors: worse; E-value 4.86e+18 of 40 needed; difference below 1.95 %, margin 2 %",
        "  30 of 40 failed",
    ]
    assert finding_lines({"metric": "limit:slow_rate", "state": "open"}) == [
        "limit on slow rate: not decided"
    ]
    assert finding_lines({"metric": "new\x1b[2Jthing", "state": "odd"}) == [
        "new\N{REPLACEMENT CHARACTER}[2Jthing: odd"
    ]


def test_a_decision_of_a_person_names_them() -> None:
    made = rollout([decision(1, "rollback", 0, 10, actor="ada")], "RolledBack", finishedAt=at(2))
    [line] = decision_lines(made.status.decisions[0])
    assert "rollback by ada: why rollback" in line


@pytest.mark.parametrize(
    ("value", "text"), [(0.9123, "0.912"), (40.0, "40"), (1000.0, "1,000"), (1.2e9, "1.2e+09")]
)
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text
