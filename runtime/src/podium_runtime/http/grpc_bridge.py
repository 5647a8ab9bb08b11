"""gRPC calls that the gateway turned into plain POST requests, handed to the package `grpc`.

One of the skins that `listener` asks for routes. What answers is imported with the first such request: most replicas
never see one.
"""

import asyncio
import re
from collections.abc import Iterable

from podium_runtime import cascading, errors
from podium_runtime.core import Dataplane
from podium_runtime.grpc import PREFIX, SERVICE
from podium_runtime.http.exchange import Exchange
from podium_runtime.http.routes import Route
from podium_runtime.http.statuses import Malformed

_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PREFIX = PREFIX.encode()
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")


class Bridge:
    """Answers POST /inference.GRPCInferenceService/METHOD."""

    def __init__(self, core: Dataplane) -> None:
        self._core = core
        self._tasks: set[asyncio.Task[None]] = set()

    def exact(self) -> Iterable[tuple[str, Route]]:
        yield f"{PREFIX}ModelInfer", ("POST", self._call)

    def find(self, parts: list[str]) -> Route | None:
        match parts:
            case [service, _] if service == SERVICE:
                return "POST", self._call
        return None

    def _call(self, exchange: Exchange) -> None:
        method = exchange.path().rpartition(b"/")[2].decode("ascii", "replace")
        exchange.inference = method == "ModelInfer"
        task = asyncio.get_running_loop().create_task(self._answer(exchange, method))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        exchange.on_gone = task.cancel  # type: ignore[assignment]  # whether it was cancelled is of no interest

    async def _answer(self, exchange: Exchange, method: str) -> None:
        from podium_runtime.grpc import skin

        try:
            timeout, public = _timeout(exchange), exchange.public_name()
            asked = cascading.read(exchange.headers, self._core.served.name)
            caller = skin.Caller(timeout, public, asked, exchange.tell, exchange.see)
            answering = skin.answer(self._core, method, exchange.body(), caller, exchange.log_failure)
            status, headers, content = await answering
        except Exception as error:
            exchange.fail(error)
            return
        _reply(exchange, status, headers, content)


def is_call(exchange: Exchange) -> bool:
    """Return whether a request, of which perhaps only the head has come, is a call of gRPC's."""
    return exchange.target.startswith(_PREFIX)


def refuse(exchange: Exchange, error: errors.RequestError) -> None:
    """Answer a call that was refused before its message had come."""
    from podium_runtime.grpc import skin

    if isinstance(error, Malformed):
        exchange.refuse(error)
    else:
        _reply(exchange, *skin.refusal(error))


def _reply(exchange: Exchange, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
    kind = b"application/x-protobuf"
    lines = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif b"\r" not in value and b"\n" not in value:
            lines += b"%b: %b\r\n" % (name, value)
    exchange.reply(status, content, kind, lines)


def _timeout(exchange: Exchange) -> float | None:
    """Return the seconds that the caller waits, by the proxy's word or by gRPC's own header; the shorter one."""
    told = exchange.timeout()
    found = _TIMEOUT.fullmatch(exchange.headers.get(b"grpc-timeout", b""))
    if found is None:
        return told
    own = int(found[1]) * _UNITS[found[2]]
    return own if told is None else min(own, told)
