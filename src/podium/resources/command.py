"""The command of another server: a list of arguments with placeholders, never a shell's text.

Called by `deployment` (validation) and by targets, which know the values. Pure.
"""

import re
import shlex
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

PLACEHOLDERS: Mapping[str, str] = {
    "python": "the interpreter of the version's environment",
    "model": "the folder of the version's files",
    "tmp": "the replica's private folder, the only one that it may write to",
    "name": "the Deployment's name",
    "version": "the version's number",
    "host": "the address to listen on",
    "port": "the port to listen on",
    "fd": "the number of the socket that is handed over instead of a port",
}
"""Known placeholders. `{port.NAME}` is one more port, for a server that insists on several."""
_MOST_ARGUMENTS = 256
_LONGEST_ARGUMENT = 4096
_MOST_EXTRA_PORTS = 8
# Doubled braces around a name stand for themselves. Other braces (JSON, templates) are left alone.
_MARK = re.compile(r"\{\{([A-Za-z][\w.-]*)\}\}|\{([A-Za-z][\w.-]*)\}")
_EXTRA = re.compile(r"port\.([a-z][a-z0-9]{0,15})")


def parse_command(value: object) -> object:
    """A text is split as a shell would (quotes, no expansion); a list is kept. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ValueError(f"expected a command: {error}") from None


Command = Annotated[
    list[Annotated[str, Field(max_length=_LONGEST_ARGUMENT)]],
    BeforeValidator(parse_command),
    Field(min_length=1, max_length=_MOST_ARGUMENTS),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]


def placeholders(texts: list[str]) -> set[str]:
    """The placeholders that these texts use. Raises ValueError for an unknown one, listing the known."""
    found: set[str] = set()
    for text in texts:
        if "\x00" in text:
            raise ValueError("expected no NUL")
        for doubled, name in _MARK.findall(text):
            if doubled:
                continue
            if name not in PLACEHOLDERS and not _EXTRA.fullmatch(name):
                known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
                raise ValueError(
                    f"unknown placeholder {{{name[:40]}}}; known: {known}, {{port.NAME}}; "
                    f"to mean the text itself, write {{{{{name[:40]}}}}}"
                )
            found.add(name)
    if len(extra_ports(found)) > _MOST_EXTRA_PORTS:
        raise ValueError(f"expected at most {_MOST_EXTRA_PORTS} ports beside {{port}}")
    return found


def extra_ports(names: set[str]) -> tuple[str, ...]:
    """NAMEs of `{port.NAME}` among placeholders, sorted."""
    return tuple(sorted(match.group(1) for name in names if (match := _EXTRA.fullmatch(name))))


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders replaced, once: what a value holds is not looked at again."""
    return _MARK.sub(lambda match: f"{{{match[1]}}}" if match[1] else values[match[2]], text)
