"""Many Deployments that are declared and serve nothing (replicas 0). Called by `rollback` and `scale`."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from benchmarks.world import World, until


def declare(world: World, count: int, say: Callable[[str], object], *, writers: int = 2) -> list[float]:
    """Apply `count` Deployments `idle-N` over HTTP, `writers` at a time; seconds of each request, in their order.

    Returns when every one of them is settled and the gateway has loaded all that was committed.
    """
    url = f"{world.installation.addresses()['url']}/api/v1/apply"
    headers = {"authorization": f"Bearer {world.installation.token}"}
    done = 0

    def apply(number: int) -> float:
        nonlocal done
        wish = world.wish("first", name=f"idle-{number}", replicas=0)
        began = time.perf_counter()
        answer = client.post(url, json=wish)
        seconds = time.perf_counter() - began
        if answer.status_code != httpx.codes.CREATED:
            raise RuntimeError(f"idle-{number}: {answer.status_code} {answer.text[:300]}")
        done += 1
        if done % 50 == 0:
            say(f"{done} of {count} Deployments applied")
        return seconds

    with (
        httpx.Client(headers=headers, timeout=60, trust_env=False) as client,
        ThreadPoolExecutor(writers) as pool,
    ):
        times = list(pool.map(apply, range(count)))
    say("waiting until all of them are settled and loaded")
    until(lambda: all_settled(world, count), 600.0, lambda: "the Deployments do not settle", pause=0.5)
    loaded(world, version(world))
    return times


def all_settled(world: World, count: int) -> bool:
    """Have all of them a stable revision for their present wish?"""
    settled = [
        item for item in world.installation.client.list("Deployment")
        if item.metadata.name.startswith("idle-") and item.status.stable_revision
        and item.status.observed_generation == item.metadata.generation
    ]  # fmt: skip
    return len(settled) >= count


def version(world: World) -> int:
    """The number of the newest commit."""
    return int(world.installation.client.ready()["resourceVersion"])


def loaded(world: World, least: int, seconds: float = 120.0) -> dict[str, Any]:
    """The gateway's report, once it has loaded every commit up to `least`."""

    def report() -> dict[str, Any] | None:
        found = list(world.installation.client.gateways())
        return dict(found[0]) if found and int(found[0]["observedVersion"]) >= least else None

    return until(report, seconds, lambda: f"the gateway has not loaded {least}", pause=0.01)
