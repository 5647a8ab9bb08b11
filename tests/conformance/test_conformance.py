"""The conformance table: every RPC and path x {REST, gRPC} x {our schema, tritonclient, kserve}.

Asked of a replica and, through a real Envoy, of a gateway.
Each client runs unmodified in a process and an environment of its own. The table is printed and written under
benchmarks/results/ as Markdown and JSON. A cell is `pass` or the reason; a reason that starts with FAIL fails the test,
and so does a column without rows.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import RESULTS
from runtime.tests.replica import Connection, Replica, python_version, running
from tests.conformance import schema_rest
from tests.conformance.echo import MODEL, NAME, SETTINGS, SIGNATURE
from tests.integration.gateway.client_environment import client_python
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.documents import World
from tests.integration.gateway.wire_server import WireServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
DIRECT, GATEWAY = "replica", "gateway"


@dataclass(frozen=True)
class Row:
    """One cell."""

    through: str
    client: str
    transport: str
    call: str
    result: str


class RealReplicas(Gateway):
    """A gateway whose replicas are podium-runtime, with a model that echoes."""

    def start_replica(self, revision: str, number: int = 0) -> str:
        assert revision == f"{NAME}-00001"
        folder = self.folder / f"{revision}-{number}"
        folder.mkdir()
        replica = Replica(_config(folder)).wait_ready()
        self.replicas[revision] = replica.process
        return f"unix:{replica.address}"


def _config(folder: Path, **settings: Any) -> Path:
    made = python_version(folder, MODEL, **SETTINGS, **settings)
    made.signature = SIGNATURE
    return made.write()


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address of a replica without a gateway."""
    config = _config(tmp_path_factory.mktemp("direct"))
    with running(config, ready=False, listen={"host": "127.0.0.1", "port": 0}) as replica:
        replica.wait_for(lambda: any(line.get("message") == "listening" for line in replica.log_lines()))
        (told,) = [line["address"] for line in replica.log_lines() if line.get("message") == "listening"]
        host, _, port = told.rpartition(":")
        replica.address = (host, int(port))
        replica.wait_ready()
        yield host, int(port)


@pytest.fixture(scope="module")
def gate() -> Iterator[tuple[str, int]]:
    """The address of a gateway with the same replica behind it."""
    server = WireServer()
    server.start()
    gateway = RealReplicas(server.url)
    try:
        World(server, gateway).deploy(NAME)
        gateway.start_agent()
        server.wait_loaded(server.version, 30)
        yield "127.0.0.1", gateway.port
    finally:
        gateway.close()
        server.stop()


def _script(through: str, client: str, script: str, environment: str, *addresses: str) -> list[Row]:
    done = subprocess.run(
        [client_python(environment), HERE / script, *addresses],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    rows = [
        Row(through, client, *json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")
    ]
    assert done.returncode == 0, f"{rows}\n{done.stderr[-4000:]}"
    return rows


def _own(through: str, address: tuple[str, int]) -> list[Row]:
    def ask(method: str, path: str, body: Any = None) -> Any:
        connection = Connection(address)
        try:
            return connection.ask(method, path, body, {"content-type": "application/json"})
        finally:
            connection.close()

    return [Row(through, "our schema", *row) for row in schema_rest.rows(ask, through == GATEWAY)]


def test_conformance(direct: tuple[str, int], gate: tuple[str, int]) -> None:
    rows: list[Row] = []
    places = {DIRECT: direct, GATEWAY: gate}
    for through, address in places.items():
        http = f"{address[0]}:{address[1]}"
        # A replica speaks gRPC behind the gateway only: the gateway turns calls into plain requests.
        rpc = http if through == GATEWAY else "-"
        rows += _own(through, address)
        if rpc != "-":
            rows += _script(through, "our schema", "schema_grpc.py", "clients-tritonclient", rpc)
        rows += _script(through, "tritonclient", "triton_client.py", "clients-tritonclient", http, rpc)
        rows += _script(through, "kserve", "kserve_client.py", "clients-kserve", http, rpc)
    text = table(rows)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "conformance.md").write_text(text)
    (RESULTS / "conformance.json").write_text(json.dumps([row.__dict__ for row in rows], indent=1) + "\n")
    print("\n" + text)
    columns = {(row.through, row.client, row.transport) for row in rows}
    for client in ("our schema", "tritonclient", "kserve"):
        assert {(DIRECT, client, "REST"), (GATEWAY, client, "REST"), (GATEWAY, client, "gRPC")} <= columns
    assert len(rows) > 200
    failed = [row for row in rows if row.result.startswith("FAIL")]
    assert not failed, "\n".join(f"{row}" for row in failed)


def table(rows: list[Row]) -> str:
    """Markdown: calls down, clients across, reasons as footnotes."""
    columns = list(dict.fromkeys((row.transport, row.through, row.client) for row in rows))
    cells = {((row.transport, row.through, row.client), row.call): row.result for row in rows}
    reasons: dict[str, int] = {}
    heads = [f"{transport}, {client}, {through}" for transport, through, client in columns]
    lines = ["| call | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for call in dict.fromkeys(row.call for row in rows):
        shown = []
        for column in columns:
            result = cells.get((column, call), "")
            shown.append(
                result if result in ("pass", "") else f"[{reasons.setdefault(result, len(reasons) + 1)}]"
            )
        lines.append(f"| {call} | " + " | ".join(shown) + " |")
    notes = [f"[{number}] {reason}" for reason, number in reasons.items()]
    return "\n".join([*lines, "", "Empty: not asked there.", *notes, ""])
