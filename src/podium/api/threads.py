"""Threads for what takes long: uploads, pushes, verification. The API's own threads stay free for short requests."""

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

T = TypeVar("T")


class Threads:
    """At most `count` at once; the others wait without a thread. For one event loop."""

    def __init__(self, count: int) -> None:
        self._count = count
        # A limiter belongs to the event loop that it is made on, so the first call makes it.
        self._limiter: CapacityLimiter | None = None

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """What the function returns."""
        if self._limiter is None:
            self._limiter = CapacityLimiter(self._count)
        return await to_thread.run_sync(function, *arguments, limiter=self._limiter)
