"""Deployments, revisions, rollouts, gateways and traffic as the decisions see them; called by the tests beside it."""

import datetime
from typing import Any

from podium.analysis import ArmCounts, Window
from podium.planning.gateways import GatewayView
from podium.planning.looks import Trial
from podium.planning.moves import RolloutOutcome, RolloutWorld
from podium.resources.comparison import Comparison
from podium.resources.kinds import KINDS, Deployment, ModelVersion, Revision, Rollout

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
NAME, STABLE, CANDIDATE = "churn", "churn-00001", "churn-00002"
LOADED_AT = 100
"""resourceVersion at which the weight was written, in rollouts that are under way."""
CANARY = {
    "strategy": {
        "type": "canary",
        "steps": [{"weight": 10, "duration": "60s"}, {"weight": 50, "requests": 1000}],
    }
}
BLUE_GREEN = {"strategy": {"type": "blueGreen", "previewFor": "1m", "observe": "30s"}}
RECREATE = {"strategy": {"type": "recreate"}}
SHADOW = {"strategy": {**CANARY["strategy"], "type": "shadow", "requests": 500, "maxDuration": "10m"}}
AB_TEST = {"strategy": {"type": "abTest", "weight": 50, "requests": 1000, "duration": "1h"}}


def at(seconds: float) -> datetime.datetime:
    """That many seconds after (before) `NOW`."""
    return NOW + datetime.timedelta(seconds=seconds)


def digest(version: int) -> str:
    """The manifest digest of a version; another one for each."""
    return f"sha256:{version:064x}"


def model_version(version: int = 1) -> ModelVersion:
    manifest = {
        "flavor": {"name": "sklearn", "entry": "m.pkl"},
        "files": [{"path": "m.pkl", "size": 1, "sha256": "a" * 64}],
        "python": "3.11",
        "lock": {"sha256": "b" * 64},
    }
    made: ModelVersion = KINDS["ModelVersion"].parse(
        {
            "metadata": {"name": f"{NAME}.{version}"},
            "spec": {
                "model": NAME, "version": str(version), "digest": digest(version), "pushDigest": digest(version),
                "manifest": manifest,
            },
        }
    )  # fmt: skip
    return made


