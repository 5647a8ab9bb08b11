"""Reads CONFIG.json, the file that whoever starts the process writes for it.

Called by `__main__` before anything heavy is imported, so this module uses the standard library only. Every bad field
raises `ConfigInvalid` with its path; unknown fields are errors too.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from podium_runtime.errors import ConfigInvalid

T = TypeVar("T")


@dataclass(frozen=True)
class Served:
    """What is served: the public name and version, and whose revision it is."""

    name: str
    version: str
    workspace: str
    revision: str


@dataclass(frozen=True)
class Listen:
    """Where to listen: exactly one of an inherited listening descriptor, a Unix socket path, or host and port."""

    fd: int | None = None
    uds: str | None = None
    host: str | None = None
    port: int | None = None
    hold: bool = False
    """Accept nobody before the model is ready: who connects earlier waits. With a descriptor only."""


@dataclass(frozen=True)
class Config:
    """One replica's settings."""

    served: Served
    model_path: Path
    """Folder with the files of the version, at their manifest paths."""
    manifest_path: Path
    manifest_digest: str
    """`sha256:<hex>` over the manifest's bytes."""
    listen: Listen | None
    """None is allowed for `inspect` only."""
    batch_max_size: int
    """Rows that one call of the model may get; 1 turns batching off. One larger request still goes alone, whole."""
    batch_max_delay_ms: float
    """Milliseconds to wait for more rows when the model is free; 0 adds no delay."""
    queue_max_length: int
    """Requests that may wait for the model."""
    max_body_bytes: int
    max_tensor_elements: int
    """Elements that one input tensor may have."""
    max_streams: int
    """Streamed answers under way at once, waiting ones included."""
    warmup_requests: int
    """Calls of the model before readiness; 0 skips the warm-up."""
    warmup_example: dict[str, Any] | None
    """Body of an infer request; None uses an input made up from the signature."""
    drain_seconds: float
    request_timeout_seconds: float
    watchdog_seconds: float
    """Seconds in one call of the model after which it is taken to hang and the process ends; 0 lets it hang."""
    threads: int
    """Size of native thread pools (OpenMP, BLAS, onnxruntime)."""


def read_config(path: Path, needs_listen: bool = True) -> Config:
    """Return the configuration in the file at `path`.

    Raises ConfigInvalid with the field's path when anything is missing, unknown, of the wrong type or out of range.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigInvalid(f"cannot read the configuration: {error.strerror}: {path}") from error
    except ValueError as error:
        raise ConfigInvalid(f"the configuration is not JSON: {error}") from error
    return _Reader(document, "").config(needs_listen)


class _Reader:
    """One JSON object of the configuration with its path, handing out checked fields."""

    def __init__(self, document: object, path: str) -> None:
        if not isinstance(document, dict):
            raise ConfigInvalid(
                f"{path or 'configuration'}: expected an object, got {type(document).__name__}"
            )
        self.document: Mapping[str, object] = document
        self.path = path

    def config(self, needs_listen: bool) -> Config:
        self.only(
            "served", "modelPath", "manifestPath", "manifestDigest", "listen", "batch", "queue", "maxBodyBytes",
            "maxTensorElements", "maxStreams", "warmup", "drainSeconds", "requestTimeoutSeconds",
            "watchdogSeconds", "threads",
        )  # fmt: skip
        served = self.child("served", required=True).only("name", "version", "workspace", "revision")
        batch = self.child("batch").only("maxSize", "maxDelayMs")
        queue = self.child("queue").only("maxLength")
        warmup = self.child("warmup").only("requests", "example")
        example = warmup.document.get("example")
        if example is not None and not isinstance(example, dict):
            raise ConfigInvalid("warmup.example: expected null or the body of an infer request")
        digest = self.text("manifestDigest")
        if not digest.startswith("sha256:") or len(digest) != 71:
            raise ConfigInvalid("manifestDigest: expected sha256:<64 hexadecimal digits>")
        timeout = self.number("requestTimeoutSeconds", default=30, above=True)
        return Config(
            served=Served(
                name=served.text("name"),
                version=served.text("version"),
                workspace=served.text("workspace"),
                revision=served.text("revision"),
            ),
            model_path=Path(self.text("modelPath")),
            manifest_path=Path(self.text("manifestPath")),
            manifest_digest=digest,
            listen=self.listen() if needs_listen or self.document.get("listen") is not None else None,
            batch_max_size=batch.whole("maxSize", default=64, least=1),
            batch_max_delay_ms=batch.number("maxDelayMs", default=0),
            queue_max_length=queue.whole("maxLength", default=1024, least=1),
            max_body_bytes=self.whole("maxBodyBytes", default=16 * 1024 * 1024, least=1),
            max_tensor_elements=self.whole("maxTensorElements", default=16 * 1024 * 1024, least=1),
            max_streams=self.whole("maxStreams", default=16, least=1),
            warmup_requests=warmup.whole("requests", default=1, least=0),
            warmup_example=example,
            drain_seconds=self.number("drainSeconds", default=20),
            request_timeout_seconds=timeout,
            watchdog_seconds=self.number("watchdogSeconds", default=max(2 * timeout, 30.0)),
            threads=self.whole("threads", default=1, least=1),
        )

    def listen(self) -> Listen:
        listen = self.child("listen", required=True).only("fd", "hold", "uds", "host", "port")
        if "fd" in listen.document and set(listen.document) <= {"fd", "hold"}:
            hold = listen.document.get("hold", False)
            if not isinstance(hold, bool):
                raise ConfigInvalid(f"{listen.at('hold')}: expected true or false, got {hold!r}")
            return Listen(fd=listen.whole("fd", default=None, least=0), hold=hold)
        if "uds" in listen.document and len(listen.document) == 1:
            return Listen(uds=listen.text("uds"))
        if set(listen.document) == {"host", "port"}:
            return Listen(host=listen.text("host"), port=listen.whole("port", default=None, least=0))
        raise ConfigInvalid(
            'listen: expected one of {"fd": N} (and "hold"), {"uds": PATH} or {"host": HOST, "port": PORT}'
        )

    def only(self, *known: str) -> "_Reader":
        for name in self.document:
            if name not in known:
                raise ConfigInvalid(f"{self.at(name)}: unknown field; known are {', '.join(sorted(known))}")
        return self

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def child(self, name: str, required: bool = False) -> "_Reader":
        value = self.document.get(name)
        if value is None and not required:
            value = {}
        return _Reader(value, self.at(name))

    def text(self, name: str) -> str:
        checked: str = self._checked(
            name, "a text that is not empty", lambda v: isinstance(v, str) and v != ""
        )
        return checked

    def whole(self, name: str, default: int | None, least: int) -> int:
        def fits(value: object) -> bool:
            return isinstance(value, int) and not isinstance(value, bool) and value >= least

        checked: int = self._checked(name, f"a whole number, at least {least}", fits, default)
        return checked

    def number(self, name: str, default: float, above: bool = False) -> float:
        def fits(value: object) -> bool:
            if not isinstance(value, int | float) or isinstance(value, bool):
                return False
            return 0 < value < 1e9 if above else 0 <= value < 1e9

        return float(
            self._checked(name, "a number above 0" if above else "a number, at least 0", fits, default)
        )

    def _checked(self, name: str, expected: str, fits: Callable[[object], bool], default: Any = None) -> Any:
        value = self.document.get(name, default)
        if not fits(value):
            shown = "nothing" if name not in self.document else type(value).__name__
            raise ConfigInvalid(f"{self.at(name)}: expected {expected}, got {shown}")
        return value
