"""What an operation asks of whoever runs it. Made by the operations, carried out by the two clients."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from podium.client.answers import error_of
from podium.resources.errors import Unavailable

T = TypeVar("T")
Query = Mapping[str, str | int | bool | None]


@dataclass(frozen=True)
class Call:
    """One HTTP request. `path` is under /api/v1, or a whole URL (the gateway's).

    body: sent as JSON. upload: this file is the body. sink: gets the pieces of a good answer's body. on_line: gets its
    lines as they come. allow: statuses that are no errors though they look it. timeout: seconds between two pieces.
    """

    method: str
    path: str
    query: Query = field(default_factory=dict)
    body: Any = None
    upload: Path | None = None
    sink: Callable[[bytes], object] | None = None
    on_line: Callable[[str], object] | None = None
    allow: tuple[int, ...] = ()
    timeout: float | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """The query without what is not given."""
        return {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in self.query.items()
            if value is not None
        }


@dataclass(frozen=True)
class Reply:
    """What came back. `body` is empty where it went to a sink or in lines."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as data. Raises Unavailable if it is none: then something else answers there."""
        try:
            return orjson.loads(self.body)
        except ValueError:
            raise Unavailable(
                "the answer is not JSON: something other than Podium answers there",
                next_step="check PODIUM_URL",
            ) from None


@dataclass(frozen=True)
class Pause:
    """Wait for that many seconds."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Something that blocks: reading, hashing and writing files."""

    function: Callable[[], Any]


Effect = Call | Pause | Work
Operation = Generator[Effect, Any, T]


def call(request: Call) -> Operation[Reply]:
    """The reply. Raises what its problem document says."""
    reply: Reply = yield request
    if reply.status >= 400 and reply.status not in request.allow:
        raise error_of(reply.status, reply.headers, reply.body)
    return reply


def work(function: Callable[[], T]) -> Operation[T]:
    """What the function returns; it runs in a thread where that matters."""
    result: T = yield Work(function)
    return result


def read_file(path: Path) -> Generator[bytes, None, None]:
    """The file's bytes in pieces."""
    with path.open("rb") as file:
        while piece := file.read(2**20):
            yield piece
