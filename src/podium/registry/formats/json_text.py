"""JSON from strangers, small files only.

Called by the formats whose folders describe themselves in JSON.
"""

import json
from typing import Any

from podium.registry.formats.port import PushedFiles
from podium.resources.errors import InvalidInput, Issue

_MAX_BYTES = 8 * 2**20


def parse_json(files: PushedFiles, path: str) -> dict[str, Any]:
    """The object in a file. Raises InvalidInput naming the file."""
    document = _parsed(files, path)
    if not isinstance(document, dict):
        raise InvalidInput(Issue(path, "expected a JSON object"))
    return document


def parse_json_list(files: PushedFiles, path: str) -> list[Any]:
    """The list in a file. Raises InvalidInput naming the file."""
    document = _parsed(files, path)
    if not isinstance(document, list):
        raise InvalidInput(Issue(path, "expected a JSON list"))
    return document


def _parsed(files: PushedFiles, path: str) -> Any:
    try:
        return json.loads(files.text(path, _MAX_BYTES))
    except (ValueError, RecursionError):
        raise InvalidInput(Issue(path, "not JSON")) from None
