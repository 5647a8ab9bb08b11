"""Which part of the chain needs how many instructions: `python -m benchmarks.gateway.instructions`.

For whoever changes the chain: repeatable to 0.3 % on any machine, whatever else that does. It is no measure of time.
Needs valgrind. One Envoy under callgrind has a listener for plain Envoy, for the full chain and for the chain without
each of its parts, with one worker; each is asked on one connection, and the worker's instructions are taken apart by
request. What the kernel does is not counted.
"""

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report
from benchmarks.gateway import chain, envoys
from benchmarks.gateway.contestants import BODY, FULL, PLAIN
from podium.gateway.binary import find_binary
from podium.gateway.render.access import FILTERS
from podium.resources.errors import Unavailable

_WARM, _COUNTED = chain.USERS, 60
_START_SECONDS = 180.0
_TOTAL = re.compile(r"^(?:totals|summary): (\d+)", re.M)
Way = tuple[str, int]
"""What it is called, and its port."""


def main() -> int:
    """Entry point."""
    console = Console()
    with envoys.folder() as place:
        sockets = [place / "one.sock", place / "two.sock"]
        backend = envoys.written(place, "backend", envoys.backend(sockets, envoys.free_port()))
        with envoys.running(backend, place, None):
            envoys.answers({"unix": str(sockets[-1])}, place / "backend.log")
            made = chain.full(place, envoys.free_port(), sockets, place / "record.log")
            config, ways = together(made.config, place, sockets)
            counted = _counted(envoys.written(place, "together", config), place, ways, made.token)
    whole = counted[FULL]
    rows = [
        {"chain": name, "instructions": round(value), "saved": round(whole - value)}
        for name, value in sorted(counted.items(), key=lambda one: one[1])
    ]
    report.show("Instructions per request", rows, console)
    return 0


def together(config: dict[str, Any], place: Path, sockets: list[Path]) -> tuple[dict[str, Any], list[Way]]:
    """One configuration with a listener for each way, on a port of its own; plain Envoy and the
    full chain first."""
    alone = [
        f"filter {name}" for name, _ in FILTERS.values()
    ]  # without one of them every request is turned away
    cuts: dict[str, chain.Cut] = {FULL: lambda manager: None}
    cuts |= {f"without {name}": cut for name, cut in chain.cuts(config).items() if name not in alone}
    ports: set[int] = set()
    while len(ports) <= len(cuts):
        ports.add(envoys.free_port())
    plain, *others = sorted(ports)
    passing = envoys.passing(plain, sockets)["static_resources"]
    ways: list[Way] = [(PLAIN, plain)]
    whole = chain.without(config, cuts[FULL], others[0], place / "0.record")
    whole["static_resources"]["listeners"] = passing["listeners"]
    whole["static_resources"]["clusters"] += passing["clusters"]
    for number, ((name, cut), port) in enumerate(zip(cuts.items(), others, strict=True)):
        found = chain.without(config, cut, port, place / f"{number}.record")
        [own] = found["static_resources"]["listeners"]
        whole["static_resources"]["listeners"].append({**own, "name": f"way-{number}"})
        ways.append((name, port))
    return whole, ways


def _counted(config: Path, place: Path, ways: list[Way], token: str) -> dict[str, float]:
    """Way -> instructions per request. Raises Unavailable where Envoy does not start or a request fails."""
    out, log, prefix = place / "counted", place / "callgrind.log", place / "vgdb"
    with log.open("wb") as words:
        process = subprocess.Popen(
            ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes",
             f"--callgrind-out-file={out}", f"--vgdb-prefix={prefix}", find_binary().path, "-c", config,
             "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error"],
            stdin=subprocess.DEVNULL, stdout=words, stderr=words,
        )  # fmt: skip

    def tell(*order: str) -> None:
        told = ["vgdb", f"--pid={process.pid}", f"--vgdb-prefix={prefix}", *order]
        subprocess.run(told, check=True, capture_output=True, timeout=60)

    try:
        for _, port in ways:
            envoys.answers({"port": port}, log, _START_SECONDS)
        for _, port in ways:
            ask(port, token, _WARM)
        tell("instrumentation", "on")
        return {name: _one(port, token, out, tell) for name, port in ways}
    finally:
        process.kill()
        process.wait()


def _one(port: int, token: str, out: Path, tell: Callable[..., None]) -> float:
    ask(port, token, 5)
    tell("zero")
    for old in out.parent.glob(f"{out.name}*"):
        old.unlink()
    ask(port, token, _COUNTED)
    tell("dump")
    # A file for each thread; the worker's is the one in which something has happened.
    texts = [path.read_text(errors="replace") for path in out.parent.glob(f"{out.name}*")]
    return max(int(total) for text in texts for total in _TOTAL.findall(text)) / _COUNTED


def ask(port: int, token: str, count: int) -> None:
    """Requests on one connection, one after the other, each of another user. Raises Unavailable where
    one is not answered with 200."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        answers = connection.makefile("rb")
        for number in range(count):
            head = (
                f"POST /v2/models/{chain.ROUTE}/infer HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
                f"content-type: application/json\r\nauthorization: Bearer {token}\r\n"
                f"{chain.STICKY}: user-{number % chain.USERS}\r\ncontent-length: {len(BODY)}\r\n\r\n"
            )
            connection.sendall((head + BODY).encode())
            status, length = answers.readline(), 0
            while (line := answers.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            body = answers.read(length)
            if b" 200 " not in status:
                raise Unavailable(f"port {port} answers {status!r}: {body[:300]!r}")


if __name__ == "__main__":
    sys.exit(main())
