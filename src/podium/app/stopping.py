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
