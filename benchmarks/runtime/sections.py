"""What is compared: REST with JSON, gRPC, an ONNX model, and a megabyte in one tensor.

Called by `__main__`. Each section starts its servers, measures them in rounds and stops them. Calls `contestants`,
`deployed`, `models`, `rounds` and `tuning`.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.runtime import contestants, models
from benchmarks.runtime.contestants import NAME, Server, Tuning
from benchmarks.runtime.deployed import Deployed, deployed
from benchmarks.runtime.load import Target
from benchmarks.runtime.models import Trained
from benchmarks.runtime.rounds import OURS, Bench, Entrant, Found, rows, run
from benchmarks.runtime.tuning import AS_IT_COMES, Tuned, tune

_REQUESTS = 256
INFER = f"/v2/models/{NAME}/infer"
GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Outcome:
    """Rows of the table, goals with what was found, and what was tried for MLServer."""

    rows: list[dict[str, Any]]
    goals: list[dict[str, Any]]
    tuning: list[dict[str, Any]]


def rest(bench: Bench) -> Outcome:
    """The scikit-learn pipeline, one row of JSON per request."""
    trained = models.pipeline(bench.folder)
    tuned = tune(bench, "REST, JSON", trained, functools.partial(_rest, trained))
    found, entrants = _by_rest("REST, JSON", trained, bench, tuned.best)
    goals = _ratio_goals("REST", found, entrants, bench)
    if 1 in bench.effort.connections:
        goals.append(
            _at_most("REST at 1 connection, p50 beyond the model alone, ms", found.beyond_alone(OURS), 0.3)
        )
    return _outcome("REST, JSON", found, entrants, bench, goals, tuned)


def onnx(bench: Bench) -> Outcome:
    """The same pipeline as ONNX, one row of JSON per request."""
    trained = models.onnx(bench.folder)
    tuned = tune(bench, "ONNX, REST, JSON", trained, functools.partial(_rest, trained))
    found, entrants = _by_rest("ONNX, REST, JSON", trained, bench, tuned.best)
    goals = _ratio_goals("ONNX", found, entrants, bench)
    return _outcome("ONNX, REST, JSON", found, entrants, bench, goals, tuned)


def _by_rest(section: str, trained: Trained, bench: Bench, tuned: Tuning) -> tuple[Found, list[Entrant]]:
    with contextlib.ExitStack() as stack:
        bench.say("starting servers")
        servers = [stack.enter_context(contestants.podium(trained, bench.cores[0]))]
        for tuning in (AS_IT_COMES, tuned):
            servers.append(stack.enter_context(contestants.mlserver(trained, bench.cores[0], tuning)))
        entrants = [
            Entrant(server.name, _rest(trained, server), models.labels_of_json, server.python)
            for server in servers
        ]
        return _run(section, entrants, trained, bench), entrants


def grpc(bench: Bench) -> Outcome:
    """The pipeline over gRPC: through Envoy, beside MLServer's own."""
    trained = models.pipeline(bench.folder)
    messages = [models.grpc_message(trained, trained.rows[row : row + 1], NAME) for row in range(_REQUESTS)]
    tuned = tune(bench, "gRPC", trained, functools.partial(_their_grpc, messages))
    with contextlib.ExitStack() as stack:
        bench.say("gRPC: starting Podium")
        ours = stack.enter_context(deployed(trained, bench.cores[0], bench.say))
        entrants = [Entrant(OURS, _our_grpc(messages, ours), models.labels_of_grpc)]
        for tuning in (AS_IT_COMES, tuned.best):
            server = stack.enter_context(contestants.mlserver(trained, bench.cores[0], tuning))
            entrants.append(Entrant(server.name, _their_grpc(messages, server), models.labels_of_grpc))
        found = _run("gRPC", entrants, trained, bench)
    return _outcome("gRPC", found, entrants, bench, _ratio_goals("gRPC", found, entrants, bench), tuned)


