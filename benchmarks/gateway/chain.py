"""The full chain as Podium renders it, and the same without one part after the other.

Called by `contestants`. Two Deployments and a Route over both: half the users each, by a sticky key; limits for the
route and per caller, too high to be met; tokens required. Everything is planned and rendered by Podium's own code; it
is put into one file here, so that parts can be taken out of it.
"""

import copy
import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.agents import deployed, routed
from podium.api.tokens import ISSUER, TokenAuthority
from podium.gateway.fleet import Fleet
from podium.gateway.loader import rendered
from podium.gateway.render import access, adaptive, limits, record
from podium.gateway.render.bootstrap import bootstrap
from podium.gateway.render.document import document
from podium.gateway.render.listener import listener
from podium.gateway.render.routes import route_table
from podium.gateway.render.weights import weights_document
from podium.gateway.settings import ACCESS, ADAPTIVE, LIMITS, REVOKED, TOKENS, AccessRecord, GatewaySettings

ROUTE, ARMS, USERS = "churn", ("one", "two"), 256
STICKY = "x-user"
RECORD = "access record"
_LOGS = {record.NAME: RECORD}
_SOME = ".ExtensionWithMatcher"
_UNREACHED = {"requests": 1_000_000, "per": "1s"}


@dataclass(frozen=True)
class Chain:
    """One file for Envoy, and a token that is good there."""

    config: dict[str, Any]
    token: str


def full(folder: Path, port: int, sockets: Sequence[Path], recorded: Path) -> Chain:
    """Everything. `sockets`: one replica of each Deployment; `recorded`: where a line per request goes."""
    settings = GatewaySettings(
        home=folder / "home", name="bench", server_url="http://127.0.0.1:1", port=port, concurrency=1,
        run_folder=folder / "run", record=AccessRecord(recorded),
    )  # fmt: skip
    settings.layout.prepare()
    fleet = Fleet()
    objects: list[Any] = [
        item for name, path in zip(ARMS, sockets, strict=True) for item in deployed(name, [f"unix:{path}"])
    ]
    halves = [{"deployment": name, "weight": 50} for name in ARMS]
    rule = {"to": halves, "sticky": {"header": STICKY}}
    objects.append(routed(ROUTE, {"rules": [rule], "limits": {"route": _UNREACHED, "perCaller": _UNREACHED}}))
    fleet.reset(objects, 1)
    pieces = [rendered(wish) for key in sorted(fleet.keys) if (wish := fleet.wish(key)) is not None]
    clusters = {name: content for piece in pieces for name, content in piece.clusters.items()}
    weights = {name: share for piece in pieces for name, share in piece.weights.items()}
    authority = TokenAuthority(Ed25519PrivateKey.generate())
    hour = datetime.timedelta(hours=1)
    token, _ = authority.issue("bench", "predict", ("default",), hour, datetime.datetime.now(datetime.UTC))
    rules = access.AccessRules.parse(
        {"jwks": authority.jwks(), "issuer": ISSUER, "tokensRequired": True, "revoked": []}
    )
    choosing = any(piece.chosen_by_caller for piece in pieces)
    delivered = {
        TOKENS: access.tokens(rules, choosing=choosing), REVOKED: access.revoked(rules),
        ACCESS: access.access(rules, ["default"]),
        LIMITS: limits.limits_document(limits.together(piece.buckets for piece in pieces)),
        ADAPTIVE: adaptive.adaptive_document({}),
    }  # fmt: skip
    [own] = _resources(listener(settings))
    [table] = _resources(route_table([piece.routes for piece in pieces], configured=True, version="0"))
    manager = manager_of(own)
    del manager["rds"]
    manager["route_config"] = table
    for place, one in enumerate(manager["http_filters"]):
        if "config_discovery" in one:
            filters = {**access.FILTERS, **limits.FILTERS, **adaptive.FILTERS}
            [kind] = [kind for kind, (name, _) in filters.items() if name == one["name"]]
            [inline] = _resources(delivered[kind])
            if one.get("disabled"):
                inline["disabled"] = True
            manager["http_filters"][place] = inline
    whole = json.loads(bootstrap(settings))
    del whole["dynamic_resources"]
    [layer] = _resources(weights_document(weights))
    whole["layered_runtime"] = {"layers": [{"name": "weights", "static_layer": layer["layer"]}]}
    whole["static_resources"] = {"listeners": [own], "clusters": _resources(document(clusters.values()))}
    return Chain(whole, token)


def manager_of(own: dict[str, Any]) -> dict[str, Any]:
    """The HTTP connection manager of a listener."""
    found: dict[str, Any] = own["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def _resources(content: Any) -> list[dict[str, Any]]:
    found = json.loads(content.content)["resources"]
    return [{key: value for key, value in one.items() if key != "@type"} for one in found]


Cut = Callable[[dict[str, Any]], None]


def without(config: dict[str, Any], cut: Cut, port: int, recorded: Path) -> dict[str, Any]:
    """A copy with one part taken out, on a port and with a record of its own, without the admin interface."""
    made = copy.deepcopy(config)
    made.pop("admin", None)
    [own] = made["static_resources"]["listeners"]
    own["address"]["socket_address"]["port_value"] = port
    for one in manager_of(own).get("access_log", []):
        if "path" in one["typed_config"]:
            one["typed_config"]["path"] = str(recorded)
    cut(manager_of(own))
    return made


def cuts(config: dict[str, Any]) -> dict[str, Cut]:
    """By name: everything that can be left out of the chain, and still answers."""
    [own] = config["static_resources"]["listeners"]
    manager = manager_of(own)
    # One that is off, and that no route of ours switches on, is not there for these requests.
    on = {
        name
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]
        if route["match"].get("path_separated_prefix") == f"/v2/models/{ROUTE}"
        for name in route.get("typed_per_filter_config", {})
    }
    filters = [
        one["name"]
        for one in manager["http_filters"]
        if not one["name"].endswith(".router") and (not one.get("disabled") or one["name"] in on)
    ]
    found: dict[str, Cut] = {f"filter {name}": _no_filter(name) for name in filters}
    for one in manager.get("access_log", []):
        found[_LOGS.get(one["name"], one["name"])] = _no_log(one["name"])
    for option in ("early_header_mutation_extensions", "local_reply_config"):
        if option in manager:
            found[option] = _no_option(option)
    tokens = [name for name, _ in access.FILTERS.values()]
    found["all of the token's filters"] = _no_filter(*tokens, "podium.place")
    found["all that runs for some requests only"] = _no_filter(
        *(one["name"] for one in manager["http_filters"] if one["typed_config"]["@type"].endswith(_SOME))
    )
    found["sticky key"] = _not_sticky
    found["all filters, records and counters"] = _bare
    return found


def _no_filter(*names: str) -> Cut:
    def cut(manager: dict[str, Any]) -> None:
        left = [one for one in manager["http_filters"] if one["name"] not in names]
        manager["http_filters"] = left

    return cut


def _no_log(name: str) -> Cut:
    def cut(manager: dict[str, Any]) -> None:
        manager["access_log"] = [one for one in manager["access_log"] if one["name"] != name]

    return cut


def _no_option(name: str) -> Cut:
    return lambda manager: manager.pop(name)


def _not_sticky(manager: dict[str, Any]) -> None:
    for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
        action = route.get("route", {})
        action.pop("hash_policy", None)
        action.get("weighted_clusters", {}).pop("use_hash_policy", None)


def _bare(manager: dict[str, Any]) -> None:
    manager["http_filters"] = [one for one in manager["http_filters"] if one["name"].endswith(".router")]
    manager.pop("access_log", None)
