"""The agent's two ports over the server's HTTP API (httpx, server-sent events). Made by `main`.

Every failure to reach the server, or to be understood by it, is Unavailable: the agent tries again, and what is
loaded stays as it is.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx
import orjson
from pydantic import ValidationError

from podium import __version__
from podium.gateway.feed import Change, Listing, Report
from podium.gateway.fleet import WATCHED_KINDS
from podium.gateway.render.access import AccessRules
from podium.resources.errors import Expired, Refused, Unavailable
from podium.resources.kinds import KINDS, AnyResource
from podium.resources.trust import Trust, usual

_PAGE = 500
_CALL_SECONDS = 10.0
_SILENCE_SECONDS = 30.0
"""The server sends a bookmark every 10 s; three missing ones mean that the connection is dead."""
_LARGEST_EVENT = 64 * 2**20


class ServerApi:
    """Feed and Reporter for the gateway called `name`. `close` when done. `trust`: whose certificates are taken; None:
    what the system knows."""

    def __init__(self, server_url: str, name: str, token: str | None, trust: Trust | None = None) -> None:
        headers = {"user-agent": f"podium-gateway/{__version__}"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        self._name = name
        # No proxy from the environment: a token must not go to one by accident.
        self._client = httpx.AsyncClient(
            base_url=f"{server_url.rstrip('/')}/api/v1",
            headers=headers,
            timeout=_CALL_SECONDS,
            trust_env=False,
            verify=usual(server_url) if trust is None else trust.context,
        )
        self._trust = trust

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def access(self) -> AccessRules:
        """Who may call."""
        return AccessRules.parse(await self._json("GET", "/gateway/config"))

    async def listing(self) -> Listing:
        """All objects of the watched kinds. The version is the oldest of the lists': what happened to one kind while
        another was read comes again by the watch."""
        objects: list[AnyResource] = []
        versions: list[int] = []
        for kind in WATCHED_KINDS:
            after: str | None = None
            while True:
                query: dict[str, str | int] = {"limit": _PAGE}
                if after is not None:
                    query["continue"] = after
                page = await self._json("GET", f"/{KINDS[kind].plural}", params=query)
                with _understood("list"):
                    objects += [KINDS[kind].parse(item) for item in page["items"]]
                    versions.append(int(page["version"]))
                    after = page.get("continue")
                if not after:
                    break
        return Listing(objects, min(versions))

    async def watch(self, after: int) -> AsyncIterator[Sequence[Change]]:
        """Changes later than `after`."""
        query = {"kinds": ",".join(WATCHED_KINDS), "after": str(after)}
        timeout = httpx.Timeout(_CALL_SECONDS, read=_SILENCE_SECONDS)
        with self._reached():
            async with self._client.stream("GET", "/watch", params=query, timeout=timeout) as response:
                if response.status_code != 200:
                    await response.aread()
                    _raise_for(response)
                events = EventBuffer()
                async for chunk in response.aiter_bytes():
                    changes = [_change(*event) for event in events.feed(chunk)]
                    if changes:
                        yield changes

    async def report(self, report: Report) -> None:
        """Deliver a report. Raises Refused where another gateway has this one's name."""
        await self._json("PUT", f"/gateways/{self._name}", content=orjson.dumps(report.document()))

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            if self._trust is not None:
                # The server may have a new certificate; the next try knows it.
                self._trust.renew()
            raise Unavailable(f"the server does not answer: {error!r}") from error

    async def _json(self, method: str, path: str, **arguments: Any) -> Any:
        if "content" in arguments:
            arguments["headers"] = {"content-type": "application/json"}
        with self._reached():
            response = await self._client.request(method, path, **arguments)
        if response.status_code not in (200, 201, 204):
            _raise_for(response)
        with _understood(path):
            return orjson.loads(response.content) if response.content else None


class EventBuffer:
    """Takes a stream of server-sent events apart: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._number = b""
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
        """`id` and data of each event that is complete now. Raises Unavailable for an event that never ends."""
        self._size += len(chunk)
        *lines, rest = chunk.split(b"\n")
        for part in lines:
            line = b"".join((*self._line, part)).removesuffix(b"\r")
            self._line = []
            if line:
                self._take(line)
            else:
                if self._data:
                    yield self._number, b"\n".join(self._data)
                self._number, self._data, self._size = b"", [], len(chunk)
        self._line.append(rest)
        if self._size > _LARGEST_EVENT:
            raise Unavailable("the server's event is too large")

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"id":
            self._number = value.strip()
        elif name == b"data":
            self._data.append(value.removeprefix(b" "))


def _change(position: bytes, data: bytes) -> Change:
    with _understood("watch"):
        given = orjson.loads(data)
        version = int(given["version"])
        through = int(position) if position else version
        if given["type"] == "BOOKMARK":
            return Change(version, through)
        document = given["object"]
        return Change(version, through, KINDS[document["kind"]].parse(document), given["type"] == "DELETED")


@contextlib.contextmanager
def _understood(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise Unavailable(f"the server's answer to {what} was not understood: {error!r}"[:500]) from error


def _raise_for(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.GONE:
        raise Expired("the server does not keep changes that old")
    if response.status_code == httpx.codes.CONFLICT and response.request.method == "PUT":
        with _understood("report"):
            problem = orjson.loads(response.content)
            words, step = str(problem["detail"]), problem.get("nextStep")
        raise Refused(words[:1000], next_step=None if step is None else str(step)[:1000])
    raise Unavailable(
        f"{response.request.method} {response.request.url.path}: {response.status_code} {response.text[:300]}",
        next_step="check the gateway's token" if response.status_code in (401, 403) else None,
    )
