"""What is compared: REST with JSON, gRPC, an ONNX model, and a megabyte in one tensor.

Called by `__main__`. Each section starts its servers, measures them in rounds and stops them. Calls `contestants`,
`deployed`, `models` and `rounds`.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.runtime import contestants, models
from benchmarks.runtime.contestants import NAME, Server, Tuning
from benchmarks.runtime.deployed import Deployed, deployed
from benchmarks.runtime.load import Target, measure, write_requests
from benchmarks.runtime.models import Trained
from benchmarks.runtime.rounds import OURS, Bench, Entrant, Found, rows, run

_REQUESTS = 256
INFER = f"/v2/models/{NAME}/infer"
GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
AS_IT_COMES = Tuning("mlserver")
# What is tried to make MLServer's adaptive batching fast; the one with most requests at 16 and 64 connections stays.
GRID = (
    Tuning("mlserver tuned", 16, 0.001, workers=0, quiet=True),
    Tuning("mlserver tuned", 64, 0.001, workers=0, quiet=True),
    Tuning("mlserver tuned", 64, 0.005, workers=0, quiet=True),
    Tuning("mlserver tuned", 64, 0.001, workers=1, quiet=True),
)


@dataclass(frozen=True)
class Outcome:
    """Rows of the table, and goals with what was found."""

    rows: list[dict[str, Any]]
    goals: list[dict[str, Any]]


def tune(bench: Bench) -> Tuning:
    """The batching settings with which MLServer answers most, by short runs at 16 and 64 connections."""
    trained = models.pipeline(bench.folder)
    scores = []
    for number, tuning in enumerate(GRID):
        bench.say(f"tuning MLServer: {number + 1} of {len(GRID)}")
        with contestants.mlserver(trained, bench.cores[0], tuning) as server:
            target = _rest(trained, server)
            file = write_requests(bench.folder / f"tune-{number}", target.requests)
            score = 1.0
            for connections in (16, 64):
                found = measure(
                    target, file, bench.cores[1], connections=connections, seconds=bench.effort.seconds
                )
                score *= found["per_second"]
            scores.append((score, number))
    return GRID[max(scores)[1]]


def rest(bench: Bench, tuned: Tuning) -> Outcome:
    """The scikit-learn pipeline, one row of JSON per request."""
    trained = models.pipeline(bench.folder)
    with contextlib.ExitStack() as stack:
        servers = _servers(stack, trained, bench, tuned)
        entrants = [
            Entrant(server.name, _rest(trained, server), models.labels_of_json, server.python)
            for server in servers
        ]
        found = _run("REST, JSON", entrants, trained, bench)
    goals = [
        _at_least(f"REST at {connections} connections, times MLServer at its best", times, wanted)
        for connections, wanted in ((16, 6.0), (64, 12.0))
        if connections in bench.effort.connections
        for times in [found.ratio(connections, _theirs(entrants))]
    ]
    if 1 in bench.effort.connections:
        goals.append(
            _at_most("REST at 1 connection, p50 beyond the model alone, ms", found.beyond_alone(OURS), 0.3)
        )
    return _outcome("REST, JSON", found, entrants, bench, goals)


def onnx(bench: Bench, tuned: Tuning) -> Outcome:
    """The same pipeline as ONNX, one row of JSON per request."""
    trained = models.onnx(bench.folder)
    with contextlib.ExitStack() as stack:
        servers = _servers(stack, trained, bench, tuned)
        entrants = [
            Entrant(server.name, _rest(trained, server), models.labels_of_json, server.python)
            for server in servers
        ]
        found = _run("ONNX, REST, JSON", entrants, trained, bench)
    goals = _ratio_goals("ONNX", found, entrants, bench)
    return _outcome("ONNX, REST, JSON", found, entrants, bench, goals)


def grpc(bench: Bench, tuned: Tuning) -> Outcome:
    """The pipeline over gRPC: through Envoy, beside MLServer's own."""
    trained = models.pipeline(bench.folder)
    with contextlib.ExitStack() as stack:
        bench.say("gRPC: starting Podium")
        ours = stack.enter_context(deployed(trained, bench.cores[0], bench.say))
        entrants = [Entrant(OURS, _grpc_of(trained, ours), models.labels_of_grpc)]
        for tuning in (AS_IT_COMES, tuned):
            server = stack.enter_context(contestants.mlserver(trained, bench.cores[0], tuning))
            assert server.grpc is not None
            target = Target("grpc", server.grpc, _messages(trained), _grpc_headers(server.grpc))
            entrants.append(Entrant(server.name, target, models.labels_of_grpc))
        found = _run("gRPC", entrants, trained, bench)
    return _outcome("gRPC", found, entrants, bench, _ratio_goals("gRPC", found, entrants, bench))


