"""What the gateway makes of a request before any rule looks at it: its path in canonical form, headers without those
that only the gateway says. Called by `route` (a rule that could never match) and `route_test`.

Source: Envoy's path normalisation with `merge_slashes` and escaped slashes refused; a test compares the two.
"""

import re

GATEWAY_HEADERS = (
    "x-podium-caller", "x-podium-claims", "x-podium-cascade", "x-podium-record", "x-podium-shadow", "x-podium-route",
)  # fmt: skip
"""Taken out of what clients send."""
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
_NEVER = re.compile(r'[^!-~]|[?#"<>\\^`{|}]|//|%(2[fF]|5[cC]|00)')
_ESCAPE = {character: f"%{ord(character):02X}" for character in '"<>^`{|}'}


def check_path(path: str) -> None:
    """Raises ValueError for a path behind a Route's name that no rule ever sees in this form, with the form it has."""
    if path == "":
        return
    seen = _canonical(path)
    if re.fullmatch(r"/versions(/.*)?", seen):
        raise ValueError("a version is asked for by the Deployment's own path, and no rule sees it")
    if seen != path:
        raise ValueError(f"the gateway makes {seen} of it before any rule looks: say that")


def check_part(text: str) -> None:
    """Raises ValueError for a part of a path that no canonical path has."""
    found = _NEVER.search(text)
    if found is not None:
        raise ValueError(f"no path has {found[0]!r} in it when rules look at it")


def never_passes(header: str) -> bool:
    """Whether the gateway takes this header out of every request because of its name: with `_` for `-` a server may
    read another's."""
    return "_" in header


def is_gateways(header: str) -> bool:
    """Whether only the gateway says this header."""
    return header.lower().replace("_", "-") in GATEWAY_HEADERS


def _canonical(path: str) -> str:
    """Raises ValueError for what the gateway refuses (400), and what leaves the Route (404)."""
    if re.search(r"[?#]|[^!-~]", path):
        raise ValueError("expected it without query, fragment, spaces and what is not ASCII")
    if re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise ValueError("expected two hexadecimal digits after each '%'")
    if re.search(r"%(2f|5c|00)", path, re.IGNORECASE):
        raise ValueError("the gateway refuses an escaped slash, backslash or NUL (400)")
    parts: list[str] = []
    *folders, last = path.replace("\\", "/").removeprefix("/").split("/")
    for place, part in enumerate((*folders, last)):
        is_last = place == len(folders)
        plain = _ESCAPED.sub(_unescaped, part)
        # `..;x` climbs like `..`, but only where its dots are not escaped.
        before, mark, _ = part.partition(";")
        step = before if mark and before in (".", "..") else plain
        if step == "..":
            if not parts:
                raise ValueError("it leaves the Route")
            parts.pop()
        elif step != ".":
            parts.append(plain)
            continue
        if is_last:
            parts.append("")
    merged = re.sub("/+", "/", "/" + "/".join(parts))
    return "".join(_ESCAPE.get(character, character) for character in merged)


def _unescaped(found: re.Match[str]) -> str:
    """Of letters, digits and `-._~` the character itself; everything else stays escaped."""
    character = chr(int(found[1], 16))
    return character if re.fullmatch(r"[A-Za-z0-9._~-]", character) else found[0]
