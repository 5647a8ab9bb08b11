"""apply and diff of Routes: what is waited for, what the exit code says, and what is told of a change."""

import datetime
from collections.abc import Iterator

import pytest
import yaml

from podium.control.loop import ControlLoop
from podium.control.routes import RouteReconciler
from podium.store import GatewayRow
from tests.integration.api.server import TESTER, ApiServer, deployment
from tests.integration.api.test_routes import route
from tests.integration.cli.conftest import Podium

LOADS_ALL = 2**50


@pytest.fixture
def running(churn: ApiServer) -> Iterator[ApiServer]:
    """With the reconciler of Routes, a gateway that has always loaded everything, and `small`, which is served."""
    churn.store.report_gateway(
        GatewayRow("g1", datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1), LOADS_ALL, [], {})
    )
    small = churn.create(deployment("small"))
    with churn.store.write(TESTER) as tx:
        tx.set_status(small.uid, small.status.model_copy(update={"phase": "Ready"}))
    loop = ControlLoop(churn.store, [RouteReconciler(churn.store)], worker="test")
    loop.start()
    yield churn
    loop.stop()


def test_a_misspelt_deployment_is_refused_and_the_exit_code_says_so(podium: Podium, churn: ApiServer) -> None:
    text = yaml.safe_dump_all([route("front", {"to": "smal"}), deployment("small")])
    told = podium("apply", "-f", "-", "--wait", stdin=text, code=1)
    assert "Deployment small created" in told.out
    words = "spec.rules[0].to[0].deployment: there is no deployment smal in workspace default; known: small"
    assert words in told.err
    assert podium("get", "routes", "-o", "json").json() == {"items": []}


def test_a_deployment_of_the_same_files_comes_first_and_counts_for_diff_too(
    podium: Podium, churn: ApiServer
) -> None:
    text = yaml.safe_dump_all([route("front", {"to": "small"}), deployment("small")])
    for command in (("diff",), ("apply", "--dry-run")):
        lines = podium(*command, "-f", "-", stdin=text).out.splitlines()
        assert [line for line in lines if "would be" in line] == [
            "Deployment small would be created",
            "Route front would be created",
        ]
    assert podium("apply", "-f", "-", stdin=text).out.count("created") == 2


def test_a_route_that_lacks_something_is_no_success(podium: Podium, running: ApiServer) -> None:
    fine = yaml.safe_dump(route("fine", {"to": "small"}))
    told = podium("apply", "-f", "-", "--wait", "--timeout", "60s", stdin=fine)
    assert "Route fine is in force at every gateway" in told.err
    # As a Route from before an apply asked whether its Deployments are there.
    lacks = route("lacks", {"to": "small", "fallback": {"deployments": ["gone"]}})
    running.create(lacks)
    again = yaml.safe_dump(lacks)
    told = podium("apply", "-f", "-", "--wait", "--timeout", "60s", "-o", "json", stdin=again, code=13)
    assert "Route lacks is in force, but lacks something: gone does not exist" in told.err
    [item] = told.json()["items"]
    assert item["outcome"]["outcome"] == "degraded"


def test_diff_of_a_route_is_told_rule_by_rule_with_whose_users_move(podium: Podium, churn: ApiServer) -> None:
    def experiment(**shares: int) -> str:
        to = [{"deployment": name, "weight": weight} for name, weight in shares.items()]
        rule = {"name": "users", "to": to, "sticky": {"header": "x-user"}}
        return yaml.safe_dump(route("one", {"match": {"path": "/infer"}, "to": "one"}, rule))

    for name in ("one", "two", "three"):
        churn.create(deployment(name))
    told = podium("diff", "-f", "-", stdin=experiment(one=60, two=20, three=20))
    assert told.out.splitlines() == [
        "Route one would be created",
        "  Rule 0: to one.",
        "  Rule users: 60 % to one, 20 % to two, 20 % to three, by header x-user.",
        "  It takes over the path of Deployment one.",
        "  + spec.rules[0].to[one].weight: 100",
        '  + spec.rules[0].match.path.exact: "/infer"',
        '  + spec.rules[users].name: "users"',
        "  + spec.rules[users].to[one].weight: 60",
        "  + spec.rules[users].to[two].weight: 20",
        "  + spec.rules[users].to[three].weight: 20",
        '  + spec.rules[users].sticky.header: "x-user"',
    ]
    podium("apply", "-f", "-", stdin=experiment(one=60, two=20, three=20))
    told = podium("diff", "-f", "-", stdin=experiment(one=80, three=20))
    assert told.out.splitlines() == [
        "Route one would be updated",
        "  Rule users: 80 % to one, 20 % to three, by header x-user.",
        "  Rule users: all of the users of two move to three.",
        "  Rule users: all of the users of three move to one, though its share goes from 20 to 20 %.",
        "  Rule users: places depend on the number and order of the variants: leave the list as it is, "
        "and end one by weight 0.",
        "  ~ spec.rules[users].to[one].weight: 60 -> 80",
        "  - spec.rules[users].to[two].weight: 20",
    ]
    assert "no user changes" not in told.out
