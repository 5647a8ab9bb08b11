"""Everything that is measured, started side by side and idle until its turn.

Called by `__main__`. Two cores: what is compared runs alone on the first (one worker thread, or one Python process); on
the second runs what asks and what answers. With a third core, what answers has that one to itself.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway import chain, envoys
from benchmarks.gateway.generators import Asked
from benchmarks.runtime.contestants import ROOT, bound_to
from podium.gateway.render.access import FILTERS
from podium.resources.errors import Unavailable

DIRECT, PLAIN, FULL, QUIET, DEPLOYMENT = (
    "backend itself",
    "plain Envoy",
    "full chain",
    "full chain without record",
    "Deployment without a Route",
)
PROXIES = {"starlette": "Starlette + httpx", "aiohttp": "aiohttp"}
BODY = '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[0.1,0.2,0.3,0.4]}]}'


@dataclass(frozen=True)
class Cores:
    """Which core who is bound to; None: not bound."""

    compared: int | None
    asking: int | None
    answering: int | None

    @classmethod
    def found(cls) -> "Cores":
        """As many as there are."""
        known = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if len(known) < 2:
            return cls(None, None, None)
        return cls(known[0], known[1], known[2] if len(known) > 2 else known[1])

    def __str__(self) -> str:
        if self.compared is None:
            return "not bound: everything shares what there is"
        return f"compared on {self.compared}, asking on {self.asking}, answering on {self.answering}"


@dataclass(frozen=True)
class Contestant:
    """One row. `pid`: whose processor time is counted."""

    name: str
    asked: Asked
    pid: int


@dataclass(frozen=True)
class Field:
    """All of them, and the chain with one part missing each."""

    contestants: Sequence[Contestant]
    parts: Sequence[Contestant]


@contextlib.contextmanager
def started(cores: Cores, say: Callable[[str], object], *, parts: bool, proxies: bool) -> Iterator[Field]:
    """Everything, until the block ends."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(envoys.folder())
        sockets = [place / "one.sock", place / "two.sock"]
        say("starting the backend")
        port = envoys.free_port()
        config = envoys.written(place, "backend", envoys.backend(sockets, port))
        pid = stack.enter_context(envoys.running(config, place, cores.answering))
        envoys.answers({"unix": str(sockets[-1])}, place / "backend.log")
        envoys.answers({"port": port}, place / "backend.log")
        made = chain.full(place, envoys.free_port(), sockets, place / "record-full.log")
        found = [Contestant(DIRECT, _asked(port, made.token), pid)]
        say("starting plain Envoy")
        port = envoys.free_port()
        config = envoys.written(place, "plain", envoys.passing(port, sockets))
        pid = stack.enter_context(envoys.running(config, place, cores.compared))
        envoys.answers({"port": port}, place / "plain.log")
        found.append(Contestant(PLAIN, _asked(port, made.token), pid))
        whole, others = _chains(stack, place, made, cores, say, parts=parts)
        found += whole
        if proxies:
            for kind, name in PROXIES.items():
                say(f"starting {name}")
                found.append(_proxy(stack, (kind, name), sockets[0], place, cores, made.token))
        yield Field(found, others)


def _chains(
    stack: contextlib.ExitStack, place: Path, made: chain.Chain, cores: Cores,
    say: Callable[[str], object], *, parts: bool,
) -> tuple[list[Contestant], list[Contestant]]:  # fmt: skip
    def start(name: str, cut: chain.Cut, path: str = "churn") -> Contestant:
        say(f"starting {name}")
        stem, port = f"chain-{len(list(place.glob('chain-*.json')))}", envoys.free_port()
        config = chain.without(made.config, cut, port, place / f"{stem}.record")
        pid = stack.enter_context(envoys.running(envoys.written(place, stem, config), place, cores.compared))
        envoys.answers({"port": port}, place / f"{stem}.log")
        return Contestant(name, _asked(port, made.token, path), pid)

    def nothing(manager: object) -> None:
        """All of it."""

    cuts = chain.cuts(made.config)
    whole = [
        start(FULL, nothing), start(QUIET, cuts[chain.RECORD]),
        start(DEPLOYMENT, cuts[chain.RECORD], path=chain.ARMS[0]),
    ]  # fmt: skip
    others = []
    if parts:
        for name, cut in cuts.items():
            if name in (f"filter {token}" for token, _ in FILTERS.values()):
                continue  # one alone turns every request away
            others.append(start(f"without {name}", cut))
    return whole, others


def _proxy(
    stack: contextlib.ExitStack, which: tuple[str, str], backend: Path, place: Path, cores: Cores, token: str
) -> Contestant:
    kind, name = which
    port, log = envoys.free_port(), place / f"{kind}.log"
    with bound_to(cores.compared), log.open("wb") as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gateway.proxies", kind, str(port), str(backend)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=words, stderr=words,
        )  # fmt: skip
    stack.callback(_end, process)
    envoys.answers({"port": port}, log, 60.0)
    return Contestant(name, _asked(port, token), process.pid)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _asked(port: int, token: str, name: str = "churn") -> Asked:
    """The same requests for everybody, token included, whoever reads it; each of 256 users in turn."""
    own = {"content-type": "application/json", "user-agent": "bench", "authorization": f"Bearer {token}"}
    headers = [{**own, chain.STICKY: f"user-{number}"} for number in range(chain.USERS)]
    return Asked(port, f"/v2/models/{name}/infer", BODY, headers)


def checked(contestants: Sequence[Contestant]) -> None:
    """Every one answers as the backend does. Raises Unavailable."""
    import httpx

    for one in contestants:
        for headers in one.asked.headers[:4]:
            answer = httpx.post(
                f"http://127.0.0.1:{one.asked.port}{one.asked.path}",
                content=BODY,
                headers=headers,
                timeout=30,
            )
            if answer.status_code != 200 or answer.text != envoys.ANSWER:
                raise Unavailable(f"{one.name} answers {answer.status_code}: {answer.text[:300]}")
