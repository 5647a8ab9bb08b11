"""Entry points of the gateway: run an agent, or stop what an agent left running. Called by `podium.app`.

Signals to a running agent:

    SIGTERM   the agent ends, Envoy serves on (an agent started later adopts it)
    SIGINT    drain and stop Envoy, then end: what `podium down` and Ctrl-C want
    SIGHUP    hand Envoy over to a new one in place (after an upgrade, or to take in changed settings)
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator

from podium.gateway.admin import Admin
from podium.gateway.agent import Agent
from podium.gateway.binary import find_binary
from podium.gateway.envoy_process import EnvoyProcess
from podium.gateway.metrics import MetricsServer
from podium.gateway.server_api import ServerApi
from podium.gateway.settings import GatewaySettings
from podium.gateway.trust import trust_of
from podium.resources.errors import PodiumError, Refused, Unavailable

log = logging.getLogger(__name__)


def run(settings: GatewaySettings, *, alone: bool = False) -> None:
    """Run one gateway until a signal ends it. SIGINT drains and stops Envoy; SIGTERM lets it serve on for the next
    agent, or, where nobody starts one (`alone`), stops it too.

    Raises Refused if an agent already runs in this home, or another gateway has its name and it is `alone`; Unavailable
    if Envoy cannot be started.
    """
    settings.layout.prepare()
    with _alone(settings):
        asyncio.run(_run(settings, alone))
        # Who asks twice may be late: everything has ended.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def stop(settings: GatewaySettings) -> bool:
    """Drain and stop the Envoy of this home, for when no agent runs. False: none was running. Raises Refused while an
    agent runs: it would start Envoy again (send it SIGINT instead)."""
    settings.layout.prepare()
    with _alone(settings):
        return asyncio.run(_stop(settings))


async def _run(settings: GatewaySettings, alone: bool) -> None:
    api = ServerApi(settings.server_url, settings.name, settings.token, trust_of(settings))
    agent = Agent(settings, api, api, gives_way=alone)
    upgrades: set[asyncio.Task[None]] = set()

    async def upgrade() -> None:
        try:
            await agent.upgrade()
            log.info("Envoy was handed over in place")
        except PodiumError as error:
            log.error("Envoy was not handed over, the old one serves on: %s", error)

    def begin_upgrade() -> None:
        task = asyncio.create_task(upgrade())
        upgrades.add(task)
        task.add_done_callback(upgrades.discard)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, agent.stop_all if alone else agent.end)
    loop.add_signal_handler(signal.SIGINT, agent.stop_all)
    loop.add_signal_handler(signal.SIGHUP, begin_upgrade)
    async with _metrics(settings):
        try:
            await agent.run()
        finally:
            await api.close()


@contextlib.asynccontextmanager
async def _metrics(settings: GatewaySettings) -> AsyncIterator[None]:
    """Served as long as the agent runs. A port that cannot be had is said, and keeps no gateway from its work."""
    if settings.metrics_port is None:
        yield
        return
    admin = Admin(settings.layout.admin_socket)
    server = MetricsServer(admin, settings.metrics_port)
    try:
        await server.start()
    except Unavailable as error:
        log.error("%s", error.message)
    try:
        yield
    finally:
        await server.close()
        await admin.close()


async def _stop(settings: GatewaySettings) -> bool:
    admin = Admin(settings.layout.admin_socket)
    envoy = EnvoyProcess(settings, find_binary(), admin)
    try:
        if not envoy.adopt():
            return False
        await envoy.stop(settings.drain)
        return True
    finally:
        envoy.close()
        await admin.close()


@contextlib.contextmanager
def _alone(settings: GatewaySettings) -> Iterator[None]:
    """One agent per home. The lock goes with the process, however it ends."""
    handle = os.open(settings.layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"a gateway agent already runs in {settings.home}",
                next_step="stop it first, or name another home",
            ) from None
        yield
    finally:
        os.close(handle)
