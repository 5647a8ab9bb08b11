"""What is off in the listener is switched on by routes that come first for some requests, and by a Route's own."""

import json
from pathlib import Path
from typing import Any

import pytest

from podium import __version__
from podium.gateway.admin import Admin
from podium.gateway.envoy_log import EnvoyLog
from podium.gateway.files import WatchedFiles
from podium.gateway.loader import Loader
from podium.gateway.render import adaptive, fallback, health, limits
from podium.gateway.render.clusters import cluster
from podium.gateway.render.document import document, fragment
from podium.gateway.render.entrance import alike, entrances
from podium.gateway.render.listener import listener
from podium.gateway.render.routes import entry_routes, has_own, route_table
from podium.gateway.render.weights import weights_document
from podium.gateway.settings import CLUSTERS, ROUTES, WEIGHTS, GatewaySettings
from tests.unit.gateway.test_render import arm, entry

NOTE, AGAIN = "podium.entrance.note", "podium.entrance.again"


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    made = GatewaySettings(home=tmp_path, name="g", server_url="http://127.0.0.1:1", port=1)
    made.layout.prepare()
    return made


def test_all_that_is_off_is_on_for_who_comes_by_an_entrance(settings: GatewaySettings) -> None:
    own = json.loads(listener(settings).content)["resources"][0]
    filters = own["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    off = {one["name"] for one in filters if one.get("disabled")}
    assert off >= {"podium.grpc.naming", "podium.v1", "podium.streams", limits.FILTER, fallback.FILTER}
    # Whoever comes in passes before anything that is not off looks at the route.
    names = [one["name"] for one in filters]
    assert names[names.index(NOTE) + 1] == AGAIN
    assert set(names[: names.index(NOTE)]) <= off
    for route in entrances():
        assert set(route["typed_per_filter_config"]) == off - set(health.ON)
        assert route["match"]["dynamic_metadata"][0]["invert"] is True
    table = json.loads(route_table([entry_routes(entry())], configured=True, version="0").content)
    routes = table["resources"][0]["virtual_hosts"][0]["routes"]
    assert routes[: len(entrances())] == entrances(), "before all others"


def test_the_rules_of_a_route_have_the_same_filters_on() -> None:
    limit, answer = limits.ON, {fallback.FILTER: {"answer": 1}}
    routes: list[dict[str, Any]] = [
        {"match": 1, "typed_per_filter_config": {**limit, "envoy.filters.http.buffer": {}}},
        {"match": 2, "typed_per_filter_config": answer},
        {"match": 3},
    ]
    first, second, third = (route["typed_per_filter_config"] for route in alike(routes))
    assert set(first) == {limits.FILTER, fallback.FILTER, "envoy.filters.http.buffer"}
    assert set(second) == set(third) == {limits.FILTER, fallback.FILTER}
    assert second[fallback.FILTER] == {"answer": 1}
    assert third == {**limit, **fallback.ON}
    adapts = {"match": 4, "typed_per_filter_config": {adaptive.FILTER: {}, adaptive.NOTE: {}}}
    assert alike([adapts, {"match": 5}])[1]["typed_per_filter_config"] == adaptive.ON
    assert alike([{"match": 6}]) == [{"match": 6}], "nothing where nothing is limited"


def test_the_table_of_a_version_before_gets_this_ones_own_routes(settings: GatewaySettings) -> None:
    """Without a server: the listener has filters that are off from now on."""
    files = WatchedFiles(settings.layout)
    now = route_table([entry_routes(entry())], configured=True, version="before")
    old = json.loads(now.content)["resources"][0]
    host = old["virtual_hosts"][0]
    host["routes"] = [
        route for route in host["routes"] if NOTE not in route.get("typed_per_filter_config", {})
    ]
    files.write(ROUTES, document([fragment(old)]))
    files.write(CLUSTERS, document([cluster(arm()), cluster(arm(role="direct", weight=0))]))
    files.write(WEIGHTS, weights_document({}))
    loader = Loader(settings, files, Admin(settings.layout.admin_socket), EnvoyLog(settings.layout.log))
    loader.adopt_files()
    found = files.read(ROUTES)
    assert found is not None
    routes = json.loads(found)["resources"][0]["virtual_hosts"][0]["routes"]
    assert routes[: len(entrances())] == entrances()
    kept = [route for route in host["routes"] if route.get("name", "").startswith("deployment:")]
    assert kept and [route for route in routes if route in kept] == kept
    # Once is enough: an agent that starts beside a running Envoy changes nothing.
    assert has_own(found, configured=True, version=__version__)