def binary(bench: Bench, tuned: Tuning) -> Outcome:
    """One megabyte in one tensor: binary over HTTP, beside JSON, beside MLServer's JSON and raw gRPC."""
    trained = models.pipeline(bench.folder)
    data, labels = models.megabyte(trained)
    body, length = models.binary_body(trained, data)
    headers = [("inference-header-content-length", str(length)), ("content-type", "application/octet-stream")]
    json_body = models.json_body(trained, data)
    message = models.grpc_message(trained, data, NAME)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(contestants.podium(trained, bench.cores[0]))
        theirs = stack.enter_context(contestants.mlserver(trained, bench.cores[0], tuned))
        assert theirs.grpc is not None
        entrants = [
            Entrant(OURS, _post(ours, body, headers), models.labels_of_json),
            Entrant("podium, JSON", _post(ours, json_body), models.labels_of_json),
            Entrant("mlserver tuned, JSON", _post(theirs, json_body), models.labels_of_json),
            Entrant(
                "mlserver tuned, gRPC raw",
                Target("grpc", theirs.grpc, [message], _grpc_headers(theirs.grpc)),
                models.labels_of_grpc,
            ),
        ]
        few = replace(bench, effort=replace(bench.effort, connections=(1, 4)))
        found = run(few, "1 MB", entrants, trained, [labels.tolist()])
    made = rows("1 MB in one tensor", found, entrants, few.effort, _theirs(entrants))
    return Outcome(made, [])


SECTIONS: dict[str, Callable[[Bench, Tuning], Outcome]] = {
    "rest": rest,
    "grpc": grpc,
    "onnx": onnx,
    "binary": binary,
}


def _servers(stack: contextlib.ExitStack, trained: Trained, bench: Bench, tuned: Tuning) -> list[Server]:
    bench.say("starting servers")
    return [
        stack.enter_context(contestants.podium(trained, bench.cores[0])),
        *(
            stack.enter_context(contestants.mlserver(trained, bench.cores[0], tuning))
            for tuning in (AS_IT_COMES, tuned)
        ),
    ]


def _run(section: str, entrants: Sequence[Entrant], trained: Trained, bench: Bench) -> Found:
    expected = [[int(label)] for label in trained.labels[:_REQUESTS]]
    return run(bench, section, entrants, trained, expected)


def _outcome(
    section: str, found: Found, entrants: Sequence[Entrant], bench: Bench, goals: list[dict[str, Any]]
) -> Outcome:
    return Outcome(rows(section, found, entrants, bench.effort, _theirs(entrants)), goals)


def _theirs(entrants: Sequence[Entrant]) -> list[str]:
    return [entrant.name for entrant in entrants if not entrant.name.startswith(OURS)]


def _ratio_goals(words: str, found: Found, entrants: Sequence[Entrant], bench: Bench) -> list[dict[str, Any]]:
    """The goals of the REST section, for another section."""
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


def _messages(trained: Trained) -> list[bytes]:
    return [models.grpc_message(trained, trained.rows[row : row + 1], NAME) for row in range(_REQUESTS)]


def _grpc_headers(authority: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"), (":scheme", "http"), (":path", GRPC_PATH), (":authority", authority),
        ("content-type", "application/grpc"), ("te", "trailers"),
    ]  # fmt: skip


def _grpc_of(trained: Trained, ours: Deployed) -> Target:
    headers = [*_grpc_headers(ours.address), *ours.grpc_headers]
    return Target("grpc", ours.address, _messages(trained), headers)
