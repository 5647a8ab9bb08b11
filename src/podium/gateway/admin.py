"""Envoy's admin interface on its Unix socket: what is loaded, what was refused, how it is.

Called by `loader`, `stats`, `envoy_process` and `agent`. Everything raises Unavailable while Envoy does not answer.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from podium.gateway.render import access, adaptive, limits
from podium.gateway.render.listener import STAT_PREFIX
from podium.gateway.render.routes import ROUTE_TABLE
from podium.gateway.render.tls import SECRET
from podium.gateway.render.weights import VERSION_KEY
from podium.gateway.settings import CERTIFICATES, CLUSTERS, KINDS, LISTENERS, ROUTES, WEIGHTS
from podium.resources.errors import Unavailable
from podium.resources.trust import nobody

_SECONDS = 5.0
_SCOPES = {
    LISTENERS: "listener_manager.lds",
    CLUSTERS: "cluster_manager.cds",
    ROUTES: f"http.{STAT_PREFIX}.rds.{ROUTE_TABLE}",
    CERTIFICATES: f"sds.{SECRET}",
    **{
        kind: f"extension_config_discovery.http_filter.{name}"
        for kind, (name, _) in (access.FILTERS | limits.FILTERS | adaptive.FILTERS).items()
    },
}
"""kind of document -> the prefix of its statistics."""
_KIND_OF_READOUT = {f"{scope}.version_text": kind for kind, scope in _SCOPES.items()}


@dataclass(frozen=True)
class ServerInfo:
    """`state` is LIVE, DRAINING, PRE_INITIALIZING or INITIALIZING; `uptime` in seconds."""

    state: str
    version: str
    restart_epoch: int
    uptime: float


_CLIENTS = ("rq_active", "rq_total", "cx_active")


@dataclass(frozen=True)
class Clients:
    """active: requests under way; requests: how many there have ever been; connections: open ones."""

    active: int
    requests: int
    connections: int


class Admin:
    """One Envoy's admin interface. Survives restarts of Envoy; `close` when done."""

    def __init__(self, socket: Path) -> None:
        transport = httpx.AsyncHTTPTransport(
            uds=str(socket), verify=nobody(), limits=httpx.Limits(max_keepalive_connections=2)
        )
        self._client = httpx.AsyncClient(transport=transport, base_url="http://envoy", timeout=_SECONDS)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def loaded(self) -> dict[str, str]:
        """kind of document -> version that Envoy has loaded; a kind that has none yet is missing, and so are weights.

        Text readouts are few however many clusters there are: this answer takes 2 to 6 ms also with thousands.
        """
        versions = {}
        for line in (await self._get("/stats", {"type": "TextReadouts"})).text.splitlines():
            name, _, value = line.partition(": ")
            kind = _KIND_OF_READOUT.get(name)
            if kind is not None and len(value) > 2:
                versions[kind] = value.strip('"')
        return versions

    async def version(self, kind: str) -> str | None:
        """Version of one kind of document that Envoy has loaded."""
        if kind != WEIGHTS:
            return (await self.loaded()).get(kind)
        entries = (await self._get("/runtime", {})).json().get("entries", {})
        return str(entries[VERSION_KEY]["final_value"]) if VERSION_KEY in entries else None

    async def refusals(self) -> dict[str, int]:
        """kind of document -> how many of its updates Envoy has refused since it started."""
        names = {f"{scope}.{what}": kind for kind, scope in _SCOPES.items() for what in _REFUSED}
        counts = dict.fromkeys(KINDS, 0)
        pattern = (
            r"^(listener_manager|cluster_manager|http|sds|extension_config_discovery)\..*\.("
            + "|".join(_REFUSED)
            + ")$"
        )
        for line in (await self._get("/stats", {"type": "Counters", "filter": pattern})).text.splitlines():
            name, _, value = line.partition(": ")
            if name in names:
                counts[names[name]] += int(value)
        return counts

    async def info(self) -> ServerInfo:
        """Who answers, and whether it serves."""
        given = (await self._get("/server_info", {})).json()
        parts = str(given["version"]).split("/")
        return ServerInfo(
            state=given["state"],
            version=parts[1] if len(parts) > 1 else parts[0],
            restart_epoch=int(given["command_line_options"].get("restart_epoch", 0)),
            uptime=float(given["uptime_current_epoch"].rstrip("s")),
        )

    async def listening(self) -> list[tuple[str, int]]:
        """Addresses that Envoy listens on."""
        given = (await self._get("/listeners", {"format": "json"})).json()
        addresses = [
            status["local_address"]["socket_address"] for status in given.get("listener_statuses", [])
        ]
        return [(address["address"], int(address["port_value"])) for address in addresses]

    async def statistics(self, pattern: str, *, detailed: bool = False) -> list[dict[str, Any]]:
        """Statistics whose full names match, as Envoy's JSON: `name` and `value`, and histograms with cumulative
        buckets. detailed: only what has ever been counted, and histograms with the bins in which Envoy itself keeps
        them (two significant digits)."""
        query = {"format": "json", "histogram_buckets": "cumulative", "filter": pattern}
        if detailed:
            query |= {"histogram_buckets": "detailed", "usedonly": ""}
        given = (await self._get("/stats", query)).content
        return list(json.loads(given)["stats"])

    async def prometheus(self, pattern: str) -> str:
        """Statistics whose full names match, as Prometheus reads them: the one form that keeps tags apart."""
        return (await self._get("/stats", {"format": "prometheus", "filter": pattern})).text

    async def clients(self) -> Clients:
        """What is under way."""
        names = "|".join(f"downstream_{name}" for name in _CLIENTS)
        found = {
            str(stat.get("name")): int(stat["value"])
            for stat in await self.statistics(f"^http\\.{STAT_PREFIX}\\.({names})$")
            if "value" in stat
        }
        return Clients(*(found.get(f"http.{STAT_PREFIX}.downstream_{name}", 0) for name in _CLIENTS))

    async def fail_health(self) -> None:
        """`/v2/health/ready` says no, and each answer tells its client to close the connection. All else goes on."""
        await self._post("/healthcheck/fail")

    async def pass_health(self) -> None:
        """Take `fail_health` back."""
        await self._post("/healthcheck/ok")

    async def stop_listening(self) -> None:
        """No new connection is taken; requests under way, and those that come on open connections, go on."""
        await self._post("/drain_listeners")

    async def reopen_logs(self) -> None:
        """Files that Envoy writes about requests are opened anew by their names, within its flush interval."""
        await self._post("/reopen_logs")

    async def _get(self, path: str, query: Mapping[str, str]) -> httpx.Response:
        # The first try may meet a connection of the Envoy before this one.
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            return _checked(await self._send("GET", path, query))
        try:
            return _checked(await self._send("GET", path, query))
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            raise Unavailable(f"Envoy's admin interface: {error!r}") from error

    async def _post(self, path: str) -> None:
        try:
            _checked(await self._send("POST", path, {}))
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            raise Unavailable(f"Envoy's admin interface: {error!r}") from error

    async def _send(self, method: str, path: str, query: Mapping[str, str]) -> httpx.Response:
        try:
            return await self._client.request(method, path, params=query)
        except (httpx.ConnectError, httpx.TimeoutException) as error:
            raise Unavailable(f"Envoy's admin interface does not answer: {error!r}") from error


_REFUSED = ("update_rejected", "update_failure", "config_fail")


def _checked(response: httpx.Response) -> httpx.Response:
    if response.status_code != 200:
        raise Unavailable(f"Envoy's admin interface: {response.status_code} {response.text[:200]}")
    return response
