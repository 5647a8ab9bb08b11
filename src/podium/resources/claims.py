"""Claims that a person puts into a token, for Routes to choose by: their names, their limits, their form as one text.

They stand in the token under `claims`, apart from Podium's own. Called by `requests` (a new token), `route` and
`route_test` (which claims a rule may name), `api.tokens` (the text) and `gateway.render.sticky` (a key out of it).
"""

import re
from collections.abc import Mapping

OWN = ("sub", "role", "jti")
"""Of Podium's own claims: what a rule may ask for. All are single texts."""
RESERVED = (*OWN, "iss", "aud", "iat", "exp", "nbf", "ws", "dep", "can", "claims", "claimed")
"""Names with a meaning of their own, in a token or in a rule."""
MOST = 16
"""Claims of one token."""
MOST_BYTES = 1024
"""Names and values together: a token travels with every request."""
NAME_PATTERN = r"[a-z][a-z0-9_-]{0,31}"
VALUE_PATTERN = r"[!-:<-~]{1,128}"
"""Visible ASCII without ';', which stands between claims in their text."""
_NAME, _VALUE = re.compile(NAME_PATTERN), re.compile(VALUE_PATTERN)


def check_given(claims: Mapping[str, str]) -> None:
    """Raises ValueError, which names the claim, for what a token cannot be given."""
    for name, value in claims.items():
        if name in RESERVED:
            raise ValueError(
                f"{name}: it has a meaning of its own, as have {', '.join(RESERVED)}; take another name"
            )
        _check_name(name)
        if not _VALUE.fullmatch(value):
            raise ValueError(f"{name}: expected 1 to 128 visible ASCII characters but ';', and no spaces")
    size = sum(len(name) + len(value) for name, value in claims.items())
    if size > MOST_BYTES:
        raise ValueError(f"expected at most {MOST_BYTES} bytes of names and values together, got {size}")


def check_asked(name: str) -> None:
    """Raises ValueError for a claim that no rule may ask for, since no token says it in a form that rules see."""
    if name in OWN:
        return
    if name in RESERVED:
        raise ValueError(f"{name}: expected {', '.join(OWN)} or a claim of `podium token create --claim`")
    _check_name(name)


def is_own(name: str) -> bool:
    """Whether it is one of Podium's, which every token has."""
    return name in OWN


def as_text(claims: Mapping[str, str]) -> str:
    """`name=value;...` in the order of the names, as a gateway and a replica see it in one header."""
    return ";".join(f"{name}={claims[name]}" for name in sorted(claims))


def text_pattern(name: str) -> str:
    """The RE2 pattern of a whole `as_text` that has this claim; its first group is the value."""
    return rf"(?:.*;)?{re.escape(name)}=([^;]*)(?:;.*)?"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:40]!r}: expected a claim's name of 1 to 32 lower-case letters, digits, '-' and '_', starting with "
            "a letter"
        )
