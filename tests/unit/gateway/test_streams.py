"""Whose streams the gateway holds to the time in which an answer has to begin."""

import json
from dataclasses import replace

from podium.gateway.render.routes import REPEATED, entry_routes
from podium.planning.routing import ServerPaths
from tests.unit.gateway.test_render import arm, entry


def test_streams_of_other_servers_have_to_begin_in_time() -> None:
    own = entry()
    other = replace(own, live=(replace(arm(), paths=ServerPaths("/v2/models/churn", "1", "")),))
    for wish, expected in ((own, None), (other, {"per_try_timeout": "30.000s", **REPEATED})):
        [route] = [json.loads(one)["route"] for one in entry_routes(replace(wish, direct=None)).main]
        assert route.get("retry_policy") == expected
