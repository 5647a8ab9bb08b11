"""What is done to the traffic itself while requests flow: scaled, routed otherwise. One function per change.

Called as `disruptions` is, by `availability` and tests/chaos: each takes a World whose Deployment is served and leaves
it so.
"""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
from cryptography import x509

from benchmarks.disruptions import other, scale
from benchmarks.world import NAME, World, until
from podium.demo.load import Load, running
from podium.gateway.settings import CertificateFiles
from podium.resources.errors import NotFound
from tests.integration.certificates import Authority

_VARIANT = f"{NAME}-next"
_SLEEPER = f"{NAME}-sleeper"
_ASKED_EVERY, _NOTICE = 0.2, 3
"""Seconds."""
_RENEWALS = 3
_BESIDE_RATE = 40.0
"""Requests per second of streams beside the main one."""


def scaled(world: World) -> str:
    """1 replica, 4 of them, 1 again."""
    scale(world, 4)
    first = {item.pid for item in world.stable().status.replicas}
    assert len(first) == 4, f"replicas: {first}"
    scale(world, 1)
    return "4 replicas ready and in the routes, then 3 drained"


def route_changed(world: World) -> str:
    """A Route takes the Deployment's path over, splits it, moves all to another Deployment, and goes again."""
    world.settle(other(world), name=_VARIANT)
    rules: list[list[dict[str, Any]]] = [
        [_split(100, 0)],
        [_split(70, 30)],
        [{**_split(20, 80), "sticky": {"header": "x-request-id"}}],
        [{"match": {"headers": {"x-none": {"present": False}}}, **_split(0, 100)}, {"to": NAME}],
    ]
    for wish in rules:
        _apply_route(world, wish)
    world.installation.client.delete("Route", NAME)
    _all_loaded(world)
    world.installation.client.delete("Deployment", _VARIANT)
    until(lambda: _gone(world, _VARIANT), 60.0, lambda: f"{_VARIANT} does not go")
    return f"{len(rules)} changes of a Route, then none"


def _split(own: int, variant: int) -> dict[str, Any]:
    return {"to": [{"deployment": NAME, "weight": own}, {"deployment": _VARIANT, "weight": variant}]}


def _apply_route(world: World, rules: list[dict[str, Any]]) -> None:
    document = {
        "apiVersion": "podium/v1", "kind": "Route", "metadata": {"name": NAME}, "spec": {"rules": rules},
    }  # fmt: skip
    generation = world.installation.client.apply(document).object["metadata"]["generation"]

    def loaded() -> bool:
        status = world.installation.client.get("Route", NAME).status
        return bool(status.loaded and status.observed_generation == generation)

    until(
        loaded,
        60.0,
        lambda: f"the Route is not loaded: {world.installation.client.get('Route', NAME).status}",
    )


def _all_loaded(world: World) -> None:
    """Everything that was committed until now is in force at the gateway."""
    client = world.installation.client
    made = client.apply(
        {"apiVersion": "podium/v1", "kind": "Workspace", "metadata": {"name": f"w{time.time_ns()}"}}
    )
    version = int(made.object["metadata"]["resourceVersion"])
    until(
        lambda: min((int(row["observedVersion"]) for row in client.gateways()), default=0) >= version,
        60.0,
        lambda: f"a gateway has not loaded {version}: {client.gateways()}",
    )


def _gone(world: World, name: str) -> bool:
    return all(item.metadata.name != name for item in world.installation.client.list("Deployment"))


def token_rotated(world: World) -> str:
    """One caller of its own changes from a token to the one that takes its place; the old one ends by itself."""
    client, url = world.installation.client, f"{world.installation.gateway}/v2/models/{NAME}/infer"
    issued = client.create_token("rotated", "predict")
    with _beside(world, url, issued.token) as before:
        began = time.monotonic()
        fresh = client.rotate_token(issued.info.id, overlap=5.0)
        with _beside(world, url, fresh.token) as after:
            before.stop()

            def refused() -> bool:
                headers = {"authorization": f"Bearer {issued.token}"}
                return (
                    httpx.post(url, content=world.bodies[0], headers=headers, trust_env=False).status_code
                    == 401
                )

            until(refused, 60.0, lambda: "the old token does not end")
            seconds = time.monotonic() - began
    _all_good("with the old token", before)
    _all_good("with the new token", after)
    return f"{_count(before, after)} requests of that caller, the old token ended after {seconds:.1f} s"


