"""`podium down`: the gateway drains and stops, then every replica of this home. Called by `__main__`."""

import signal
import time

from podium.app import supervisor
from podium.app.gateway import gateway_settings
from podium.app.settings import Settings
from podium.gateway import main as gateway_main
from podium.targets.process import ProcessTarget

_GRACE_SECONDS = 30.0


def stop_gateway(settings: Settings) -> bool:
    """Drain and stop Envoy, through its agent if that runs. True if either was running."""
    agent = supervisor.stop(settings, "gateway", timeout=30, number=signal.SIGINT)
    if not (settings.home / "gateway").exists():
        return agent
    return gateway_main.stop(gateway_settings(settings, token=None)) or agent


def stop_replicas(settings: Settings) -> int:
    """SIGTERM to all, then wait; each replica's own shim kills it after the grace. How many there were."""
    folder = settings.home / "replicas"
    if not folder.exists():
        return 0
    target = ProcessTarget(folder, settings.sockets)
    running = [replica for replica in target.observe_all() if replica.phase != "Exited"]
    for replica in running:
        target.stop(replica.name, _GRACE_SECONDS, revision_uid=replica.revision_uid)
    deadline = time.monotonic() + _GRACE_SECONDS + 5
    while time.monotonic() < deadline and any(replica.phase != "Exited" for replica in target.observe_all()):
        time.sleep(0.05)
    return len(running)
