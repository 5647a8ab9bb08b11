"""A real Envoy with the gateway's own bootstrap and listener, and routes and clusters that a test gives: without
agent, server or loader."""

import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from podium.gateway.binary import find_binary
from podium.gateway.envoy_process import LOG_LEVELS
from podium.gateway.files import WatchedFiles
from podium.gateway.render import access
from podium.gateway.render.adaptive import adaptive_document
from podium.gateway.render.bootstrap import bootstrap
from podium.gateway.render.clusters import cluster
from podium.gateway.render.document import document, fragment
from podium.gateway.render.limits import limits_document, together
from podium.gateway.render.listener import listener
from podium.gateway.render.routes import EntryRoutes, route_table
from podium.gateway.render.weights import weights_document
from podium.gateway.settings import (
    ACCESS,
    ADAPTIVE,
    CLUSTERS,
    LIMITS,
    LISTENERS,
    REVOKED,
    ROUTES,
    TOKENS,
    WEIGHTS,
    GatewaySettings,
)
from podium.planning.routing import Arm
from tests.integration.gateway.conftest import until
from tests.integration.gateway.upstreams import Upstream


class OneEnvoy:
    """`start` with routes (Envoy's form, as dicts) and rendered clusters; `replace` them while it runs."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        given = {"name": "g1", "server_url": "http://127.0.0.1:1", "port": port, "concurrency": 2} | settings
        self.settings = GatewaySettings(home=folder, **given)
        self.settings.layout.prepare()
        self._files = WatchedFiles(self.settings.layout)
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)
        transport = httpx.HTTPTransport(uds=str(self.settings.layout.admin_socket))
        self._admin = httpx.Client(transport=transport, base_url="http://envoy", timeout=30)

    def write(
        self,
        routes: Iterable[Mapping[str, Any]],
        clusters: Iterable[bytes],
        rules: access.AccessRules | None = None,
        held: Iterable[Mapping[bytes, int]] = (),
        adapting: Mapping[str, bytes] | None = None,
    ) -> None:
        entry = EntryRoutes((), tuple(fragment(dict(route)) for route in routes))
        rules = rules or access.open_access()
        for kind, content in (
            (CLUSTERS, document(clusters)),
            (WEIGHTS, weights_document({})),
            (ROUTES, route_table([entry], configured=True, version="0")),
            (REVOKED, access.revoked(rules)),
            (ACCESS, access.access(rules, ())),
            (TOKENS, access.tokens(rules)),
            (LIMITS, limits_document(together(held))),
            (ADAPTIVE, adaptive_document(adapting or {})),
            (LISTENERS, listener(self.settings)),
        ):
            self._files.write(kind, content)
        self.settings.layout.bootstrap.write_bytes(bootstrap(self.settings))

    def validate(self) -> str:
        """Envoy's words about the bootstrap, with the files that are in place put into it; empty when it takes all."""
        layout = self.settings.layout
        whole = json.loads(layout.bootstrap.read_bytes())
        del whole["dynamic_resources"], whole["layered_runtime"]
        resources = {kind: self._resources(kind) for kind in (LISTENERS, CLUSTERS, ROUTES)}
        manager = resources[LISTENERS][0]["filter_chains"][0]["filters"][0]["typed_config"]
        del manager["rds"]
        manager["route_config"] = resources[ROUTES][0]
        manager["http_filters"] = [one for one in manager["http_filters"] if "config_discovery" not in one]
        whole["static_resources"] = {"listeners": resources[LISTENERS], "clusters": resources[CLUSTERS]}
        path = layout.home / "validated.json"
        path.write_text(json.dumps(whole))
        binary = find_binary().path
        done = subprocess.run(
            [binary, "--mode", "validate", "-c", path, "--log-level", "error"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return "" if done.returncode == 0 else done.stderr

    def _resources(self, kind: str) -> list[dict[str, Any]]:
        found = json.loads(self.settings.layout.document(kind).read_bytes())["resources"]
        return [{key: value for key, value in one.items() if key != "@type"} for one in found]

    def start(
        self,
        routes: Iterable[Mapping[str, Any]],
        clusters: Iterable[bytes],
        rules: access.AccessRules | None = None,
        held: Iterable[Mapping[bytes, int]] = (),
        adapting: Mapping[str, bytes] | None = None,
    ) -> "OneEnvoy":
        """Routes and clusters in force; `rules` about tokens, None where none are asked for; `held`: the buckets
        that the limits of the routes need; `adapting`: their adaptive limits."""
        self.write(routes, clusters, rules, held, adapting)
        words = self.validate()
        assert words == "", words
        with self.settings.layout.log.open("ab") as log:
            self._process = subprocess.Popen(
                [find_binary().path, "-c", self.settings.layout.bootstrap, "--use-dynamic-base-id", "--concurrency",
                 str(self.settings.concurrency), *LOG_LEVELS],
                stdout=log, stderr=log,
            )  # fmt: skip
        until(self._answers, 60)
        return self

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.words()
        try:
            return self.client.get("/v2/health/live").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def pid(self) -> int:
        """Of the Envoy that runs."""
        assert self._process is not None
        return self._process.pid

    def words(self) -> str:
        """Envoy's log."""
        return self.settings.layout.log.read_text()[-4000:]

    def stats(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose name matches."""
        text = self._admin.get("/stats", params={"filter": pattern, "usedonly": ""}).text
        pairs = (line.rsplit(": ", 1) for line in text.splitlines())
        return {name: int(value) for name, value in pairs if value.isdigit()}

    def readouts(self) -> str:
        """Statistics that are texts, such as the versions of what is loaded."""
        return self._admin.get("/stats", params={"type": "TextReadouts"}).text

    def close(self) -> None:
        self.client.close()
        self._admin.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)


@contextmanager
def one_envoy(**settings: Any) -> Iterator[OneEnvoy]:
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="pen"))
    made = OneEnvoy(folder, **settings)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


def arm_of(name: str, *replicas: Upstream, role: Any = "live", weight: int = 0) -> Arm:
    """The arm of a Deployment's only revision."""
    return Arm("default", f"{name}-00001", "1", role, weight, tuple(replica.address for replica in replicas))


def live(name: str) -> str:
    """The cluster of `arm_of`."""
    return arm_of(name).cluster


def a_route(
    path: str, target: str | Mapping[str, Any], *parts: Mapping[str, Any], timeout: float = 30.0, **more: Any
) -> dict[str, Any]:
    """A route to a cluster, or with a target of another kind; `parts` are added to its action, `more` to the route."""
    action: dict[str, Any] = {"timeout": f"{timeout}s"}
    action |= {"cluster": target} if isinstance(target, str) else target
    for part in parts:
        action |= part
    return {"match": {"prefix": path}, "route": action, **more}


def clusters_for(replicas: Mapping[str, Upstream]) -> list[bytes]:
    """Clusters of Deployments with one replica each, for those that are asked first and those that are asked next."""
    return [
        cluster(arm_of(name, one, role=role)) for name, one in replicas.items() for role in ("live", "next")
    ]
