"""`podium down`: the gateways drain and stop, then every replica of this home. Called by `__main__`."""

import signal
import time
from dataclasses import replace

from podium.app import supervisor
from podium.app.gateway import gateway_settings
from podium.app.settings import Settings
from podium.gateway import main as gateway_main
from podium.processes.identity import send_signal, wait_exit
from podium.targets.process import ProcessTarget

_GRACE_SECONDS = 30.0
_HURRY_SECONDS = 0.5


def stop_gateway(settings: Settings) -> bool:
    """Drain and stop Envoy, through its agent if that runs, which keeps its notice. True if either was running."""
    timeout = _GRACE_SECONDS + settings.gateway_notice
    agent = supervisor.stop(settings, "gateway", timeout=timeout, number=signal.SIGINT)
    if not (settings.home / "gateway").exists():
        return agent
    return gateway_main.stop(gateway_settings(settings, token=None)) or agent


def stop_further_gateways(settings: Settings) -> list[str]:
    """The gateways that `podium gateway run` started from this home, and Envoys that a killed one left: without server
    and replicas they have nothing to answer. The names of those that ran."""
    folders = sorted((settings.home / "gateways").glob("*/gateway"))
    all_of_them = [
        replace(settings, home=folder.parent, gateway_name=folder.parent.name) for folder in folders
    ]
    known = {one.gateway_name: supervisor.running(one, "gateway") for one in all_of_them}
    agents = [agent for agent in known.values() if agent is not None]
    deadline = time.monotonic() + _GRACE_SECONDS
    while agents and time.monotonic() < deadline:
        # The second one cuts the notice short: nobody is to be told to go elsewhere. Two that come close together are
        # one to the agent, so there are pauses. All of them drain at once.
        for agent in agents:
            send_signal(agent, signal.SIGINT)
        agents = [agent for agent in agents if not wait_exit(agent, _HURRY_SECONDS / len(agents))]
    return [one.gateway_name for one in all_of_them if stop_gateway(one) or known[one.gateway_name]]


def stop_replicas(settings: Settings) -> int:
    """SIGTERM to all, then wait; each replica's own shim kills it after the grace. How many there were.

    One that a server measured when it was killed counts as well.
    """
    folders = [settings.home / name for name in ("replicas", "profiles")]
    targets = [ProcessTarget(folder, settings.sockets) for folder in folders if folder.exists()]
    found = [(target, replica) for target in targets for replica in target.observe_all()]
    running = [(target, replica) for target, replica in found if replica.phase != "Exited"]
    for target, replica in running:
        target.stop(replica.name, _GRACE_SECONDS, revision_uid=replica.revision_uid)
    deadline = time.monotonic() + _GRACE_SECONDS + 5
    while time.monotonic() < deadline and any(
        replica.phase != "Exited" for target in targets for replica in target.observe_all()
    ):
        time.sleep(0.05)
    return len(running)
