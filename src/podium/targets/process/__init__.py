"""Target `process`: replicas as confined, detached processes of this machine, each under a shim of its own."""

from podium.targets.process.target import ProcessTarget

__all__ = ["ProcessTarget"]