def slept_and_woken(world: World) -> str:
    """Beside the main stream: a Deployment without requests goes to sleep, and the next ones wake it. Twice."""
    scaling = {
        "min": 0, "max": 1, "stableWindow": "5s", "panicWindow": "2s", "scaleDownDelay": "0s", "scaleToZeroAfter": "5s",
    }  # fmt: skip
    wish = world.wish("first", name=_SLEEPER)
    wish["spec"] |= {"scaling": scaling}
    client = world.installation.client
    client.apply(wish)
    url = f"{world.installation.gateway}/v2/models/{_SLEEPER}/infer"
    waits = []
    for _ in range(2):
        until(
            lambda: _sleeps(world), 120.0, lambda: f"it does not sleep: {world.deployment(_SLEEPER).status}"
        )
        with _beside(world, url, world.installation.token) as load:
            load.wait_until(lambda answers: len(answers.rows) > 100, 60.0)
        _all_good("of those that woke it", load)
        waits.append(max(row.seconds for row in load.answers.rows))
    client.delete("Deployment", _SLEEPER)
    until(lambda: _gone(world, _SLEEPER), 60.0, lambda: f"{_SLEEPER} does not go")
    return f"woken twice by {_BESIDE_RATE:g} requests/s, which waited {max(waits):.1f} s at most"


def _sleeps(world: World) -> bool:
    if world.deployment(_SLEEPER).status.stable_revision is None:
        return False
    replicas = world.stable(_SLEEPER).status.replicas
    return bool(replicas) and all(item.phase == "Dormant" for item in replicas)


def gateway_restarted(world: World) -> str:
    """A second gateway beside the first: it is drained, stopped and started again, and its clients go to the other."""
    with _second_gateway(world) as (process, port, start):
        first = httpx.URL(world.installation.gateway).port or 80
        url = f"http://127.0.0.1:{port}/v2/models/{NAME}/infer"
        load = _EitherGateway(url, world.bodies, rate=_BESIDE_RATE, token=world.installation.token)
        load.ports = (port, first)
        with _balanced(load), running(load, requests=20, timeout=60.0):
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, f"the gateway ended with {process.returncode}"
            mark = time.time()
            load.wait_until(lambda answers: bool(answers.since(mark + 0.5)), 60.0)
            again = start()
            mark = time.time()
            load.wait_until(lambda answers: bool(answers.since(mark + 1.0)), 60.0)
        _all_good("of its clients", load)
        again.send_signal(signal.SIGINT)
        assert again.wait(60) == 0, f"the gateway ended with {again.returncode}"
        known = [row["name"] for row in world.installation.client.gateways()]
        assert "second" not in known, f"a gateway that was stopped is still waited for: {known}"
    return f"drained and started again under {_count(load)} requests of its own clients"


def certificate_renewed(world: World) -> str:
    """A second gateway, with TLS, beside the first: its certificate is replaced three times, while some clients keep
    their connections and others make one for each request."""
    folder = world.installation.home / "certificates"
    folder.mkdir(mode=0o700, exist_ok=True)
    authority = Authority(folder)
    trusted = ssl.create_default_context(cafile=authority.file)
    with _second_gateway(world, authority.issue().write(folder), trusted) as (process, port, _):
        url, token = f"https://localhost:{port}/v2/models/{NAME}/infer", world.installation.token
        kept, anew = (
            kind(url, world.bodies, rate=_BESIDE_RATE, token=token, timeout=60.0, tls=trusted)
            for kind in (Load, _NewConnections)
        )
        with running(kept, requests=20, timeout=60.0), running(anew, requests=20, timeout=60.0):
            for _ in range(_RENEWALS):
                _renew(world, authority, port)
                mark = time.time() + 0.5
                for load in (kept, anew):
                    _asked_since(load, mark)
        for load, whose in ((kept, "on kept connections"), (anew, "on new connections")):
            _all_good(whose, load)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, f"the gateway ended with {process.returncode}"
    return f"renewed {_RENEWALS} times under {_count(kept)} requests on kept connections and {_count(anew)} on new ones"


