"""The agent's loops end when they are told to, at whatever moment that is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from podium.gateway.agent import Agent
from podium.gateway.settings import GatewaySettings


class Silent:
    """A server that has nothing to say. Implements Feed and Reports."""

    async def listing(self) -> Any:
        await asyncio.Event().wait()

    async def watch(self, after: int) -> AsyncIterator[Sequence[Any]]:
        await asyncio.Event().wait()
        yield []

    async def access(self) -> Any:
        return None

    async def report(self, document: Any) -> None:
        return None


@pytest.mark.parametrize("loop", ["_load", "_follow_access", "_report"])
def test_an_end_that_meets_news_is_not_lost(tmp_path: Path, loop: str) -> None:
    """News and the end come within the same few turns of the event loop."""

    async def main() -> None:
        server: Any = Silent()
        settings = GatewaySettings(home=tmp_path, name="g", server_url="http://127.0.0.1:9")
        settings.layout.prepare()
        agent = Agent(settings, server, server)
        for steps in range(6):
            task = asyncio.create_task(getattr(agent, loop)())
            for _ in range(10):
                await asyncio.sleep(0)
            for news in (agent._work, agent._access_due, agent._reports.due):
                news.set()
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            _, pending = await asyncio.wait({task}, timeout=10)
            assert not pending, steps

    asyncio.run(main())
