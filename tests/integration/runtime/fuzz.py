"""Throws hostile requests at a real replica and judges every answer: `python -m tests.integration.runtime.fuzz`.

The rule: no 5xx for what the schema refuses, nothing that it refuses is answered with a prediction, nothing that is
right in all is refused, memory and open files as before, and a healthy replica afterwards. Called by test_fuzz with a
small number and by `make test-fuzz` with ten thousand. Calls `hostile` for the requests and runtime/tests for the
replica.
"""

import argparse
import contextlib
import http
import http.client
import json
import math
import select
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from jsonschema import ValidationError

from runtime.tests.contract import validator
from runtime.tests.replica import Replica, python_version, running
from tests.integration.runtime.case import INPUTS, MAX_BODY, MODEL, SIGNATURE, Case, post
from tests.integration.runtime.hostile import cases

GROWTH = 8 * 2**20
"""Bytes that the replica may be larger at the end than after the first tenth of the cases: what allocators keep."""
NO_ANSWER = 0
HANGS = -1
_PATIENCE = 10.0
_SCHEMA = validator({"$ref": "#/components/schemas/InferRequest"})


@dataclass
class Findings:
    """What came of all cases."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By kind and status; 0: the connection was closed without an answer."""
    wrong: list[str] = field(default_factory=list)
    """Answers against the rule, in words."""
    memory: list[int] = field(default_factory=list)
    """Bytes resident, after each tenth."""
    files: tuple[int, int] = (0, 0)
    """Open files before and after."""

    @property
    def growth(self) -> int:
        """Bytes from after the first tenth to the end."""
        return self.memory[-1] - self.memory[0]


def start(folder: Path) -> contextlib.AbstractContextManager[Replica]:
    """A replica of a model that answers everything that its signature allows."""
    made = python_version(folder, MODEL, maxBodyBytes=MAX_BODY, requestTimeoutSeconds=5)
    made.signature = SIGNATURE
    return running(made.write())


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise ProcessLookupError(pid)


def open_files(pid: int) -> int:
    """Descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def throw(replica: Replica, number: int, chosen: int) -> Findings:
    """`number` cases by mutation and by grammar, from the seed `chosen`."""
    found = Findings()
    healthy(replica)
    before = open_files(replica.process.pid)
    by_grammar = number // 5
    tenth = max(1, (number - by_grammar) // 9)
    for index, case in enumerate(cases(chosen, number - by_grammar), start=1):
        judge(replica, case, found)
        if index % tenth == 0:
            found.memory.append(resident(replica.process.pid))
    _by_grammar(replica, by_grammar, chosen, found)
    healthy(replica)
    deadline = time.monotonic() + _PATIENCE
    while open_files(replica.process.pid) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    found.files = (before, open_files(replica.process.pid))
    found.memory.append(resident(replica.process.pid))
    return found


def healthy(replica: Replica) -> None:
    """Assert that the replica is ready and predicts."""
    assert replica.process.poll() is None, replica.logged()
    assert replica.ask("GET", "/v2/health/ready").status == 200
    tensors = [
        {"name": "x", "shape": [2, 3], "datatype": "FP64", "data": [1, 2, None, 4, 5, 6]},
        {"name": "n", "shape": [2], "datatype": "INT32", "data": [10, 20]},
    ]
    answer = replica.infer({"inputs": tensors})
    assert answer.status == 200, answer.body
    assert answer.json()["outputs"][0]["data"] == [13.0, 35.0]


def judge(replica: Replica, case: Case, found: Findings) -> None:
    assert isinstance(replica.address, str)
    status = send(replica.address, case)
    found.answers[case.kind, status] += 1
    if status >= 500:
        found.wrong.append(f"{case.kind}: {status} for {case.sent[:300]!r}")
    elif 200 <= status < 300 and (case.refused or (case.body is not None and schema_refuses(case.body))):
        found.wrong.append(f"{case.kind}: {status}, though the schema refuses {case.sent[:300]!r}")
    elif case.accepted and status != http.HTTPStatus.OK:
        found.wrong.append(f"{case.kind}: {status}, though nothing is wrong with {case.sent[:300]!r}")
    elif status == HANGS:
        found.wrong.append(f"{case.kind}: neither a complete answer nor an end after {case.sent[:300]!r}")
    elif status == NO_ANSWER and not case.ends:
        found.wrong.append(f"{case.kind}: no answer to {case.sent[:300]!r}")


def schema_refuses(body: bytes) -> bool:
    """Whether a body is no JSON, breaks the published schema, or has another number of elements than its shape says."""

    def refuse(_: str) -> Any:
        raise ValueError("not a number of JSON")

    try:
        document = json.loads(body, parse_constant=refuse)
        _SCHEMA.validate(document)
    except (ValueError, RecursionError, ValidationError):
        return True
    known = {spec["name"] for spec in INPUTS}
    return any(
        tensor["name"] not in known or _elements(tensor["data"]) != math.prod(tensor["shape"])
        for tensor in document["inputs"]
    )


def _elements(data: Any) -> int:
    return sum(_elements(item) for item in data) if isinstance(data, list) else 1


def send(address: str, case: Case) -> int:
    """Send a case on a connection of its own; the status of the first answer, NO_ANSWER or HANGS."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        sock.settimeout(_PATIENCE)
        sock.connect(address)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            _send_all(sock, case.sent)
            if case.ends:
                sock.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(sock, method="HEAD" if case.sent.startswith(b"HEAD ") else None)
        try:
            response.begin()
            # What is announced must come.
            response.read()
        except (http.client.HTTPException, ConnectionError, ValueError):
            return NO_ANSWER
        except TimeoutError:
            return HANGS
        finally:
            response.close()
        return response.status


