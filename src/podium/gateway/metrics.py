"""Who asked for what, and how it ended, for Prometheus: `GET /metrics` on this machine's own address.

Started by `main` beside the agent, where the settings name a port. Reads Envoy's counters by `admin`; what they are is
`render.counting`'s to say. Names of callers are nobody else's business, so nothing but loopback is listened on.
"""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Iterable

from podium.gateway.admin import Admin
from podium.gateway.render.counting import BY_CALLER, BY_ROUTE, ODD, REFUSED
from podium.resources.errors import PodiumError, Unavailable

HOST = "127.0.0.1"
MOST_CALLERS = 100
"""Callers with a label of their own; the rest is `other`. A caller that has one keeps it."""
OTHER = "other"
_NAME = "podium_gateway_requests_total"
_HEAD = (
    f"# HELP {_NAME} Requests by caller (the token's subject; empty: none), by what they asked for, and by status "
    f"class; {REFUSED} is one of its own. At most {MOST_CALLERS} callers, the rest is `{OTHER}`.\n"
    f"# TYPE {_NAME} counter\n"
)
_LINE = re.compile(r"envoy_podium_(?P<set>callers|routes)_requests\{(?P<labels>.*)\} (?P<value>\d+)")
_LABEL = re.compile(r'([a-z]+)="([^"]*)"')
_ROUTE = re.compile(r"(?P<kind>deployment|route):(?P<workspace>[^/]+)/(?P<name>.+)")
_REQUEST_BYTES = 8192
_REQUEST_SECONDS = 5.0
_LOCAL = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")

Key = tuple[str, str, str]
"""(caller, Envoy's name of the route, status class)"""


class Callers:
    """What Envoy counted, with a bounded number of callers."""

    def __init__(self) -> None:
        self._named: set[str] = set()

    def text(self, statistics: str) -> str:
        """The metrics, from Envoy's own in Prometheus' format."""
        by_caller: Counter[Key] = Counter()
        by_route: Counter[Key] = Counter()
        for found in _LINE.finditer(statistics):
            labels = dict(_LABEL.findall(found["labels"]))
            # A Route's rules are counted as one.
            route = labels.get("route", "").partition("#")[0]
            key = (labels.get("caller", ""), route, _status(labels.get("code", "")))
            (by_caller if found["set"] == "callers" else by_route)[key] += int(found["value"])
        self._name(by_caller)
        shown: Counter[Key] = Counter()
        for (caller, route, status), count in by_caller.items():
            shown[caller if caller in self._named else OTHER, route, status] += count
            by_route["", route, status] -= count
        for (_, route, status), count in by_route.items():
            # The two sets are read one after the other: in between a request may have been counted in one of them.
            if count > 0:
                shown[OTHER, route, status] += count
        return _HEAD + "".join(_line(key, shown[key]) for key in sorted(shown))

    def _name(self, by_caller: Counter[Key]) -> None:
        """Who has a label: whoever had one, then the busiest."""
        totals: Counter[str] = Counter()
        for (caller, _, _), count in by_caller.items():
            totals[caller] += count
        for caller, _ in totals.most_common():
            if len(self._named) >= MOST_CALLERS:
                return
            self._named.add(caller)


def _status(code: str) -> str:
    """`4xx`, `429`; `none`: the client had gone; `other`: a server's own invention. Counters from before there were
    classes have the whole status."""
    if code in ("", "0"):
        return "none"
    if code == REFUSED:
        return code
    return OTHER if code[0] >= ODD else f"{code[0]}xx"


def _line(key: Key, count: int) -> str:
    caller, route, status = key
    found = _ROUTE.fullmatch(route)
    kind, workspace, name = (found["kind"], found["workspace"], found["name"]) if found else ("", "", "")
    labels: Iterable[tuple[str, str]] = (
        ("caller", caller), ("workspace", workspace), ("kind", kind), ("name", name), ("status", status),
    )  # fmt: skip
    words = ",".join(f'{label}="{value}"' for label, value in labels)
    return f"{_NAME}{{{words}}} {count}\n"


class MetricsServer:
    """Answers `GET /metrics` between `start` and `close`."""

    def __init__(self, admin: Admin, port: int) -> None:
        self._admin, self._port = admin, port
        self._callers = Callers()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises Unavailable where the port cannot be had."""
        try:
            self._server = await asyncio.start_server(self._serve, HOST, self._port, limit=_REQUEST_BYTES)
        except OSError as error:
            raise Unavailable(f"metrics cannot listen on {HOST}:{self._port}: {error.strerror}") from None

    async def close(self) -> None:
        """Give the port back."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            # Whoever it was has gone, or sends no request that is one.
            pass
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    async def _answer(self, head: bytes) -> bytes:
        first, *lines = head.split(b"\r\n")
        headers = dict(line.lower().split(b":", 1) for line in lines if b":" in line)
        # A page elsewhere whose name was made to lead here must not read who calls.
        if not _LOCAL.fullmatch(headers.get(b"host", b"").strip()):
            return _response("403 Forbidden", "ask for this machine by its own name\n")
        if first.split(b" ")[:2] != [b"GET", b"/metrics"]:
            return _response("404 Not Found", "GET /metrics\n")
        try:
            pattern = rf"^({re.escape(BY_CALLER)}|{re.escape(BY_ROUTE)})\."
            return _response("200 OK", self._callers.text(await self._admin.prometheus(pattern)))
        except PodiumError as error:
            return _response("503 Service Unavailable", f"{error.message}\n")


def _response(status: str, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
