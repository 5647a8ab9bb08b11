"""Envoys for the benchmark: the backend that answers by itself, plain ones that pass through, and Podium's own chain.

Called by `contestants` and `chain`. Each is one process with one worker thread, bound to a core.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.runtime.contestants import bound_to
from podium.gateway.binary import find_binary
from podium.gateway.render.document import typed
from podium.resources.errors import Unavailable

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_BUFFER = "envoy.extensions.filters.http.buffer.v3.Buffer"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"
ANSWER = json.dumps(
    {
        "model_name": "m", "model_version": "1", "id": "0",
        "outputs": [{"name": "predict", "datatype": "INT64", "shape": [1], "data": [1]}],
    }
)  # fmt: skip
"""What the backend says: as small as a prediction of one row."""


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A short one, since paths of sockets hold 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="pbg-", dir="/tmp"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(config: Path, place: Path, core: int | None, *, flags: Sequence[str] = ()) -> Iterator[int]:
    """An Envoy with this configuration until the block ends; its pid. Raises Unavailable with its own words."""
    log = place / f"{config.stem}.log"
    with bound_to(core), log.open("wb") as words:
        process = subprocess.Popen(
            [find_binary().path, "-c", config, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error",
             *flags],
            stdin=subprocess.DEVNULL, stdout=words, stderr=words,
        )  # fmt: skip
    try:
        time.sleep(0.05)
        if process.poll() is not None:
            raise Unavailable(f"Envoy ended: {log.read_text()[-2000:]}")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def answers(address: Mapping[str, Any], log: Path, seconds: float = 30.0) -> None:
    """Wait until somebody listens there. `address`: `{"unix": path}` or `{"port": number}`. Raises Unavailable."""
    deadline = time.monotonic() + seconds
    while True:
        family, where = (
            (socket.AF_UNIX, address["unix"])
            if "unix" in address
            else (socket.AF_INET, ("127.0.0.1", address["port"]))
        )
        with socket.socket(family) as probe:
            if probe.connect_ex(where) == 0:
                return
        if time.monotonic() > deadline:
            raise Unavailable(
                f"nobody listens at {address}: {log.read_text()[-2000:] if log.exists() else ''}"
            )
        time.sleep(0.02)


def backend(sockets: Sequence[Path], port: int) -> dict[str, Any]:
    """Answers every request by itself, on these sockets as replicas do, and on a port for who asks it directly."""
    route = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": ANSWER}},
        "response_headers_to_add": [
            {"header": {"key": "content-type", "value": "application/json"},
             "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
        ],
    }  # fmt: skip
    places: list[dict[str, Any]] = [{"pipe": {"path": str(path)}} for path in sockets]
    places.append({"socket_address": {"address": "127.0.0.1", "port_value": port}})
    # An answer that comes before the request has been read whole ends the connection, and each request would have to
    # open one of its own; a replica reads what it is asked.
    whole = {"name": "envoy.filters.http.buffer", "typed_config": typed(_BUFFER, max_request_bytes=2**20)}
    return _static([_listener(place, [route], whole) for place in places], [])


def passing(port: int, sockets: Sequence[Path]) -> dict[str, Any]:
    """What Envoy costs without anything of ours: HTTP in, the router, one cluster of the same sockets."""
    endpoints = [{"endpoint": {"address": {"pipe": {"path": str(path)}}}} for path in sockets]
    cluster = {
        "name": "backend", "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": endpoints}]},
    }  # fmt: skip
    place = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return _static(
        [_listener(place, [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}])], [cluster]
    )


def _listener(
    address: Mapping[str, Any], routes: Sequence[Mapping[str, Any]], *before: Mapping[str, Any]
) -> dict[str, Any]:
    manager = typed(
        _MANAGER,
        stat_prefix="bench",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": list(routes)}]},
        http_filters=[*before, {"name": "envoy.filters.http.router", "typed_config": typed(_ROUTER)}],
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"address": address, "filter_chains": [{"filters": filters}]}


def _static(listeners: Sequence[Mapping[str, Any]], clusters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"static_resources": {"listeners": list(listeners), "clusters": list(clusters)}}


def written(place: Path, name: str, config: Mapping[str, Any]) -> Path:
    """The configuration as a file."""
    path = place / f"{name}.json"
    path.write_text(json.dumps(config))
    return path
