"""NAME=VALUE as people give it to an option that may be repeated. Called by commands."""

from collections.abc import Iterable

from podium.resources.errors import InvalidInput, Issue


def pairs_of(given: Iterable[str] | None, option: str, *, value: str = "VALUE") -> list[tuple[str, str]]:
    """Each text in two, taken as it stands. `value` says in the error what is expected. Raises InvalidInput naming the
    option: for a text without `=` or without a name, and for a name that comes twice."""
    found: dict[str, str] = {}
    for text in given or ():
        name, mark, content = text.partition("=")
        if not mark or not name:
            raise InvalidInput(Issue(option, f"expected NAME={value}, got {text[:60]!r}"))
        if name in found:
            raise InvalidInput(Issue(option, f"{name[:60]}: expected once, got twice"))
        found[name] = content
    return list(found.items())


def headers_of(given: Iterable[str] | None, option: str = "--header") -> list[tuple[str, str]]:
    """`Name: value`, without the blanks around both. A header may come several times. Raises InvalidInput."""
    found = []
    for text in given or ():
        name, mark, content = text.partition(":")
        if not mark or not name.strip():
            raise InvalidInput(Issue(option, f"expected NAME: VALUE, got {text[:60]!r}"))
        found.append((name.strip(), content.strip()))
    return found