def deployment(
    version: int | None = 1,
    *,
    meta: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> Deployment:
    """`version` None: by the alias champion."""
    model = {"name": NAME, **({"alias": "champion"} if version is None else {"version": version})}
    made: Deployment = KINDS["Deployment"].parse(
        {
            "metadata": {"name": NAME, "uid": "d", "generation": 1, **(meta or {})},
            "spec": {"model": model, **spec},
            "status": status or {},
        }
    )
    return made


def revision(
    number: int, *, meta: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **status: Any
) -> Revision:
    """Of version `number` unless `spec` says otherwise; `ready` replicas are ready and wanted."""
    ready = status.pop("ready", None)
    if ready is not None:
        states = [
            {
                "name": f"{NAME}-{number:05d}-{n + 1}", "phase": "Ready", "address": f"unix:/{number}/{n}",
                "startedAt": at(-3600),
            }
            for n in range(ready)
        ]  # fmt: skip
        phase = "Ready" if ready else "Starting"
        status = {
            "replicas": states,
            "readyReplicas": ready,
            "wantedReplicas": max(1, ready),
            "phase": phase,
        } | status
    made: Revision = KINDS["Revision"].parse(
        {
            "metadata": {"name": f"{NAME}-{number:05d}", "uid": f"r{number}", **(meta or {})},
            "spec": {
                "deployment": NAME, "deploymentUid": "d", "number": number, "model": NAME, "version": str(number),
                "manifestDigest": digest(number), "runtimeWheel": "wheel-1", "target": "process", "resources": {},
                "runtime": {}, "sandbox": {}, "idempotent": True, "contentHash": "of an earlier Podium", **(spec or {}),
            },
            "status": status,
        }
    )  # fmt: skip
    return made


def rollout(
    phase: str = "Progressing",
    settings: dict[str, Any] | None = None,
    *,
    spec: dict[str, Any] | None = None,
    name: str = f"{NAME}-2",
    **status: Any,
) -> Rollout:
    """From `STABLE` to `CANDIDATE`; canary unless said otherwise. Weights are loaded unless `loaded` is False."""
    under_way = {"weightVersion": LOADED_AT, "loaded": True, "stepStartedAt": at(-1), "startedAt": at(-60)}
    made: Rollout = KINDS["Rollout"].parse(
        {
            "metadata": {"name": name, "uid": name},
            "spec": {
                "deployment": NAME, "deploymentUid": "d", "generation": 2, "stableRevision": STABLE,
                "candidateRevision": CANDIDATE, "settings": settings or CANARY, **(spec or {}),
            },
            "status": {"phase": phase} | ({} if phase == "Pending" else under_way) | status,
        }
    )  # fmt: skip
    return made


def gateway(observed: int = LOADED_AT, *, silent: float = 0.0, name: str = "gw", **more: Any) -> GatewayView:
    """`silent`: seconds since its last report."""
    return GatewayView(name, at(-silent), observed, **more)


def traffic(
    weight: int,
    candidate: tuple[int, int],
    stable: tuple[int, int] | None = None,
    *,
    started: int | None = None,
) -> Window:
    """(requests, failed) of both arms at that percentage; the stable arm's as the weight has it, without failures.
    `started`: requests that were sent to the candidate, where these are not those that it answered."""
    total, bad = candidate
    other, other_bad = stable or (total * (100 - weight) // weight, 0)
    return Window(
        0.0, 10.0, "gw", weight / 100,
        stable=ArmCounts(started=other, total=other, bad=other_bad),
        candidate=ArmCounts(started=total if started is None else started, total=total, bad=bad),
    )  # fmt: skip


def restarted(number: int, ready: int, *started: float) -> Revision:
    """A revision whose replicas were started that many seconds ago, after others had ended."""
    states = [
        {"name": f"r{n}", "phase": "Ready", "address": f"unix:/{n}", "startedAt": at(-seconds)}
        for n, seconds in enumerate(started)
    ]
    return revision(
        number, replicas=states, readyReplicas=ready, restarts=len(started), wantedReplicas=len(started)
    )


def world(
    *windows: Window,
    candidate: Revision | int | None = 1,
    stable: Revision | int | None = 1,
    gateways: tuple[GatewayView, ...] | None = None,
    replicas: int = 1,
    copies: tuple[Window, ...] = (),
    comparison: Comparison | None = None,
    **more: Any,
) -> RolloutWorld:
    """`candidate`, `stable`: a revision, or how many ready replicas it has; None: it is gone."""
    challenger = revision(2, ready=candidate) if isinstance(candidate, int) else candidate
    champion = revision(1, ready=stable) if isinstance(stable, int) else stable
    alive = challenger.status.ready_replicas if challenger is not None else 0
    return RolloutWorld(
        now=more.pop("now", NOW),
        candidate=challenger,
        stable=champion,
        replicas=replicas,
        gateways=(gateway(),) if gateways is None else gateways,
        trial=Trial(windows, alive, replicas, copies=copies, comparison=comparison),
        **more,
    )


def committed(before: Rollout, outcome: RolloutOutcome, version: int = LOADED_AT + 1) -> Rollout:
    """The rollout as it is once the outcome is written: a weight that changed is not loaded yet."""
    status = outcome.status
    moved = (status.weight, status.phase) != (before.status.weight, before.status.phase)
    if moved and not status.loaded:
        status = status.model_copy(update={"weight_version": version})
    return before.model_copy(update={"status": status})


COPYING: dict[str, Any] = {"step": -1, "weight": 0, "shadow": True}
BEFORE_LAST: dict[str, Any] = {"step": 0, "weight": 10}
LAST: dict[str, Any] = {"step": 1, "weight": 50}
BAD = traffic(50, (400, 80))
GOOD = (traffic(10, (2000, 1), (18_000, 9)), traffic(50, (8000, 8), (8000, 8)))
UNPROVEN = traffic(50, (1000, 100), (1000, 100))
"""No worse than the other, as far as so few requests tell."""
FEW = traffic(10, (40, 0))
UNEVEN = traffic(50, (2000, 0), (8000, 0))
