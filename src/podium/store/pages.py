"""Where a page begins and how long it may be. Used by `read`, `store` and whatever is listed."""

import base64
import binascii

import orjson

from podium.resources.errors import InvalidInput, Issue
from podium.store.columns import MAX_INTEGER

MAX_LIMIT = 100_000


def checked_limit(limit: int | None) -> int | None:
    """The limit, None for all. Raises InvalidInput."""
    if limit is not None and not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput(Issue("limit", f"expected a number from 1 to {MAX_LIMIT}"))
    return limit


def above(row_id: int) -> int:
    """An id that rows shall be above, whatever number a caller has made up: no database column takes them all."""
    return max(-1, min(row_id, MAX_INTEGER))


def below(row_id: int | None) -> int:
    """An id that rows shall be below; None for all."""
    return MAX_INTEGER if row_id is None else max(0, min(row_id, MAX_INTEGER))


def make_token(version: int, workspace: str, name: str) -> str:
    """Opaque text for "after this object, in the list that began at this version"."""
    return base64.urlsafe_b64encode(orjson.dumps([version, workspace, name])).decode().rstrip("=")


def read_token(token: str) -> tuple[int, str, str]:
    """What `make_token` was given. Raises InvalidInput."""
    bad = InvalidInput(
        Issue("continue", "not a page token of this list"), next_step="list again from the start"
    )
    try:
        parts = orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        raise bad from None
    if not (isinstance(parts, list) and [type(part) for part in parts] == [int, str, str]):
        raise bad
    version, workspace, name = parts
    return version, workspace, name
