"""Podium's processes started one by one, without the supervisor: several servers on one database, or something between
the gateway agent and the server. Called by `concurrency` and tests/chaos.
"""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from podium.demo.installation import Installation
from podium.resources.errors import Unavailable

Alter = Callable[[dict[str, Any]], None]
"""Changes an object in place, on its way from the server to the gateway agent."""


class Parts(Installation):
    """An installation whose processes are this object's children: `servers` and, if wanted, a gateway agent."""

    def __init__(
        self,
        home: Path,
        *,
        servers: int = 1,
        gateway: bool = True,
        alter: Alter | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(home, environment=environment)
        self._servers, self._has_gateway, self._alter = servers, gateway, alter
        self._ports: list[int] = []
        self._running: list[subprocess.Popen[bytes]] = []
        self._between: Between | None = None

    @property
    def urls(self) -> list[str]:
        """One API address per server."""
        return [f"http://127.0.0.1:{port}" for port in self._ports]

    @property
    def server_pids(self) -> list[int]:
        """Of the servers, in the order of `urls`."""
        return [process.pid for process in self._running[: self._servers]]

    def start(self, timeout: float = 120.0) -> None:
        """Start the servers one after the other, then the gateway agent, and wait until they answer."""
        (self.home / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.home.chmod(0o700)
        *self._ports, gateway = _free_ports(self._servers + 1)
        content = {"url": self.urls[0], "gateway": f"http://127.0.0.1:{gateway}"}
        (self.home / "connection.json").write_text(json.dumps(content))
        for number, port in enumerate(self._ports):
            self._spawn(f"server-{number}", "server", "--api-port", str(port))
            self._wait(f"{self.urls[number]}/readyz", timeout)
        if self._has_gateway:
            self._between = Between(self._ports[0], self._alter)
            self._spawn(
                "agent", "gateway", "--api-port", str(self._between.port), "--gateway-port", str(gateway)
            )
            self._wait(f"{content['gateway']}/v2/health/ready", timeout)

    def _spawn(self, name: str, *command: str) -> None:
        with (self.home / "logs" / f"{name}.log").open("ab") as log:
            self._running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "podium.app", *command, "--home", str(self.home)],
                    env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )
            )  # fmt: skip

    def _wait(self, url: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._running[-1].poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url, timeout=2, trust_env=False).status_code == httpx.codes.OK:
                    return
            time.sleep(0.05)
        raise Unavailable(f"{url} does not answer\n{self.last_words()}")

    def stop(self, *, keep_serving: bool = False) -> None:
        """End all of it, Envoy and replicas too."""
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
        self._running.clear()
        if self._between is not None:
            self._between.close()
        super().stop(keep_serving=keep_serving)


class Between:
    """A relay on loopback that stands where the agent expects the server. With `alter` it changes what passes."""

    def __init__(self, server_port: int, alter: Alter | None) -> None:
        handler = type(
            "Relay", (_Relay,), {"server_port": server_port, "alter": staticmethod(alter or _as_it_is)}
        )
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="relay", daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._server.shutdown()
        self._server.server_close()


def _as_it_is(found: dict[str, Any]) -> None:
    """Alters nothing."""


class _Relay(BaseHTTPRequestHandler):
    """Passes one request on and its answer back, line by line, so that a watch flows."""

    server_port: int
    alter: Alter

    def _relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
        }
        connection = HTTPConnection("127.0.0.1", self.server_port, timeout=60)
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            self.send_response(answer.status)
            self.send_header("content-type", answer.headers.get("content-type", ""))
            self.end_headers()
            if "event-stream" in answer.headers.get("content-type", ""):
                while line := answer.readline():
                    self.wfile.write(self._altered_event(line))
            else:
                self.wfile.write(self._altered_page(answer.read()))
        except OSError:
            # Either side has gone; the agent asks again.
            self.close_connection = True
        finally:
            connection.close()

    do_GET = do_PUT = do_POST = _relay  # noqa: N815 - the names that http.server looks for

    def _altered_event(self, line: bytes) -> bytes:
        if not line.startswith(b"data:"):
            return line
        event = json.loads(line.removeprefix(b"data:"))
        if event.get("object"):
            self.alter(event["object"])
        return b"data: " + json.dumps(event).encode() + b"\n"

    def _altered_page(self, body: bytes) -> bytes:
        page = json.loads(body) if body else None
        if not isinstance(page, dict) or "items" not in page:
            return body
        for item in page["items"]:
            self.alter(item)
        return json.dumps(page).encode()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Says nothing."""


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]