def _renew(world: World, authority: Authority, port: int) -> None:
    """Another certificate in the place of the one before; returns when new connections get it."""
    issued = authority.issue()
    issued.write(authority.folder)
    until(
        lambda: _shown(port) == issued.serial,
        60.0,
        lambda: f"the certificate is not renewed: {world.installation.client.gateways()}",
    )


def _asked_since(load: Load, mark: float) -> None:
    load.wait_until(lambda answers: bool(answers.since(mark)), 60.0)


class _NewConnections(Load):
    """Each request on a connection of its own."""

    def _take(self) -> None:
        while self._idle:
            self._idle.pop().close()


def _shown(port: int) -> int:
    """The serial number of the certificate that a new connection gets."""
    found = ssl.get_server_certificate(("127.0.0.1", port), timeout=20)
    return x509.load_pem_x509_certificate(found.encode()).serial_number


class _EitherGateway(Load):
    """Clients that know two gateways: a new connection goes to the first one that was ready when it was last asked."""

    ports: Sequence[int] = ()
    ready: frozenset[int] = frozenset()

    async def _connect(self) -> Any:
        self._port = next((port for port in self.ports if port in self.ready), self.ports[-1])
        return await super()._connect()


@contextlib.contextmanager
def _balanced(load: _EitherGateway) -> Iterator[None]:
    """What a load balancer does: ask each gateway again and again whether it is ready."""
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while not ended.wait(_ASKED_EVERY):
                load.ready = frozenset(port for port in load.ports if _ready(client, port))

    load.ready = frozenset(load.ports)
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield
    finally:
        ended.set()
        asking.join()


def _ready(client: httpx.Client, port: int, scheme: str = "http") -> bool:
    try:
        return client.get(f"{scheme}://127.0.0.1:{port}/v2/health/ready").status_code == 200
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def _second_gateway(
    world: World, files: CertificateFiles | None = None, trusted: ssl.SSLContext | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int, Any]]:
    """`podium gateway run second`, ready; its port; and what starts it once more. `files`: with TLS, whose certificate
    is `trusted`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    running_now: list[subprocess.Popen[bytes]] = []
    own = {"PODIUM_URL": world.installation.addresses()["url"], "PODIUM_TOKEN": world.installation.token}
    if files is not None:
        own |= {"PODIUM_GATEWAY_TLS_CERT": str(files.chain), "PODIUM_GATEWAY_TLS_KEY": str(files.key)}
    scheme, verify = ("http", True) if trusted is None else ("https", trusted)
    log = world.installation.home / "second-gateway.log"

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "podium.cli", "gateway", "run", "second", "--port", str(port)]
        command += ["--notice", str(_NOTICE)]
        environment = {**os.environ, **world.installation.environment, **own}
        with log.open("ab") as words:
            made = subprocess.Popen(command, env=environment, stdout=words, stderr=words)
        running_now.append(made)

        with httpx.Client(trust_env=False, timeout=5.0, verify=verify) as client:
            until(
                lambda: _ready(client, port, scheme),
                60.0,
                lambda: f"the second gateway is not ready: {log.read_text()[-2000:]}",
            )
        return made

    try:
        yield start(), port, start
    finally:
        for made in running_now:
            if made.poll() is None:
                made.send_signal(signal.SIGINT)
                made.wait(60)
        # Nothing waits for it, also when this came out wrong.
        with contextlib.suppress(NotFound):
            world.installation.client.forget_gateway("second", force=True)


def _beside(world: World, url: str, token: str) -> contextlib.AbstractContextManager[Load]:
    """A small stream of another caller or to another Deployment, entered when it flows."""
    return running(
        Load(url, world.bodies, rate=_BESIDE_RATE, token=token, timeout=60.0), requests=20, timeout=60.0
    )


def _all_good(whose: str, load: Load) -> None:
    failed = load.answers.failures()
    assert not failed, f"{len(failed)} of {len(load.answers.rows)} requests {whose} failed: {failed[:3]}"


def _count(*loads: Load) -> int:
    return sum(len(load.answers.rows) for load in loads)
