"""Sticky A/B: who meets which variant before and after a change of weights, at two gateways:
`python -m benchmarks.users`.

Two real gateways (agent and Envoy), three Deployments of small servers that name themselves. Every user asks once at
10 %, once at 50 %, and once at 50 % through the other gateway. Exits 1 when a user left a variant that did not shrink,
when a share is off by more than half a point, or when the gateways disagree.
"""

import argparse
import asyncio
import functools
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import report
from benchmarks.agents import Gateway, Objects, deployed, routed
from podium.resources.kinds import AnyResource

BEFORE = {"control": 80, "second": 10, "third": 10}
AFTER = {"control": 20, "second": 50, "third": 30}
_CONNECTIONS = 64
_ALLOWED_POINTS = 0.5


class Upstream(asyncio.Protocol):
    """A replica that answers each request with its name. Requests have no body here."""

    def __init__(self, name: str) -> None:
        self._answer = (
            f"HTTP/1.1 200 OK\r\nx-podium-revision: {name}-00001\r\ncontent-length: 0\r\n\r\n".encode()
        )
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember it."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """One answer per request that is whole."""
        *whole, self._rest = (self._rest + data).split(b"\r\n\r\n")
        if whole and isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(self._answer * len(whole))


async def ask_all(port: int, users: int, tell: Any) -> list[str]:
    """The variant that each user meets, by one request each over some connections."""
    met = [""] * users
    waiting = iter(range(users))
    done = 0

    async def some() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for user in waiting:
            writer.write(b"GET /v2/models/shop HTTP/1.1\r\nhost: shop\r\nx-user: user-%d\r\n\r\n" % user)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"user {user}: {head[:300]!r}")
            met[user] = (
                head.split(b"x-podium-revision: ", 1)[1].split(b"\r\n", 1)[0].decode().rpartition("-")[0]
            )
            done += 1
            if done % 5000 == 0:
                tell(done)
        writer.close()

    await asyncio.gather(*(some() for _ in range(_CONNECTIONS)))
    return met


async def measure(users: int, console: Console) -> list[dict[str, Any]]:
    """One row per pass."""
    objects = Objects()
    first, second = Gateway(objects, "first"), Gateway(objects, "second")
    loop = asyncio.get_running_loop()
    rows = []
    try:
        with console.status("starting two gateways") as status:
            made: list[AnyResource] = []
            for name in BEFORE:
                path = first.folder / f"{name}.sock"
                await loop.create_unix_server(functools.partial(Upstream, name), str(path), backlog=1024)
                made += deployed(name, [f"unix:{path}"])
            version = await objects.put([*made, _route(BEFORE)])
            for gateway in (first, second):
                await gateway.start()
                await gateway.loaded(version)

            async def met_at(gateway: Gateway, title: str) -> list[str]:
                return await ask_all(
                    gateway.settings.port,
                    users,
                    lambda done: status.update(f"{title}: {done:,} of {users:,} users"),
                )

            before = await met_at(first, "at 10 %")
            version = await objects.put([_route(AFTER)])
            await asyncio.gather(first.loaded(version), second.loaded(version))
            after = await met_at(first, "at 50 %")
            other = await met_at(second, "at 50 %, the other gateway")
        left = sum(1 for was, now in zip(before, after, strict=True) if was != "control" and was != now)
        rows = [
            {"pass": "before", **_shares(before, BEFORE), "left": 0, "disagree": 0},
            {"pass": "after", **_shares(after, AFTER), "left": left, "disagree": 0},
            {
                "pass": "after, the other gateway", **_shares(other, AFTER), "left": 0,
                "disagree": sum(1 for one, two in zip(after, other, strict=True) if one != two),
            },
        ]  # fmt: skip
    finally:
        await asyncio.gather(first.stop(), second.stop())
    return rows


def _route(shares: dict[str, int]) -> Any:
    to = [{"deployment": name, "weight": share} for name, share in shares.items()]
    return routed("shop", {"rules": [{"to": to, "sticky": {"header": "x-user"}}]})


def _shares(met: list[str], wanted: dict[str, int]) -> dict[str, float]:
    shares = {f"{name}_percent": 100 * met.count(name) / len(met) for name in wanted}
    off = max(abs(shares[f"{name}_percent"] - share) for name, share in wanted.items())
    return {"users": len(met), **shares, "off_by_points": off}


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000, help="(default: %(default)d)")
    parser.add_argument("--json", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    console = Console()
    rows = asyncio.run(measure(options.users, console))
    report.show("Who meets which variant", rows, console)
    console.print(f"written to {report.write('users', rows, options.json)}")
    good = all(
        not row["left"] and not row["disagree"] and row["off_by_points"] <= _ALLOWED_POINTS for row in rows
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
