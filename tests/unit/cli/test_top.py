"""`podium top`: what the API says of the traffic, as rows and on a terminal."""

import datetime
import io
from typing import Any

import pytest
from rich.console import Console

from podium.cli.top import SORTS, lines, rendered, view
from podium.resources.load import Traffic

NOW = datetime.datetime.now(datetime.UTC)


def figures(**more: Any) -> dict[str, Any]:
    return {
        "requestsPerSecond": 812.4, "errorShare": 0.0012, "refusedShare": 0.0, "p50": 0.0041, "p95": 0.0123,
        "p99": 1.31,
        "concurrency": 3.4, "readyReplicas": 4, "wantedReplicas": 5, "reportAge": 1.3, **more,
    }  # fmt: skip


NOTHING = figures(
    requestsPerSecond=0.0, errorShare=None, refusedShare=None, p50=None, p95=None, p99=None, concurrency=0.0
)


def revision(name: str, role: str, weight: float, **more: Any) -> dict[str, Any]:
    return figures(revision=name, version="3", role=role, weight=weight, sleeping=False, **more)


def item(name: str, *, workspace: str = "default", revisions: Any = (), **more: Any) -> dict[str, Any]:
    known = {
        "workspace": workspace,
        "deployment": name,
        "phase": "Ready",
        "gateways": ["gw-1"],
        "scaling": None,
    }
    return figures(**{**known, "revisions": list(revisions), **more})


def traffic(*items: dict[str, Any]) -> Traffic:
    return Traffic.model_validate({"window": 30.0, "at": NOW, "items": list(items)})


CANARY = item(
    "churn",
    phase="Progressing",
    revisions=[
        revision("churn-00001", "stable", 90.0),
        revision("churn-00002", "candidate", 10.0, errorShare=0.25),
        revision("churn-00000", "retiring", 0.0, wantedReplicas=0),
    ],
)
QUIET = item("quiet", **{**NOTHING, "reportAge": None, "readyReplicas": 0, "wantedReplicas": 0})


def gateway(name: str, ago: float) -> dict[str, Any]:
    return {"name": name, "seenAt": (NOW - datetime.timedelta(seconds=ago)).isoformat()}


def test_a_line_per_deployment_and_for_each_revision_that_shares_the_traffic() -> None:
    text = lines(view(traffic(CANARY, QUIET), [gateway("gw-1", 0)]))
    assert text[0] == "2 deployments, 812.4 requests/s over the last 30 s"
    assert text[1] == "gateways: gw-1"
    header, churn, stable, candidate, quiet = text[3:]
    assert header.split()[:4] == ["DEPLOYMENT", "PHASE", "WEIGHT", "REQ/S"]
    assert " ".join(churn.split()) == "churn Progressing 812.4 0.12 % 0 % 4.1 ms 12.3 ms 1.31 s 3.4 4/5 1s"
    assert stable.split()[:5] == ["churn-00001", "stable,", "v3", "90", "%"]
    assert "25 %" in candidate
    assert " ".join(quiet.split()) == "quiet Ready 0.0 - - - - - 0.0 0/0 never (stale)"


def test_one_revision_alone_needs_no_line_and_one_asleep_says_so() -> None:
    alone = item("churn", revisions=[revision("churn-00001", "stable", 100.0)])
    assert len(view(traffic(alone), []).rows) == 1
    both = [revision("a-1", "stable", 100.0) | {"sleeping": True}, revision("a-2", "candidate", 0.0)]
    assert view(traffic(item("a", revisions=both)), []).rows[1].cells[10] == "asleep"


def test_silent_gateways_and_old_figures_are_marked() -> None:
    shown = view(traffic(item("churn", reportAge=42.0)), [gateway("gw-1", 0), gateway("gw-2", 42)])
    assert shown.gateways == "gateways: gw-1, gw-2 (silent for 42s)"
    assert shown.warnings == [
        "gateway gw-2 has been silent for 42s: what it passes on is not in these figures"
    ]
    assert shown.rows[0].stale
    assert lines(shown)[-1].endswith("42s  (stale)")
    assert view(traffic(), []).gateways == "gateways: none reports"
    assert lines(view(traffic(), []))[-1] == "no deployments"


@pytest.mark.parametrize("sort", SORTS)
def test_sorting_puts_the_highest_first_and_what_is_unknown_last(sort: str) -> None:
    high = item("b", requestsPerSecond=900.0, errorShare=0.5, refusedShare=0.5, p50=9.0, p95=9.0, p99=9.0,
                concurrency=9.0, readyReplicas=9)  # fmt: skip
    found = [row.cells[0] for row in view(traffic(item("a"), high, QUIET), [], sort=sort).rows]
    assert found == (["a", "b", "quiet"] if sort == "name" else ["b", "a", "quiet"])


@pytest.mark.parametrize(
    ("match", "names"),
    [
        (None, ["blue/other", "default/churn"]),
        ("chu", ["default/churn"]),
        ("blue/*", ["blue/other"]),
        ("*r*", ["blue/other", "default/churn"]),
        ("churn*", ["default/churn"]),
        ("none", []),
    ],
)
def test_filtering_by_name(match: str | None, names: list[str]) -> None:
    both = traffic(item("other", workspace="blue"), item("churn"))
    assert [row.cells[0] for row in view(both, [], match=match).rows] == names


@pytest.mark.parametrize("width", [60, 100, 200])
def test_on_a_terminal_nothing_is_wider_than_it_and_nothing_can_move_its_cursor(width: int) -> None:
    hostile = item("churn", phase="Ready\x1b[2J")
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True)
    console.print(rendered(view(traffic(hostile, CANARY), []), "the server does not answer"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[2J" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    assert "the server does not answer" in text
