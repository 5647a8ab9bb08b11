"""An XGBoost model in a file that `save_model` wrote: JSON or UBJSON.

Called by `intake`. XGBoost writes its version into the file, as three numbers under `version`.
"""

import re
from collections.abc import Sequence

from packaging.requirements import Requirement

from podium.registry import requirements
from podium.registry.formats.port import FlavorName, PushedFiles, Reading
from podium.resources.errors import InvalidInput, Issue
from podium.resources.manifest import Flavor

_SUFFIXES = (".json", ".ubj")
_START_BYTES = 4096
_END_BYTES = 4096
_OVERLAP = 256
# Keys are written in alphabetical order: `learner` begins the file, `version` ends it.
_JSON_START = re.compile(rb'\s*\{\s*"learner"\s*:')
_JSON_VERSION = re.compile(rb'"version"\s*:\s*\[\s*(\d{1,4})\s*,\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\]')
# UBJSON (ubjson.org): `{`, then a key as its length (L and 8 bytes) and its text.
_UBJ_START = b"{L" + (7).to_bytes(8, "big") + b"learner"
# An array whose length may stand before it, each number with its own mark: i, U 1 byte; I 2; l 4; L 8.
_UBJ_VERSION = re.compile(re.escape(b"L" + (7).to_bytes(8, "big") + b"version[") + rb"(?:#L.{8})?", re.DOTALL)
_UBJ_SIZES = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8}
_NEXT = "load it with the XGBoost that wrote it and save it again with save_model('model.ubj')"


class XgboostFile:
    """Implements Format."""

    name: FlavorName = "xgboost"
    description = "an XGBoost file of save_model (.json, .ubj)"

    def recognises(self, files: PushedFiles) -> bool:
        return len(files.paths) == 1 and files.paths[0].lower().endswith(_SUFFIXES)

    def read(self, files: PushedFiles, given: Sequence[Requirement]) -> Reading:
        if not self.recognises(files):
            raise InvalidInput(
                Issue("files", f"expected one file whose name ends with {', '.join(_SUFFIXES)}")
            )
        path = files.paths[0]
        with files.open(path) as stream:
            start = stream.read(_START_BYTES)
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _END_BYTES))
            end = stream.read()
        if start.startswith(_UBJ_START):
            version = _ubj_version(end)
        elif _JSON_START.match(start):
            match = _JSON_VERSION.search(end)
            version = ".".join(str(int(part)) for part in match.groups()) if match else None
        else:
            raise InvalidInput(
                Issue(path, "not an XGBoost model: no learner stands at its start"), next_step=_NEXT
            )
        if requirements.has(given, "xgboost", "xgboost-cpu"):
            return Reading(Flavor(name="xgboost", entry=path))
        if version is None:
            raise InvalidInput(
                Issue("requirements", f"which version of xgboost was {path} written with? it does not say"),
                next_step="say it with --requirement xgboost==X.Y.Z",
            )
        note = (
            f"xgboost=={version} brings NVIDIA's library for several GPUs; "
            f"--requirement xgboost-cpu=={version} leaves it out"
        )
        return Reading(
            Flavor(name="xgboost", entry=path), [Requirement(f"xgboost=={version}")], notes=(note,)
        )


def _ubj_version(end: bytes) -> str | None:
    found = list(_UBJ_VERSION.finditer(end))
    if not found:
        return None
    at = found[-1].end()
    numbers = []
    for _ in range(3):
        size = _UBJ_SIZES.get(end[at : at + 1])
        if size is None or len(end) < at + 1 + size:
            return None
        numbers.append(int.from_bytes(end[at + 1 : at + 1 + size], "big", signed=False))
        at += 1 + size
    return ".".join(str(number) for number in numbers)
