"""Canonical JSON and the files that Envoy watches. Called by the other render modules and `loader`."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

TYPES = "type.googleapis.com/"


@dataclass(frozen=True)
class Document:
    """The content of one watched file. The version is a hash of the resources: the same content has the same
    version, because Envoy never shows an unchanged content as loaded under another version."""

    version: str
    content: bytes


def fragment(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def document(resources: Iterable[bytes]) -> Document:
    """A DiscoveryResponse that holds these rendered resources."""
    body = b"[" + b",".join(resources) + b"]"
    version = hashlib.sha256(body).hexdigest()[:24]
    return Document(version, b'{"versionInfo":"%s","resources":%s}\n' % (version.encode(), body))


def typed(type_name: str, **fields: Any) -> dict[str, Any]:
    """A protobuf Any in JSON."""
    return {"@type": TYPES + type_name, **fields}


def seconds(value: float) -> str:
    """A protobuf Duration in JSON, to the millisecond."""
    return f"{value:.3f}s"