def binary(bench: Bench) -> Outcome:
    """One megabyte in one tensor: binary over HTTP, raw gRPC through Envoy and JSON, beside MLServer's raw gRPC and
    JSON. It has no goal."""
    trained = models.pipeline(bench.folder)
    data, labels = models.megabyte(trained)
    body, length = models.binary_body(trained, data)
    headers = [("inference-header-content-length", str(length)), ("content-type", "application/octet-stream")]
    json_body = models.json_body(trained, data)
    messages = [models.grpc_message(trained, data, NAME)]
    few = replace(bench, effort=replace(bench.effort, connections=(1, 4)))
    tuned = tune(bench, "1 MB", trained, functools.partial(_their_grpc, messages), few.effort.connections)
    with contextlib.ExitStack() as stack:
        bench.say("1 MB: starting servers")
        ours = stack.enter_context(contestants.podium(trained, bench.cores[0]))
        behind_envoy = stack.enter_context(deployed(trained, bench.cores[0], bench.say))
        theirs = stack.enter_context(contestants.mlserver(trained, bench.cores[0], tuned.best))
        their_grpc = _their_grpc(messages, theirs)
        entrants = [
            Entrant(OURS, _post(ours, body, headers), models.labels_of_json),
            Entrant("podium, gRPC raw", _our_grpc(messages, behind_envoy), models.labels_of_grpc),
            Entrant("podium, JSON", _post(ours, json_body), models.labels_of_json),
            Entrant("mlserver tuned, gRPC raw", their_grpc, models.labels_of_grpc),
            Entrant("mlserver tuned, JSON", _post(theirs, json_body), models.labels_of_json),
        ]
        found = run(few, "1 MB", entrants, trained, [labels.tolist()])
    return _outcome("1 MB in one tensor", found, entrants, few, [], tuned)


SECTIONS: dict[str, Callable[[Bench], Outcome]] = {
    "rest": rest,
    "grpc": grpc,
    "onnx": onnx,
    "binary": binary,
}


def _run(section: str, entrants: Sequence[Entrant], trained: Trained, bench: Bench) -> Found:
    expected = [[int(label)] for label in trained.labels[:_REQUESTS]]
    return run(bench, section, entrants, trained, expected)


def _outcome(
    section: str,
    found: Found,
    entrants: Sequence[Entrant],
    bench: Bench,
    goals: list[dict[str, Any]],
    tuned: Tuned,
) -> Outcome:
    return Outcome(rows(section, found, entrants, bench.effort, _theirs(entrants)), goals, tuned.rows)


def _theirs(entrants: Sequence[Entrant]) -> list[str]:
    return [entrant.name for entrant in entrants if not entrant.name.startswith(OURS)]


def _ratio_goals(words: str, found: Found, entrants: Sequence[Entrant], bench: Bench) -> list[dict[str, Any]]:
    """The two goals that every section but the megabyte has."""
    return [
        _at_least(
            f"{words} at {connections} connections, times MLServer at its best",
            found.ratio(connections, _theirs(entrants)),
            wanted,
        )
        for connections, wanted in ((16, 6.0), (64, 12.0))
        if connections in bench.effort.connections
    ]


def _at_least(goal: str, found: float, wanted: float) -> dict[str, Any]:
    return {"goal": goal, "wanted": f"at least {wanted:g}", "found": found, "met": found >= wanted}


def _at_most(goal: str, found: float, wanted: float) -> dict[str, Any]:
    return {"goal": goal, "wanted": f"at most {wanted:g}", "found": found, "met": found <= wanted}


def _rest(trained: Trained, server: Server) -> Target:
    bodies = [models.json_body(trained, trained.rows[row : row + 1]) for row in range(_REQUESTS)]
    return Target("http", server.http, [models.http_request(server.http, INFER, body) for body in bodies])


def _post(server: Server, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> Target:
    return Target("http", server.http, [models.http_request(server.http, INFER, body, headers)])


def _grpc_headers(authority: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"), (":scheme", "http"), (":path", GRPC_PATH), (":authority", authority),
        ("content-type", "application/grpc"), ("te", "trailers"),
    ]  # fmt: skip


def _our_grpc(messages: Sequence[bytes], ours: Deployed) -> Target:
    return Target("grpc", ours.address, messages, [*_grpc_headers(ours.address), *ours.grpc_headers])


def _their_grpc(messages: Sequence[bytes], server: Server) -> Target:
    assert server.grpc is not None
    return Target("grpc", server.grpc, messages, _grpc_headers(server.grpc))