def _send_all(sock: socket.socket, content: bytes) -> None:
    """Send until an answer begins: a server may refuse before it has read everything."""
    left = memoryview(content)
    while left:
        readable, writable, _ = select.select([sock], [sock], [], _PATIENCE)
        if readable and len(left) < len(content):
            return
        if not writable:
            raise TimeoutError("the server reads nothing")
        left = left[sock.send(left[:65536]) :]


# --- by grammar ------------------------------------------------------------------------------------------------


_NUMBERS = st.one_of(
    st.integers(-5, 5), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.none()
)
_VALUES = st.recursive(
    st.one_of(_NUMBERS, st.booleans(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)
_NAMES = st.one_of(st.sampled_from([spec["name"] for spec in INPUTS]), st.text(max_size=4))
_TYPES = st.sampled_from(
    ["FP64", "FP32", "FP16", "BF16", "INT8", "INT32", "INT64", "UINT64", "BOOL", "BYTES", "X"]
)
_TENSORS = st.fixed_dictionaries(
    {
        "name": _NAMES,
        "shape": st.one_of(st.lists(st.integers(-1, 4), max_size=3), _VALUES),
        "datatype": st.one_of(_TYPES, _VALUES),
        "data": st.one_of(st.lists(_NUMBERS, max_size=8), st.lists(st.text(max_size=4), max_size=4), _VALUES),
    },
    optional={"parameters": _VALUES},
)
_DOCUMENTS = st.one_of(
    st.fixed_dictionaries(
        {"inputs": st.one_of(st.lists(_TENSORS, max_size=4), _VALUES)},
        optional={
            "id": _VALUES,
            "outputs": st.one_of(_VALUES, st.just([{"name": "y"}])),
            "parameters": _VALUES,
        },
    ),
    _VALUES,
)


def _by_grammar(replica: Replica, number: int, chosen: int, found: Findings) -> None:
    """Documents that the grammar of a request makes up, most of them almost right."""
    if not number:
        return

    @seed(chosen)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(_DOCUMENTS)
    def one(document: Any) -> None:
        body = json.dumps(document).encode()
        judge(replica, Case("grammar", post(body), body), found)

    one()


_WORDS = {NO_ANSWER: "closed", HANGS: "hangs"}


def table(found: Findings) -> Iterable[str]:
    """Kinds and the statuses that they got, one line each."""
    for kind in sorted({kind for kind, _ in found.answers}):
        told = {status: count for (name, status), count in sorted(found.answers.items()) if name == kind}
        words = ", ".join(f"{count} x {_WORDS.get(status, status)}" for status, count in told.items())
        yield f"{kind:18} {sum(told.values()):6}  {words}"


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20, help="(default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as replica:
        found = throw(replica, options.cases, options.seed)
    print("\n".join(table(found)))
    mebibytes = [round(size / 2**20, 1) for size in found.memory]
    print(
        f"memory after each tenth, MiB: {mebibytes}; growth {found.growth / 2**20:.1f}, at most {GROWTH // 2**20}"
    )
    print(f"open files before and after: {found.files}")
    print(f"answers against the rule: {len(found.wrong)}")
    print("\n".join(found.wrong[:20]))
    return 1 if found.wrong or found.growth > GROWTH or found.files[1] > found.files[0] else 0


if __name__ == "__main__":
    sys.exit(main())
