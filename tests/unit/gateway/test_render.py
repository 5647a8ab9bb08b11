"""Rendering is pure: the same wish gives the same bytes, and whatever a Deployment may be, Envoy takes it."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podium.gateway.binary import find_binary
from podium.gateway.fleet import Wish
from podium.gateway.loader import Piece, rendered
from podium.gateway.render.access import AccessRules, access, chosen_by_caller, revoked, tokens
from podium.gateway.render.adaptive import adaptive_document
from podium.gateway.render.bootstrap import bootstrap
from podium.gateway.render.clusters import cluster
from podium.gateway.render.document import document, fragment
from podium.gateway.render.grpc import SERVICE
from podium.gateway.render.limits import limits_document, together
from podium.gateway.render.listener import listener
from podium.gateway.render.read_back import clusters_of, entries_of, is_configured, resources_of
from podium.gateway.render.routes import DEFAULT_MAX_BODY, entry_routes, route_table
from podium.gateway.render.weights import over, read_weights, weights_document, weights_of
from podium.gateway.settings import GatewaySettings
from podium.planning.routing import WHOLE, Arm, RouteEntry
from podium.resources.errors import InvalidInput

JWKS = {
    "keys": [
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "kid": "k",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        }
    ]
}


def arm(
    revision: str = "churn-00001", role: Any = "live", weight: int = WHOLE, workspace: str = "default"
) -> Arm:
    return Arm(
        workspace, revision, revision.rsplit("-", 1)[1].lstrip("0"), role, weight, ("unix:/tmp/a.sock",)
    )


def entry(**changes: Any) -> RouteEntry:
    made = RouteEntry(
        workspace="default", deployment="churn", uid="u", live=(arm(),), preview=None, preview_header=None,
        direct=arm(role="direct", weight=0), timeout=30.0, idempotent=True, max_body=DEFAULT_MAX_BODY, unavailable="",
    )  # fmt: skip
    return replace(made, **changes)


def routes_of(wish: RouteEntry, split: tuple[Arm, ...] = ()) -> list[dict[str, Any]]:
    rendered = entry_routes(wish, split)
    return [json.loads(route) for route in (*rendered.pinned, *rendered.main)]


def test_a_shift_of_weights_changes_neither_routes_nor_clusters() -> None:
    def at(weight: int) -> Piece:
        split = (arm(weight=WHOLE - weight), arm("churn-00002", weight=weight))
        return rendered(Wish(entry(live=tuple(one for one in split if one.weight)), split))

    pieces = [at(weight) for weight in (0, 1000, 5000, WHOLE)]
    assert len({piece.routes for piece in pieces}) == 1
    assert all(piece.clusters == pieces[0].clusters for piece in pieces)
    assert [piece.weights["split.default_churn.default_churn-00002_live"] for piece in pieces] == [
        0,
        1000,
        5000,
        WHOLE,
    ]


def test_without_weights_all_traffic_is_the_stable_revisions() -> None:
    split = (arm(weight=5000), arm("churn-00002", weight=5000))
    [_, main] = routes_of(entry(live=split), split)
    assert [(one["name"], one["weight"]) for one in main["route"]["weighted_clusters"]["clusters"]] == [
        ("default_churn-00001_live", WHOLE),
        ("default_churn-00002_live", 0),
    ]


def test_a_closed_path_leads_nowhere_and_is_read_back() -> None:
    preview = arm("churn-00002", role="preview", weight=0)
    made = entry_routes(entry(own_path=False, preview=preview, preview_header="x-podium-preview"))
    assert clusters_of(made) == set()
    assert [json.loads(one)["direct_response"]["status"] for one in (*made.pinned, *made.main)] == [404, 404]
    table = route_table([made], configured=True, version="1").content
    assert entries_of(table) == {("default", "churn"): made}


def test_not_repeatable_requests_are_not_repeated_once_sent() -> None:
    [_, main] = routes_of(entry(idempotent=False))
    assert main["route"]["retry_policy"]["retry_on"] == "connect-failure,refused-stream,reset-before-request"
    [_, main] = routes_of(entry())
    assert "retry_policy" not in main["route"]
    table = json.loads(route_table([], configured=True, version="1").content)
    shared = table["resources"][0]["virtual_hosts"][0]["retry_policy"]["retry_on"].split(",")
    assert "reset" in shared
    assert not {"5xx", "gateway-error", "retriable-4xx", "retriable-status-codes"} & set(shared)


def test_long_requests_are_not_cut_by_the_stream_limit() -> None:
    [_, main] = routes_of(entry(timeout=3600.0))
    assert main["route"]["timeout"] == "3600.000s"
    assert main["route"]["idle_timeout"] == "3660.000s"


def test_calls_take_the_routes_that_requests_take(tmp_path: Path) -> None:
    """Nothing in a table names gRPC, and a rewritten path leaves that of a call alone."""
    for workspace in ("default", "team"):
        found = routes_of(entry(workspace=workspace, preview=arm(role="preview"), preview_header="x-try"))
        assert len(found) == 3
        assert b"grpc" not in fragment(found).lower()
        for route in found:
            rewrite = route["route"].get("regex_rewrite")
            assert (rewrite is not None) == (workspace == "team")
            assert "prefix_rewrite" not in route["route"]
            if rewrite is None:
                continue
            prefix, replaced = re.compile(rewrite["pattern"]["regex"]), rewrite["substitution"]
            assert prefix.sub(replaced, "/ws/team/v2/models/churn/infer") == "/v2/models/churn/infer"
            assert prefix.sub(replaced, f"/{SERVICE}/ModelInfer") == f"/{SERVICE}/ModelInfer"
    filters = _manager_of(GatewaySettings(home=tmp_path, name="g", server_url="http://s", port=1))[
        "http_filters"
    ]
    names = [item["name"] for item in filters]
    # Before the tokens are looked at, the path says which Deployment a call is for; no message is read before that.
    assert names == [
        "envoy.filters.http.health_check", "podium.entrance.note", "podium.entrance.again", "podium.grpc.naming",
        "podium.v1",
        "podium.streams", "podium.tokens", "podium.place", "podium.revoked",
        "podium.access", "envoy.filters.http.custom_response", "envoy.filters.http.buffer", "podium.limits",
        "podium.variant", "podium.variant.again", "podium.adaptive.note", "podium.adaptive",
        "envoy.filters.http.grpc_http1_reverse_bridge", "podium.grpc.bridging",
        "envoy.filters.http.router",
    ]  # fmt: skip


def _manager_of(settings: GatewaySettings) -> dict[str, Any]:
    static = json.loads(listener(settings).content)["resources"][0]
    manager: dict[str, Any] = static["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def test_clusters_do_not_know_the_weight_and_check_addresses() -> None:
    assert cluster(arm(weight=1)) == cluster(arm(weight=9999))
    for address in ("http://10.0.0.1:80", "http://[::1]:80/", "http://host.name:8080", "unix:/x"):
        cluster(replace(arm(), endpoints=(address,)))
    for address in (
        "",
        "ftp://a:1",
        "http://a",
        "https://a:1",
        "unix:relative",
        "http://a:1/path",
        "http://a:99999",
        "/x",
    ):
        with pytest.raises(InvalidInput) as caught:
            cluster(replace(arm(), endpoints=(address,)))
        assert caught.value.issues[0].field == "address"


def test_names_resolve_and_addresses_do_not() -> None:
    assert json.loads(cluster(replace(arm(), endpoints=("http://a.b:1",))))["type"] == "STRICT_DNS"
    assert json.loads(cluster(replace(arm(), endpoints=("http://1.2.3.4:1", "unix:/x"))))["type"] == "STATIC"


def test_versions_are_hashes_of_the_content() -> None:
    first, second = document([b'{"a":1}']), document([b'{"a":2}'])
    assert first == document([b'{"a":1}'])
    assert first.version != second.version
    assert json.loads(first.content)["versionInfo"] == first.version


def test_weights_over_a_change_of_arms() -> None:
    # A goes on: B, which is only in the old routes, gets nothing any more.
    assert over({"A": 5000, "B": 5000}, {"A": WHOLE, "C": 0}) == {"A": WHOLE, "B": 0, "C": 0}
    # None of the old arms goes on: the old routes keep their shares until they are gone.
    assert over({"A": 0, "B": WHOLE}, {}) == {"A": 0, "B": WHOLE}
    assert over({"A": 0, "B": WHOLE}, {"C": WHOLE}) == {"A": 0, "B": WHOLE, "C": WHOLE}
    assert over({}, {"A": 1}) == {"A": 1}


@given(st.dictionaries(st.from_regex(r"split\.[a-z_.]{1,20}", fullmatch=True), st.integers(0, WHOLE)))
def test_weights_are_read_back(weights: dict[str, int]) -> None:
    assert read_weights(weights_document(weights).content) == weights


def test_public_keys_only() -> None:
    good = {"jwks": JWKS, "issuer": "podium", "tokensRequired": True, "revoked": ["b", "a"]}
    rules = AccessRules.parse(good)
    assert rules.revoked == ("a", "b")
    private = {"keys": [JWKS["keys"][0] | {"d": "secret"}]}
    for wrong in (
        {**good, "jwks": private}, {**good, "jwks": {"keys": []}},
        {**good, "jwks": {"keys": [{"kty": "oct", "k": "x"}]}},
        {**good, "revoked": None}, {**good, "tokensRequired": "yes"}, {}, None, [],
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            AccessRules.parse(wrong)


def test_a_second_look_for_routes_only_where_who_calls_decides() -> None:
    match, action = {"path_separated_prefix": "/v2/models/x"}, {"cluster": "c"}
    by_header = {"header": {"header_name": "x-podium-caller"}}
    claims = {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "podium"}, {"key": "sub"}]}
    limit = {"actions": [{"request_headers": {"header_name": "x-podium-caller", "descriptor_key": "c"}}]}
    for route, chosen in (
        ({"match": match, "route": action}, False),
        # A limit by caller looks at the request, not for the route.
        ({"match": match, "route": {**action, "rate_limits": [limit]}}, False),
        ({"match": match, "route": {**action, "hash_policy": [by_header]}}, True),
        ({"match": {**match, "dynamic_metadata": [claims]}, "direct_response": {"status": 404}}, True),
    ):
        assert chosen_by_caller(fragment(route)) is chosen
    rules = AccessRules.parse({"jwks": JWKS, "issuer": "podium", "tokensRequired": True, "revoked": []})
    assert b'"clear_route_cache":true' in tokens(rules, choosing=True).content
    assert b'"clear_route_cache":true' not in tokens(rules, choosing=False).content


def test_tokens_that_were_rotated_are_policies_of_their_own() -> None:
    said = {"jwks": JWKS, "issuer": "podium", "tokensRequired": True, "revoked": ["a"]}
    rules = AccessRules.parse({**said, "retiring": [{"id": "b", "at": "2030-01-02T03:04:05.6+01:00"}]})
    config = json.loads(revoked(rules).content)["resources"][0]["typed_config"]["rules"]
    assert config["action"] == "DENY"
    assert set(config["policies"]) == {"revoked", "revoked since b"}
    assert b'"timestamp_value":"2030-01-02T02:04:05Z"' in revoked(rules).content
    # Envoy takes a choice of two and more only.
    assert config["policies"]["revoked"]["principals"] == [_jti({"string_match": {"exact": "a"}})]
    more = AccessRules.parse({**said, "revoked": ["c", "a"]})
    policies = json.loads(revoked(more).content)["resources"][0]["typed_config"]["rules"]["policies"]
    either = [{"string_match": {"exact": name}} for name in ("a", "c")]
    assert policies["revoked"]["principals"] == [_jti({"or_match": {"value_matchers": either}})]
    # Where no token was taken back there is nothing to ask.
    nobody = json.loads(revoked(AccessRules.parse({**said, "revoked": []})).content)
    assert set(nobody["resources"][0]["typed_config"]) == {"@type"}
    # A server of before says nothing of it, and rules do not grow with scopes in use.
    assert AccessRules.parse(said).retiring == ()
    assert (
        len(json.loads(access(rules, []).content)["resources"][0]["typed_config"]["rules"]["policies"]) == 5
    )


def test_the_commonest_tokens_are_asked_about_first() -> None:
    """Envoy sorts policies by name and stops at the first that says yes."""
    said = {"jwks": JWKS, "issuer": "podium", "tokensRequired": True, "revoked": []}
    content = access(AccessRules.parse(said), ["team", "default", "all"]).content
    names = sorted(json.loads(content)["resources"][0]["typed_config"]["rules"]["policies"])
    assert names[0].endswith("workspace default")
    assert [name.split(" ", 1)[1] for name in names[-2:]] == ["workspace all", "workspace team"]


def test_nothing_is_counted_by_caller_where_nobody_can_ask(tmp_path: Path) -> None:
    given_settings = GatewaySettings(home=tmp_path, name="g1", server_url="http://127.0.0.1:1", port=1)
    own = listener(given_settings).content
    assert b"podium.callers" not in own
    assert b"podium.routes" in own, "what came to each Route is told to the server"
    asked = listener(replace(given_settings, metrics_port=9464)).content
    assert b"podium.callers" in asked
    assert b"podium.routes" in asked


def _jti(value: dict[str, Any]) -> dict[str, Any]:
    path = [{"key": "podium"}, {"key": "jti"}]
    found = {"filter": "envoy.filters.http.jwt_authn", "path": path, "value": value}
    return {"sourced_metadata": {"metadata_matcher": found}}


NAME = st.from_regex(r"[a-z]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
ENDPOINT = st.one_of(
    st.from_regex(r"unix:/[a-z0-9/._-]{1,60}", fullmatch=True),
    st.builds(lambda port: f"http://127.0.0.1:{port}", st.integers(1, 65535)),
)


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    """Whatever specs and statuses allow."""
    workspace, name = draw(st.one_of(st.just("default"), NAME)), draw(NAME)

    def one(number: int, role: Any, weight: int) -> Arm:
        endpoints = tuple(draw(st.lists(ENDPOINT, min_size=1, max_size=3, unique=True)))
        return Arm(workspace, f"{name}-{number:05d}", str(number), role, weight, endpoints)

    shape = draw(st.sampled_from(["single", "split", "off"]))
    share = draw(st.integers(1, WHOLE - 1))
    split: tuple[Arm, ...] = ()
    live: tuple[Arm, ...] = ()
    if shape == "split":
        live = split = (one(1, "live", WHOLE - share), one(2, "live", share))
    elif shape == "single":
        live = (one(1, "live", WHOLE),)
    header = draw(st.from_regex(r"[a-z0-9][-a-z0-9_]{0,63}", fullmatch=True)) if draw(st.booleans()) else None
    made = RouteEntry(
        workspace=workspace,
        deployment=name,
        uid="u",
        live=live,
        preview=one(2, "preview", 0) if header else None,
        preview_header=header,
        direct=one(1, "direct", 0) if live else None,
        timeout=draw(st.floats(0.05, 3600)),
        idempotent=draw(st.booleans()),
        max_body=draw(st.integers(1024, 2**30)),
        unavailable="" if live else draw(st.text(max_size=80)),
        own_path=draw(st.booleans()),
    )
    return Wish(made, split)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=st.lists(
        wishes(), max_size=6, unique_by=lambda wish: (wish.entry.workspace, wish.entry.deployment)
    ),
    gone=st.lists(st.sampled_from(["x", "y", "z"]), max_size=3, unique=True),
)
def test_envoy_takes_whatever_specs_allow(tmp_path: Path, found: list[Wish], gone: list[str]) -> None:
    pieces = [rendered(wish) for wish in found]
    rules = AccessRules.parse(
        {
            "jwks": JWKS,
            "issuer": "podium",
            "tokensRequired": True,
            "revoked": gone,
            "retiring": [{"id": "w", "at": "2030-01-01T00:00:00Z"}],
        }
    )
    given_settings = GatewaySettings(home=tmp_path, name="g", server_url="http://s", port=1)
    table = json.loads(route_table((piece.routes for piece in pieces), configured=True, version="1").content)
    static = json.loads(listener(given_settings).content)["resources"][0]
    manager = static["filter_chains"][0]["filters"][0]["typed_config"]
    # Validation reads no watched files: what would come from them is put in its place.
    del manager["rds"]
    manager["route_config"] = {key: value for key, value in table["resources"][0].items() if key != "@type"}
    delivered = {
        config["name"]: config["typed_config"]
        for content in (
            tokens(rules),
            revoked(rules),
            access(rules, [wish.entry.workspace for wish in found]),
            limits_document(together(piece.buckets for piece in pieces)),
            adaptive_document({name: one for piece in pieces for name, one in piece.controllers.items()}),
        )
        for config in json.loads(content.content)["resources"]
    }
    manager["http_filters"] = [
        {"name": item["name"], "typed_config": delivered[item["name"]]}
        if "config_discovery" in item
        else item
        for item in manager["http_filters"]
    ]
    static.pop("@type")
    clusters = {name: json.loads(content) for piece in pieces for name, content in piece.clusters.items()}
    for one in clusters.values():
        one.pop("@type")
    config = json.loads(bootstrap(given_settings))
    del config["dynamic_resources"]
    weights = {key: weight for piece in pieces for key, weight in piece.weights.items()}
    layer = json.loads(weights_document(weights).content)["resources"][0]["layer"]
    config["layered_runtime"] = {"layers": [{"name": "weights", "static_layer": layer}]}
    config["static_resources"] = {"listeners": [static], "clusters": list(clusters.values())}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    done = subprocess.run(
        [find_binary().path, "-c", path, "--mode", "validate", "-l", "warning"],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    _is_read_back(table, found, pieces)


def _is_read_back(table: Any, found: list[Wish], pieces: list[Any]) -> None:
    """The next agent reads the same out of the files."""
    read = entries_of(json.dumps(table).encode())
    assert is_configured(json.dumps(table).encode())
    for wish, piece in zip(found, pieces, strict=True):
        again = read[wish.entry.workspace, wish.entry.deployment]
        assert again == piece.routes
        asked = (*wish.entry.arms, *wish.split) if wish.entry.own_path else ()
        assert clusters_of(again) == {one.cluster for one in asked}
    kept = resources_of(
        document([content for piece in pieces for content in piece.clusters.values()]).content
    )
    assert kept == {name: content for piece in pieces for name, content in piece.clusters.items()}
    assert weights_of((), "x") == {}
