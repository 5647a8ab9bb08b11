"""Regular expressions as Envoy knows them: RE2, whose time grows with the text and not with the pattern's cleverness.
Envoy's goes by bytes: `.` is one byte of a letter that is not ASCII, and `[...]` knows no such letter.

Called by `resources.route` for what may be written, and by `planning.route_test` for what matches. The one place that
imports RE2.
"""

import functools
from typing import Any

import re2  # type: ignore[import-untyped]

_CACHED = 1024


def check_pattern(pattern: str) -> None:
    """Raises ValueError, with RE2's words, for what Envoy would refuse."""
    try:
        _compiled(pattern)
    except re2.error as error:
        words = error.args[0]
        said = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
        raise ValueError(f"not a regular expression that RE2 knows: {said}") from None


def matches_whole(pattern: str, text: str) -> bool:
    """Whether all of the text matches. The time is linear in its length, whatever the pattern."""
    return _compiled(pattern).fullmatch(text.encode()) is not None


@functools.lru_cache(maxsize=_CACHED)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(pattern.encode(), options)
