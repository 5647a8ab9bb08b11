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


def traffic(*items: dict[str, Any], **more: Any) -> Traffic:
    return Traffic.model_validate({"window": 30.0, "at": NOW, "items": list(items), **more})


def route(name: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    known = {"workspace": "default", "route": name, "phase": "Ready", "rules": list(rules)}
    figures = {"requestsPerSecond": 120.0, "errorShare": 0.0, "refusedShare": 0.03, "limitedPerSecond": 3.25}
    return {**known, **figures, "reportAge": 1.0, **more}


def rule(name: str, shadows: dict[str, float] | None = None, **variants: float) -> dict[str, Any]:
    def shares(given: dict[str, float]) -> list[dict[str, Any]]:
        return [{"deployment": key.replace("_", "-"), "weight": weight} for key, weight in given.items()]

    return {"rule": name, "variants": shares(variants), "shadows": shares(shadows or {})}


FRONT = route("front", rule("0", {"big": 25.0}, churn=90.0, churn_next=10.0))


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


def test_a_whole_name_is_itself_and_not_a_part_of_others() -> None:
    given = traffic(
        item("r10"), item("r1", workspace="blue"), item("r12"), routes=[route("r1"), route("r14")]
    )

    def found(match: str) -> list[str]:
        shown = view(given, [], match=match)
        return [row.cells[0] for row in (*shown.rows, *shown.routes.rows)]

    assert found("r1") == ["blue/r1", "default/r1"]
    assert found("blue/r1") == ["blue/r1"]
    assert found("r14") == ["default/r14"]
    assert found("1") == ["default/r10", "blue/r1", "default/r12", "default/r1", "default/r14"]


@pytest.mark.parametrize("width", [60, 100, 200])
def test_on_a_terminal_nothing_is_wider_than_it_and_nothing_can_move_its_cursor(width: int) -> None:
    hostile = item("churn", phase="Ready\x1b[2J")
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True)
    console.print(rendered(view(traffic(hostile, CANARY, routes=[FRONT]), []), "the server does not answer"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[2J" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    assert "the server does not answer" in text


def test_a_line_per_route_with_the_weights_of_its_variants() -> None:
    rules = route("many", rule("gold", big=100.0), rule("1", churn=50.0, big=50.0), limitedPerSecond=0.0)
    given = traffic(item("churn"), routes=[FRONT, rules])
    header, front, many = lines(view(given, []))[-3:]
    assert header.split() == ["ROUTE", "PHASE", "GOES", "TO", "REQ/S", "ERRORS", "REFUSED", "LIMITED"]
    assert " ".join(front.split()) == (
        "front Ready churn 90 %, churn-next 10 %; 25 % copied to big 120.0 0 % 3 % 3.25/s"
    )
    assert " ".join(many.split()) == "many Ready 2 rules 120.0 0 % 3 % 0"
    # Its rules only where it is asked for: a Route may have 64.
    assert lines(view(given, [], match="churn"))[-1] == many
    *_, many, gold, other = lines(view(given, [], match="many"))
    assert (gold.split(), " ".join(other.split())) == (["gold", "big"], "1 churn 50 %, big 50 %")


def test_copies_and_processor_time_have_columns_only_where_there_are_any() -> None:
    headers = [column.header for column in view(traffic(item("churn")), []).deployments.columns]
    assert not {"CPU", "COPIES/S"} & set(headers)
    shadow = item("big", copiesPerSecond=30.04)
    shown = view(traffic(item("churn", cpu=63.4), shadow, CANARY), []).deployments
    assert [column.header for column in shown.columns][-2:] == ["CPU", "COPIES/S"]
    assert [row.cells[-2:] for row in shown.rows[:2]] == [("63 %", "0.0"), ("", "30.0")]
    assert all(row.cells[-2:] == ("", "") for row in shown.rows if row.indented)


def test_quotas_say_how_much_is_used() -> None:
    quota = {"workspace": "team", "replicas": 12, "replicaLimit": 20, "memory": "24Gi", "memoryLimit": None}
    more = {**quota, "workspace": "blue", "replicas": 3, "replicaLimit": None, "memoryLimit": "16Gi"}
    text = lines(view(traffic(item("churn"), quotas=[quota, more]), []))
    assert text[2] == "quota of team: 12 of 20 replicas"
    assert "quota of blue: 24.0 GiB of 16.0 GiB memory (over)" in text[3]
    rules = {**more, "memoryLimit": None, "rules": 12, "ruleLimit": 40}
    text = lines(view(traffic(item("churn"), quotas=[rules, {**rules, "ruleLimit": 11}]), []))
    assert text[2:4] == ["quota of blue: 12 of 40 rules", "quota of blue: 12 of 11 rules (over)"]


def test_routes_are_found_by_their_own_name_and_by_that_of_their_deployments() -> None:
    other = route("other", rule("0", {"quiet": 100.0}, price=100.0), requestsPerSecond=900.0)
    both = traffic(item("churn"), item("price"), routes=[FRONT, other])

    def routes(match: str | None, sort: str = "name") -> list[str]:
        return [row.cells[0] for row in view(both, [], match=match, sort=sort).routes.rows]

    assert routes(None) == routes(None, "p95") == ["front", "other"]
    assert routes(None, "rate") == ["other", "front"]
    assert (routes("front"), routes("price"), routes("quiet"), routes("none")) == (
        ["front"], ["other"], ["other"], [],
    )  # fmt: skip


def test_at_80_columns_what_matters_most_is_there_whole() -> None:
    console = Console(file=io.StringIO(), width=80, color_system=None, force_terminal=True)
    deployments = [CANARY, QUIET, item("churn-next-large", cpu=50.0, copiesPerSecond=4.0)]
    console.print(rendered(view(traffic(*deployments, routes=[FRONT]), [gateway("gw-1", 0)])))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= 80
    head = next(line for line in text.splitlines() if line.startswith("DEPLOYMENT"))
    assert {"REQ/S", "ERRORS", "P95", "REPLICAS"} <= set(head.split())
    assert "SEEN" not in head
    assert "churn-next-large" in text
    assert "churn 90 %, churn-next 10 %" in text
    assert "3.25/s" in text
