"""The chain with Podium's model server behind it, once: what is left of the gateway's cost where a model answers.

Called by `__main__`. The replica is on a Unix socket; with two cores it shares one with who asks: the bottleneck.
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gateway import chain, envoys
from benchmarks.gateway.contestants import DIRECT, FULL, PLAIN, Contestant, Cores
from benchmarks.gateway.generators import Asked, Generator
from benchmarks.gateway.rounds import measured, rows
from benchmarks.runtime.contestants import NAME, podium
from benchmarks.runtime.models import pipeline

_CONNECTIONS = (1, 16)


def replica_rows(
    cores: Cores, generator: Generator, say: Callable[[str], object], *, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Rows as for the other backend: the replica itself by TCP, through plain Envoy, through the full chain."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(envoys.folder())
        say("training a model")
        trained = pipeline(place)
        say("starting the replicas")
        inside = stack.enter_context(podium(trained, cores.answering, uds=True))
        outside = stack.enter_context(podium(trained, cores.answering))
        row = {
            "name": "input",
            "shape": [1, trained.rows.shape[1]],
            "datatype": "FP64",
            "data": trained.rows[0].tolist(),
        }
        body = json.dumps({"inputs": [row]}, separators=(",", ":"))
        sockets = [Path(inside.http), Path(inside.http)]
        made = chain.full(place, envoys.free_port(), sockets, place / "record.log")
        port = envoys.free_port()
        files = {PLAIN: envoys.passing(port, sockets[:1]), FULL: made.config}
        ports = {
            PLAIN: port,
            FULL: made.config["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"],
        }
        found = [
            Contestant(
                DIRECT,
                _asked(int(outside.http.rpartition(":")[2]), NAME, body, made.token),
                outside.process.pid,
            )
        ]
        for number, (name, config) in enumerate(files.items()):
            path = envoys.written(place, f"real-{number}", config)
            pid = stack.enter_context(envoys.running(path, place, cores.compared))
            envoys.answers({"port": ports[name]}, place / f"real-{number}.log")
            route = chain.ROUTE if name == FULL else NAME
            found.append(Contestant(name, _asked(ports[name], route, body, made.token), pid))
        measurement = measured(generator, found, _CONNECTIONS, rounds=rounds, seconds=seconds, say=say)
        return [
            {**row, "way": f"model server: {row['way']}"} for row in rows(measurement, found, _CONNECTIONS)
        ]


def _asked(port: int, name: str, body: str, token: str) -> Asked:
    own = {"content-type": "application/json", "user-agent": "bench", "authorization": f"Bearer {token}"}
    headers = [{**own, chain.STICKY: f"user-{number}"} for number in range(chain.USERS)]
    return Asked(port, f"/v2/models/{name}/infer", body, headers)
